"""How each kind of model is trained: networks by Ray Train."""

from dataclasses import dataclass
from pathlib import Path

from jobs.signals import stop_requests
from jobs.study import AnyModelSettings, Study
from pipeline.formats.card import ModelCard
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.manifest import DatasetManifest
from training.ray_environment import choose_token
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
    return _train_networks(task, task.settings)


def _train_networks(task: Task, settings: ModelSettings) -> ModelCard:
    try:
        from training.train import train_model  # noqa: PLC0415 - other jobs need no torch
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; training needs it: pip install 'topocal[train]'"
        raise UserError(msg) from None
    ray = task.study.ray
    if ray.address.startswith("http"):
        msg = f"ray.address: {ray.address} takes jobs from `topocal submit train` alone"
        raise UserError(msg)
    if ray.address not in {"local", "none"}:
        choose_token(ray.token)
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
            workers_per_gpu=ray.workers_per_gpu,
            address=ray.address,
            interface=ray.interface,
            in_process=ray.address == "none",
            should_stop=should_stop,
        )
        if should_stop():
            msg = f"stopped by a signal after model {task.name}; run again to continue"
            raise StoppedBySignal(msg)
    return card
