"""Fit of a look-up table: one pass over the training split on the Dask farm, one to validate."""

import functools
import operator

from jobs.farm.dask import open_farm
from jobs.task import Task
from pipeline.fold import fold, map_parts
from pipeline.formats.card import ModelCard
from pipeline.lookup.fit import group_parts, plan_fit, score_group, sum_group, write_model
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.tables import make_tables


def fit_lookup_table(task: Task, settings: LookupTableSettings) -> ModelCard:
    """Fit the tables of a model and write its files, the card last.

    Raises:
        UserError: The dataset lacks a column, or one of the two classes.
    """
    plan = plan_fit(task.dataset, task.manifest, settings)
    with open_farm(task.study.dask) as client:
        add = functools.partial(sum_group, plan=plan)
        groups = group_parts(task.manifest, "train")
        sums = fold(client, add, groups, operator.add, label=f"fit {task.name}")
        tables = make_tables(sums, settings)
        score = functools.partial(score_group, plan=plan, tables=tables)
        groups = group_parts(task.manifest, "validation")
        found = map_parts(client, score, groups, label=f"validate {task.name}")
    total, error = (sum(values) for values in zip((0.0, 0.0), *found, strict=True))
    return write_model(
        tables,
        task.manifest,
        settings,
        name=task.name,
        folder=task.folder,
        fingerprint=task.fingerprint,
        scores={"validation_mae_log10": error / total} if total > 0 else {},
    )
