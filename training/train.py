"""Train a network or an ensemble on a dataset and export it: the one function that jobs call."""

import logging
from collections.abc import Callable

from pipeline.formats.card import CARD, ModelCard
from pipeline.formats.files import TEMPORARY
from training.checkpoint import newest_checkpoint
from training.data.training_data import read_data_for
from training.export.family_summaries import require_exportable
from training.export.model import export_model
from training.history import showing_progress
from training.job import TrainingJob
from training.loop import train_network
from training.settings import DensitySettings
from training.tensorboard import require_tensorboard
from training.worker import Worker

log = logging.getLogger(__name__)


def _never() -> bool:
    return False


def train_model(job: TrainingJob, should_stop: Callable[[], bool] = _never) -> ModelCard:
    """Train, or continue, and export a network; its card.

    Args:
        job: What is trained, and where.
        should_stop: Asked often; True ends the training at its last complete epoch.

    Raises:
        UserError: The dataset or a setting is at fault, or the loss is not finite.
        StoppedBySignal: should_stop returned True; run again to continue.
    """
    folder, settings = job.folder, job.settings
    if job.resources.tensorboard:
        require_tensorboard()
    for caution in settings.cautions:
        log.warning("%s: %s", job.name, caution)
    folder.mkdir(parents=True, exist_ok=True)
    for card in (folder / CARD, *folder.glob(f"*/{CARD}")):  # those of several targets
        card.unlink(missing_ok=True)
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)
    if isinstance(settings, DensitySettings) and newest_checkpoint(folder, job.fingerprint) is None:
        require_exportable(settings.family)
    if job.resources.address == "none":
        _train_here(job, should_stop)
    else:
        from training.ray.workers import fit  # noqa: PLC0415 - importing Ray takes seconds

        fit(job, should_stop)
    return export_model(job)


def _train_here(job: TrainingJob, should_stop: Callable[[], bool]) -> None:
    settings = job.settings
    with showing_progress(job.folder, settings.epochs):
        train_network(
            read_data_for(settings, job.dataset, job.labels),
            settings,
            seed=job.seed,
            fingerprint=job.fingerprint,
            folder=job.folder,
            worker=Worker(threads=job.resources.threads),
            tensorboard=job.resources.tensorboard,
            should_stop=should_stop,
        )
