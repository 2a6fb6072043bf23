"""The rows of a scaling study: training subsets, fresh samples, the fixed test rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import ingest, simulate
from jobs.ingest import dataset_folder
from jobs.launch import Run
from jobs.study import Study
from jobs.training_size.plan import Training, pool_rows, section_of
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest, Part, Split, read_manifest
from pipeline.formats.seeds import derive_seed
from pipeline.settings import SplitSettings
from pipeline.training_size.subsets import (
    Origin,
    Subset,
    ranks_of,
    require_rows,
    seen_from,
    write_rows,
    write_subset,
)

POOL_SPLIT = SplitSettings(train=0.998, validation=0.001, test=0.001)  # others are not needed
SPARE = 1.02  # clusters that are simulated for each that is needed


@dataclass(frozen=True)
class StudyRows:
    """Where the rows of the trainings are.

    Attributes:
        subsets: Folder and fingerprint by training rows and sample.
        test: Folder and fingerprint of the test rows.
    """

    subsets: dict[tuple[int, int], tuple[Path, str]]
    test: tuple[Path, str]


def make_rows(
    study: Study, folder: Path, manifest: DatasetManifest, trainings: Sequence[Training]
) -> StudyRows:
    """Write the subsets that the trainings take; those that are there are kept.

    Raises:
        UserError: There are fewer rows than wanted, or fresh ones cannot be simulated.
    """
    scaling = section_of(study)
    origin = Origin(dataset_folder(study), manifest, study.dataset, study.seed)
    test = write_rows(folder / "rows/test", origin, _some_of(manifest, "test", scaling.test_rows))
    validation = write_rows(
        folder / "rows/validation",
        origin,
        _some_of(manifest, "validation", scaling.validation_rows),
    )
    parts = [(folder / "rows/validation", part) for part in validation.parts]
    wanted = sorted({(each.rows, each.sample) for each in trainings})
    fresh = scaling.samples_from == "simulation"
    nested = [place for place in wanted if not fresh or place[1] == 0]
    subsets = _make_subsets(folder, origin, nested, parts, shift=0)
    if len(nested) < len(wanted):
        pool = _make_pool(study, folder, manifest, pool_rows(trainings, scaling))
        others = [place for place in wanted if place not in nested]
        subsets |= _make_subsets(folder, pool, others, parts, shift=1)
    return StudyRows(subsets, (folder / "rows/test", test.fingerprint))


def _some_of(manifest: DatasetManifest, split: Split, rows: int | None) -> Subset:
    present = manifest.rows_of(split)
    if present == 0:
        msg = f"scaling: the {split} split has no rows; give it a larger fraction"
        raise UserError(msg)
    return Subset(split, 0, present if rows is None else min(rows, present))


def _make_subsets(
    folder: Path,
    origin: Origin,
    wanted: Sequence[tuple[int, int]],
    validation: Sequence[tuple[Path, Part]],
    *,
    shift: int,
) -> dict[tuple[int, int], tuple[Path, str]]:
    """The subsets of one dataset, sample `shift` at the start of its order."""
    ranks = ranks_of(origin, "train")
    made = {}
    for rows, sample in wanted:
        subset = Subset("train", (sample - shift) * rows, rows)
        require_rows(origin, "train", subset.first + rows, f"sample {sample} of {rows} rows")
        place = folder / f"rows/train-{rows:08d}-{sample:02d}"
        shared = [seen_from(place, *each) for each in validation]
        manifest = write_subset(place, origin, subset, ranks, shared)
        made[rows, sample] = (place, manifest.fingerprint)
    return made


def _make_pool(study: Study, folder: Path, manifest: DatasetManifest, rows: int) -> Origin:
    """A dataset of freshly simulated clusters from which all further samples are taken."""
    if study.simulate is None or study.dataset.inputs:
        msg = (
            "scaling.samples_from: simulation needs a simulated study, with a section simulate and "
            "no dataset.inputs; take samples_from: training"
        )
        raise UserError(msg)
    if study.tag is not None:
        msg = "scaling.samples_from: simulation knows no tag; take samples_from: training"
        raise UserError(msg)
    first, last = manifest.cut_flow[0], manifest.cut_flow[-1]
    kept = last.after / first.before * POOL_SPLIT.train
    simulated = study.simulate.model_copy(update={"num_clusters": int(rows * SPARE / kept) + 1})
    pool = study.model_copy(
        update={
            "output": str(folder / "fresh"),
            "seed": derive_seed(study.seed, "fresh samples"),
            "simulate": simulated,
            "dataset": study.dataset.model_copy(update={"split": POOL_SPLIT}),
        }
    )
    simulate.main(pool, Run())
    ingest.main(pool, Run())
    place = dataset_folder(pool)
    return Origin(place, read_manifest(place), pool.dataset, study.seed)
