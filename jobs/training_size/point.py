"""One training of a scaling study from its rows to its figures; runs here or as a Ray task."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from jobs.training_size.plan import PointPlan
from pipeline.calibrators.density import Summariser
from pipeline.formats.families import FAMILIES
from pipeline.formats.manifest import DatasetManifest, read_manifest, select_features
from pipeline.formats.model_inputs import inputs_of, split_features
from pipeline.training_size.points import POINT, PointRecord, judge_rows, save_rows
from training.checkpoint import Checkpoint, newest_checkpoint
from training.data.training_data import read_data_for
from training.export.finished import Trained
from training.export.graph import DensityNetworks
from training.export.mixture import networks_of
from training.loop import compute_threads, train_network
from training.ray.environment import OwnerChanged
from training.worker import Worker


@dataclass(frozen=True)
class TrainedDensity:
    """The networks of a training as a density, without a file in between."""

    networks: DensityNetworks
    features: tuple[str, ...]
    tables: Mapping[str, tuple[str, ...]]

    @property
    def inputs(self) -> tuple[str, ...]:
        """All columns that they need."""
        return (*self.features, *(name for names in self.tables.values() for name in names))

    @property
    def family(self) -> str:
        """The family of the densities."""
        return self.networks.density.family

    def of_rows(self, columns: Mapping[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - of a family
        """The density of each of N rows, from their raw features by name."""
        given = inputs_of(self.features, self.tables, columns).values()
        with torch.no_grad():
            scaled = self.networks.scaled_inputs(*(torch.from_numpy(each) for each in given))
            outputs_SPN = self.networks.outputs_of_scaled(*scaled).numpy()
        bounds = self.networks.density.log_variance_bounds
        return FAMILIES[self.family].load("densities")(outputs_SPN, bounds)


def make_point(plan: PointPlan, should_stop: Callable[[], bool] | None = None) -> None:
    """Train, or continue, judge and record; then the checkpoints are removed.

    Args:
        plan: Of the training.
        should_stop: Asked at every step; None: whether another run owns the study.

    Raises:
        UserError: The rows are at fault, or the loss is not finite.
        StoppedBySignal: should_stop returned True; the last complete epoch is kept.
    """
    settings = plan.training.settings
    if plan.is_done():  # by a process that lived on after its driver was killed
        return
    done = newest_checkpoint(plan.work, plan.fingerprint)
    if done is None or done.epoch < settings.epochs:
        plan.work.mkdir(parents=True, exist_ok=True)
        train_network(
            read_data_for(settings, plan.dataset),
            settings,
            seed=plan.seed,
            fingerprint=plan.fingerprint,
            folder=plan.work,
            worker=Worker(
                threads=plan.threads, device=torch.device("cuda" if plan.use_gpu else "cpu")
            ),
            should_stop=should_stop or OwnerChanged(*plan.owner),
        )
        done = newest_checkpoint(plan.work, plan.fingerprint)
    if done is None:
        msg = f"{plan.work}: no checkpoint after the last epoch"
        raise RuntimeError(msg)
    _record(plan, done)
    shutil.rmtree(plan.work, ignore_errors=True)


def _record(plan: PointPlan, done: Checkpoint) -> None:
    training, manifest = plan.training, read_manifest(plan.dataset)
    with compute_threads(plan.threads):
        table = judge_rows(_summariser_of(plan, manifest, done), plan.test)
    PointRecord(
        fingerprint=plan.fingerprint,
        ladder=training.ladder,
        model=training.model,
        rows=training.rows,
        sample=training.sample,
        seed=training.repeat,
        networks=training.settings.num_networks,
        updates=training.updates,
        scores={name: done.history[-1][name] for name in ("train_nll", "validation_nll")},
        seconds=sum(record["seconds"] for record in done.history),
        step_seconds=sum(
            training.settings.rows_of_epoch(training.rows) / record["rows_per_second"]
            for record in done.history
        ),
        size=save_rows(plan.folder, table),
    ).save(plan.folder / POINT)


def _summariser_of(plan: PointPlan, manifest: DatasetManifest, done: Checkpoint) -> Summariser:
    """The trained networks as the job calibrate would see them once they were exported."""
    settings = plan.training.settings
    if manifest.target is None:
        msg = f"{plan.dataset}: a subset without a target"
        raise RuntimeError(msg)
    features = select_features(manifest, settings.features, settings.tables)
    trained = Trained(manifest, features, done, plan.seed)
    low, high = manifest.target_range()
    return Summariser(
        density=TrainedDensity(networks_of(trained, settings), *split_features(features)),
        target=manifest.target,
        search_range=(low - plan.summary.margin, high + plan.summary.margin),
        ranges={},
        settings=plan.summary,
    )
