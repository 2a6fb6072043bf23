"""How each kind of model is trained: networks by Ray Train, tables and trees on the Dask farm.

A look-up table takes one pass over the training split on the farm.
"""

import functools
import operator
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.farm.dask import open_farm
from jobs.signals import stop_requests
from jobs.sites import RaySettings
from jobs.task import Task
from pipeline.fold import fold, map_parts
from pipeline.formats.card import ModelCard
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.lookup.fit import group_parts, plan_fit, score_group, sum_group, write_model
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.tables import make_tables
from pipeline.trees.settings import BoostedTreesSettings
from training.job import TrainingJob
from training.ray.environment import choose_token
from training.settings import TrainedSettings


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


def train_kind(task: Task) -> ModelCard:
    """Train a model and write its files, the card last.

    Raises:
        UserError: The dataset or a setting is at fault.
        StoppedBySignal: A signal came; run again to continue.
    """
    if isinstance(task.settings, LookupTableSettings):
        return fit_lookup_table(task, task.settings)
    if isinstance(task.settings, BoostedTreesSettings):
        return _grow_trees(task, task.settings)
    return _train_networks(task, task.settings)


def _grow_trees(task: Task, settings: BoostedTreesSettings) -> ModelCard:
    try:
        from jobs.grow_trees import grow_trees  # noqa: PLC0415 - other jobs need no scikit-learn
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; trees need it: pip install 'topocal[trees]'"
        raise UserError(msg) from None
    return grow_trees(task, settings)


@contextmanager
def needing_torch() -> Iterator[None]:
    """Around the import of what only the extra `train` installs.

    Raises:
        UserError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; training needs it: pip install 'topocal[train]'"
        raise UserError(msg) from None


def prepare_ray(ray: RaySettings) -> None:
    """Before Ray is started or joined.

    Raises:
        UserError: Its address takes submitted jobs alone, or there is no usable token.
    """
    if "://" in ray.address:
        msg = (
            f"ray.address: {ray.address} takes jobs from `topocal submit` alone, since what leads "
            "a training has to run on the cluster"
        )
        raise UserError(msg)
    if ray.address not in {"local", "none"}:
        choose_token(ray.token)


def _train_networks(task: Task, settings: TrainedSettings) -> ModelCard:
    with needing_torch():
        from training.train import train_model  # noqa: PLC0415 - other jobs need no torch
    ray = task.study.ray
    prepare_ray(ray)
    with stop_requests() as should_stop:
        job = TrainingJob(
            task.dataset,
            settings,
            name=task.name,
            seed=task.study.seed,
            folder=task.folder,
            fingerprint=task.fingerprint,
            labels=task.labels,
            resources=ray.resources(),
        )
        card = train_model(job, should_stop)
        if should_stop():
            msg = f"stopped by a signal after model {task.name}; run again to continue"
            raise StoppedBySignal(msg)
    return card
