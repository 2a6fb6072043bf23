"""What a scaling study costs: trainings, updates, and the time that follows from measured steps."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from jobs.study import Study
from jobs.training_size.plan import Training
from training.data.rows import TrainingRows
from training.data.training_data import TrainingData
from training.history import read_history
from training.loop import train_network
from training.settings import DensitySettings
from training.worker import Worker

STEPS, ROUNDS = 4, 4  # of a measurement; its first round compiles and is not counted


def estimate_cost(study: Study, trainings: Sequence[Training]) -> Iterator[str]:
    """Lines for each ladder, then for all, with steps that are measured here and now."""
    device = torch.device("cuda" if study.ray.gpu and torch.cuda.is_available() else "cpu")
    places = 1 if study.ray.address == "none" else study.ray.workers
    total = 0.0
    for name in dict.fromkeys(training.ladder for training in sorted(trainings, key=_by_name)):
        ladder = [training for training in trainings if training.ladder == name]
        seconds = measure_step(
            ladder[0].settings, len(study.dataset.features), study.ray.threads, device
        )
        updates = sum(training.updates for training in ladder)
        total += updates * seconds
        sizes = sorted({training.rows for training in ladder})
        yield (
            f"{name}: {len(ladder)} trainings on {sizes[0]:,} to {sizes[-1]:,} rows, "
            f"{updates:,} updates of {ladder[0].settings.batch_rows:,} rows, "
            f"{1e3 * seconds:.3g} ms each"
        )
    where = "GPU" if device.type == "cuda" else "core"
    yield (
        f"{len(trainings)} trainings, {_clock(total)} of one {where}'s time, about "
        f"{_clock(total / places)} on {places} (ray.workers)"
    )
    if study.ray.gpu and device.type == "cpu":
        yield "there is no GPU here: the steps were measured on this machine's CPU"


def measure_step(
    settings: DensitySettings, num_features: int, threads: int, device: torch.device
) -> float:
    """Seconds of one update on random rows, the median of some epochs."""
    rows = STEPS * settings.batch_rows
    generator = torch.Generator().manual_seed(0)
    made = TrainingRows(
        torch.randn(rows, num_features, generator=generator),
        0.1 * torch.randn(rows, generator=generator),
        None,
    )
    few = made.pieces(64)
    short = settings.model_copy(
        update={
            "epochs": ROUNDS,
            "steps_per_epoch": None,
            "optimizer": settings.optimizer.model_copy(update={"milestones": ()}),
        }
    )
    with TemporaryDirectory(prefix="topocal-step-") as scratch:
        train_network(
            TrainingData(made, next(few), ("",) * (num_features + 1)),
            short,
            seed=0,
            fingerprint="step",
            folder=Path(scratch),
            worker=Worker(threads=threads, device=device),
        )
        rates = [record["rows_per_second"] for record in read_history(Path(scratch))]
    return settings.batch_rows / statistics.median(rates[1:])


def _by_name(training: Training) -> str:
    return training.ladder


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d} min"
