"""How each kind of model is trained: networks by Ray Train, tables by a fold on the farm."""

import functools
import operator
from dataclasses import dataclass
from pathlib import Path

from jobs.farm import open_farm
from jobs.signals import stop_requests
from jobs.study import AnyModelSettings, Study
from pipeline.fold import fold, map_parts
from pipeline.formats.card import ModelCard
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.manifest import DatasetManifest
from pipeline.lookup.fit import group_parts, plan_fit, score_group, sum_group
from pipeline.lookup.model import write_model
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.tables import make_tables
from training.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Task:
    """One model that is to be trained.

    Attributes:
        study: With the seed, and where Dask and Ray run.
        name: Of the model.
        settings: Of the model.
        dataset: Folder of the dataset.
        manifest: Of the dataset.
        folder: Of the model; it is there, and this run alone holds it.
        fingerprint: Of settings and data, for the card.
    """

    study: Study
    name: str
    settings: AnyModelSettings
    dataset: Path
    manifest: DatasetManifest
    folder: Path
    fingerprint: str


def train_kind(task: Task) -> ModelCard:
    """Train a model and write its files, the card last.

    Raises:
        UserError: The dataset or a setting is at fault.
        StoppedBySignal: A signal came; run again to continue.
    """
    if isinstance(task.settings, LookupTableSettings):
        return _fit_lookup_table(task, task.settings)
    return _train_networks(task, task.settings)


def _fit_lookup_table(task: Task, settings: LookupTableSettings) -> ModelCard:
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


def _train_networks(task: Task, settings: ModelSettings) -> ModelCard:
    try:
        from training.train import train_model  # noqa: PLC0415 - other jobs need no torch
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; training needs it: pip install 'topocal[train]'"
        raise UserError(msg) from None
    ray = task.study.ray
    with stop_requests() as should_stop:
        card = train_model(
            task.dataset,
            settings,
            name=task.name,
            seed=task.study.seed,
            folder=task.folder,
            fingerprint=task.fingerprint,
            num_workers=ray.workers,
            threads_per_worker=ray.threads,
            use_gpu=ray.gpu,
            fuse=ray.fuse,
            tensorboard=ray.tensorboard,
            address=ray.address,
            in_process=ray.address == "none",
            should_stop=should_stop,
        )
        if should_stop():
            msg = f"stopped by a signal after model {task.name}; run again to continue"
            raise StoppedBySignal(msg)
    return card
