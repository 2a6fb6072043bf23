"""Which trainings a scaling study consists of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jobs.ingest import dataset_folder, open_dataset
from jobs.study import Study
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import MANIFEST
from pipeline.formats.seeds import derive_seed
from pipeline.formats.versions import fingerprint
from pipeline.settings import SummarySettings
from pipeline.training_size.points import POINT, PointRecord
from pipeline.training_size.settings import LadderSettings, ScalingSettings
from training.settings import DensitySettings

VERSION = 1  # raised when the same training gives other figures
UNFINISHED = "training"  # folder of the checkpoints, below that of the point

Settings = TypeVar("Settings", bound=DensitySettings)


@dataclass(frozen=True)
class Training:
    """One training of the study.

    Attributes:
        ladder: Its name.
        model: Its name.
        settings: Of the model, with the ladder's budget.
        rows: Training rows.
        sample: Which sample of so many rows; 0 is the nested subset.
        repeat: Which seed; 0 is the first.
    """

    ladder: str
    model: str
    settings: DensitySettings
    rows: int
    sample: int
    repeat: int

    @property
    def key(self) -> str:
        """Its folder below those of all trainings."""
        return f"{self.ladder}/rows-{self.rows:08d}/sample-{self.sample:02d}-seed-{self.repeat:02d}"

    @property
    def updates(self) -> int:
        """Number of steps that the optimiser takes in the whole training."""
        return self.settings.updates(self.rows)

    def seed(self, study_seed: int) -> int:
        """From which all its random numbers follow."""
        return derive_seed(study_seed, "scaling", self.sample, self.repeat)


@dataclass(frozen=True)
class PointPlan:
    """All that a worker needs for one training.

    Attributes:
        training: Which one.
        seed: From which its random numbers follow.
        dataset: Folder of the subset.
        test: Folder of the test rows.
        folder: Of the result.
        fingerprint: Of all that it follows from.
        summary: How densities become numbers.
        threads: Compute threads.
        use_gpu: Whether it trains on a GPU.
        owner: File that names the study's run, and the name; another one there ends the training.
    """

    training: Training
    seed: int
    dataset: Path
    test: Path
    folder: Path
    fingerprint: str
    summary: SummarySettings
    threads: int
    use_gpu: bool
    owner: tuple[Path, str]

    @property
    def work(self) -> Path:
        """Where checkpoints are until it is finished."""
        return self.folder / UNFINISHED

    def is_done(self) -> bool:
        """Whether its record and its rows are there."""
        path = self.folder / POINT
        if not path.exists():
            return False
        record = PointRecord.load(path, made_by="scaling")
        return record.fingerprint == self.fingerprint and not record.missing_from(self.folder)


def fingerprint_of(
    training: Training, seed: int, subset: str, test: str, summary: SummarySettings
) -> str:
    """What the figures of a training follow from."""
    return fingerprint(
        stage="scaling",
        version=VERSION,
        settings=training.settings,
        seed=seed,
        subset=subset,
        test=test,
        summary=summary,
    )


def section_of(study: Study) -> ScalingSettings:
    """The section of the study.

    Raises:
        UserError: It has none.
    """
    if study.scaling is None:
        msg = "the study has no section scaling; add one with at least one ladder"
        raise UserError(msg)
    return study.scaling


def expected_rows(study: Study) -> int:
    """Rows of the training split: of the dataset, or about those of the sample to be simulated.

    Raises:
        UserError: There is neither a dataset nor a simulation.
    """
    if (dataset_folder(study) / MANIFEST).exists():
        return open_dataset(study).rows_of("train")
    if study.simulate is None or study.dataset.inputs:
        msg = f"{dataset_folder(study)}: no dataset; run `topocal ingest` first"
        raise UserError(msg)
    return int(study.simulate.num_clusters * study.dataset.split.train)


def plan_trainings(study: Study, num_rows: int) -> list[Training]:
    """All trainings of the study, those with most updates first.

    Args:
        study: With a section `scaling`.
        num_rows: Of the training split.

    Raises:
        UserError: A ladder asks for what the study or its dataset does not have.
    """
    scaling = section_of(study)
    trainings: list[Training] = []
    for name, ladder in scaling.ladders.items():
        settings = _settings_of(study, name, ladder)
        sizes = scaling.sizes_of(ladder, num_rows)
        _require_singles(name, scaling, sizes, num_rows)
        for rows in sizes:
            _require_rows(name, ladder, rows, num_rows, scaling)
            places = [(0, repeat) for repeat in range(ladder.seeds)]
            places += [(sample, 0) for sample in range(1, ladder.samples)]
            trainings += [
                Training(name, ladder.model, settings, rows, sample, repeat)
                for sample, repeat in places
            ]
    return sorted(trainings, key=lambda each: (-each.updates * each.settings.batch_rows, each.key))


def pool_rows(trainings: Sequence[Training], scaling: ScalingSettings) -> int:
    """Freshly simulated training rows that the study takes; 0 if none."""
    if scaling.samples_from == "training":
        return 0
    return max((each.sample * each.rows for each in trainings), default=0)


def _settings_of(study: Study, name: str, ladder: LadderSettings) -> DensitySettings:
    settings = study.models.get(ladder.model)
    if settings is None:
        msg = (
            f"scaling.ladders.{name}.model: no model {ladder.model}; "
            f"the study has {', '.join(study.models) or 'none'}"
        )
        raise UserError(msg)
    if not isinstance(settings, DensitySettings):
        msg = (
            f"scaling.ladders.{name}.model: {ladder.model} is of kind {settings.kind}, which gives "
            "no sigma_stat; take a bnn or a repulsive_ensemble"
        )
        raise UserError(msg)
    if settings.steps_per_epoch is not None:
        msg = f"models.{ladder.model}.steps_per_epoch: a ladder has its own budget; leave it out"
        raise UserError(msg)
    return settings if ladder.steps is None else _with_steps(settings, name, ladder.steps)


def _with_steps(settings: Settings, name: str, steps: int) -> Settings:
    count, rest = divmod(steps, settings.epochs)
    if rest:
        near = [n * settings.epochs for n in (count, count + 1) if n]
        msg = (
            f"scaling.ladders.{name}.steps: {steps} is no multiple of the model's "
            f"{settings.epochs} epochs, which divide the steps; "
            f"take {' or '.join(map(str, near))}, or other epochs"
        )
        raise UserError(msg)
    return settings.model_copy(update={"steps_per_epoch": count})


def _require_singles(
    name: str, scaling: ScalingSettings, sizes: Sequence[int], num_rows: int
) -> None:
    other = scaling.ladders[name].singles
    if other is None:
        return
    missing = sorted(set(sizes) - set(scaling.sizes_of(scaling.ladders[other], num_rows)))
    if missing:
        msg = f"scaling.ladders.{name}.singles: {other} has no size {missing[0]}; give it the same"
        raise UserError(msg)


def _require_rows(
    name: str, ladder: LadderSettings, rows: int, num_rows: int, scaling: ScalingSettings
) -> None:
    if rows > num_rows:
        msg = (
            f"scaling.ladders.{name}.sizes: {rows} training rows are wanted, the training split "
            f"has {num_rows}; take smaller sizes or a larger sample"
        )
        raise UserError(msg)
    if scaling.samples_from == "training" and ladder.samples * rows > num_rows:
        msg = (
            f"scaling.ladders.{name}.samples: {ladder.samples} samples of {rows} rows without a "
            f"common row do not fit into the {num_rows} training rows; take fewer, smaller sizes, "
            "or on simulated data scaling.samples_from: simulation"
        )
        raise UserError(msg)
