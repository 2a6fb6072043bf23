"""Train a network or an ensemble on a dataset and export it: the one function that jobs call."""

import logging
from collections.abc import Callable
from pathlib import Path

from pipeline.formats.card import CARD, ModelCard
from pipeline.formats.files import TEMPORARY
from training.data.training_data import read_training_data
from training.epoch import Worker
from training.export.model import export_model
from training.history import showing_progress
from training.loop import train_network
from training.settings import RepulsiveEnsembleSettings, TrainedSettings
from training.tensorboard import require_tensorboard

log = logging.getLogger(__name__)


def _never() -> bool:
    return False


def train_model(  # noqa: PLR0913 - wiring
    dataset: Path,
    settings: TrainedSettings,
    *,
    name: str,
    seed: int,
    folder: Path,
    fingerprint: str,
    num_workers: int,
    threads_per_worker: int,
    use_gpu: bool,
    workers_per_gpu: int = 1,
    address: str,
    interface: str | None = None,
    fuse: bool = False,
    tensorboard: bool = False,
    in_process: bool = False,
    labels: Path | None = None,
    should_stop: Callable[[], bool] = _never,
) -> ModelCard:
    """Train, or continue, and export a network; its card.

    Args:
        dataset: The folder of the manifest.
        settings: Of the networks and their training.
        name: Of the model in its study.
        seed: All random numbers follow from it.
        folder: Of the model; checkpoints of the same fingerprint in it are continued.
        fingerprint: Of settings and data.
        num_workers: Processes that share each batch, or the members of an ensemble; 0: as many as
            find a place and have something to do.
        threads_per_worker: Compute threads of each.
        use_gpu: Whether they train on GPUs.
        workers_per_gpu: That share one GPU.
        address: Of a Ray cluster; "local" starts one that ends with the training.
        interface: That the workers of a cluster talk through.
        fuse: Let torch compile what lies between the products, on a GPU.
        tensorboard: Write the history for TensorBoard as well.
        in_process: Train in this process with one worker and without Ray.
        labels: The folder of labels that a tagger is to predict.
        should_stop: Asked often; True ends the training at its last complete epoch.

    Raises:
        UserError: The dataset or a setting is at fault, or the loss is not finite.
        StoppedBySignal: should_stop returned True; run again to continue.
    """
    if tensorboard:
        require_tensorboard()
    if isinstance(settings, RepulsiveEnsembleSettings) and settings.kernel == "outputs":
        log.warning(
            "%s: kernel outputs: members whose components stand in another order look far apart "
            "though their densities agree; mixture_mean does not see the order",
            name,
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)
    if in_process:
        worker = Worker(threads=threads_per_worker)
        with showing_progress(folder, settings.epochs):
            train_network(
                read_training_data(dataset, settings.features, settings.memory_mib, labels),
                settings,
                seed=seed,
                fingerprint=fingerprint,
                folder=folder,
                worker=worker,
                tensorboard=tensorboard,
                should_stop=should_stop,
            )
    else:
        from training.ray.workers import fit  # noqa: PLC0415 - importing Ray takes seconds

        fit(
            dataset,
            settings,
            name=name,
            seed=seed,
            folder=folder,
            fingerprint=fingerprint,
            num_workers=num_workers,
            use_gpu=use_gpu,
            threads_per_worker=threads_per_worker,
            workers_per_gpu=workers_per_gpu,
            address=address,
            interface=interface,
            fuse=fuse,
            tensorboard=tensorboard,
            labels=labels,
            should_stop=should_stop,
        )
    return export_model(
        dataset,
        settings,
        name=name,
        seed=seed,
        folder=folder,
        fingerprint=fingerprint,
        labels=labels,
    )
