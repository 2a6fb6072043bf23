"""Map the study's models, and what the dataset itself brings along, over a split.

Run: topocal calibrate STUDY.yaml
Reads <output>/dataset and <output>/models/NAME; writes <output>/calibrated/NAME, for a dataset
with LCW weights <output>/calibrated/lcw and for a simulated sample <output>/calibrated/oracle; of
several targets <output>/calibrated/TARGET/NAME. Needs neither torch nor Ray.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client

from jobs.farm.dask import open_farm
from jobs.ingest import dataset_folder, open_dataset
from jobs.launch import Run, run_job
from jobs.models import model_names, open_model
from jobs.study import Study
from jobs.targets import label_of, place_of, stage_of, views_of
from pipeline.calibrators.calibrate import CalibratedPart, CalibrationPlan, calibrate_part
from pipeline.calibrators.density import Summariser
from pipeline.calibrators.lookup_table import ReferenceScale
from pipeline.calibrators.protocol import Calibrator
from pipeline.calibrators.registry import bulk_artefact, open_calibrator
from pipeline.fold import map_parts
from pipeline.formats.calibrated_set import CalibratedManifest, describe_columns, read_calibrated
from pipeline.formats.card import ModelCard
from pipeline.formats.errors import UserError
from pipeline.formats.families import FAMILIES
from pipeline.formats.folders import replacing_folder
from pipeline.formats.manifest import MANIFEST, DatasetManifest
from pipeline.formats.versions import fingerprint, versions_of
from pipeline.numerics.compiled import tell_of_compiling
from pipeline.settings import SummarySettings
from pipeline.simulators.registry import oracle_of

log = logging.getLogger(__name__)

VERSION = 6  # raised when the same model and data give other columns
ORACLE = "oracle"
SCALE = "scale"


@dataclass(frozen=True, slots=True)
class CalibrationSource:
    """One thing to calibrate with: a model, a reference scale of the input, or the oracle."""

    name: str
    kind: str
    fingerprint: str
    calibrator: Calibrator


def calibrated_folder(study: Study, name: str, manifest: DatasetManifest) -> Path:
    """Where the calibrated set of a model is, for the target of a view of the dataset."""
    return place_of(study.folder / "calibrated", manifest) / name


def main(study: Study, run: Run) -> None:
    """Calibrate the study's split with every model and, where it exists, the exact density."""
    views = judged_views(study, open_dataset(study))
    if not views:
        msg = "nothing to calibrate with: name a finished model in calibrate.models"
        raise UserError(msg)
    pending = [each for manifest in views for each in _pending(study, run, manifest)]
    if not pending:
        return
    tell_of_compiling("calibrate", "densities")
    with open_farm(study.dask) as client:
        for manifest, source, wanted in pending:
            _calibrate(client, study, manifest, source, wanted)
            run.counts[stage_of(source.name, manifest)] = manifest.rows_of(study.calibrate.split)


def _pending(
    study: Study, run: Run, manifest: DatasetManifest
) -> Iterator[tuple[DatasetManifest, CalibrationSource, str]]:
    """What is to be calibrated with for a view, and the fingerprints that the sets will carry."""
    oracle = oracle_of(manifest)
    if isinstance(oracle, str):
        log.info("%s: no oracle for this dataset: %s", stage_of("calibrate", manifest), oracle)
    for source in find_sources(study, manifest):
        path = calibrated_folder(study, source.name, manifest) / MANIFEST
        wanted = _fingerprint(study, manifest, source)
        stage = f"{stage_of('calibrate', manifest)}/{source.name}"
        if not run.keeps(stage, path, CalibratedManifest, wanted):
            yield manifest, source, wanted


def judged_views(study: Study, manifest: DatasetManifest) -> list[DatasetManifest]:
    """The dataset as each target sees it that there is something to calibrate with."""
    return [view for view in views_of(manifest) if find_sources(study, view)]


def find_sources(study: Study, manifest: DatasetManifest) -> list[CalibrationSource]:
    """What a study calibrates with: models, scales of the input, the oracle if there is one.

    Raises:
        UserError: A model is not trained, or not with the study's settings on this dataset.
    """
    models = [model_source(study, name, manifest) for name in model_names(study, manifest)]
    scales = scale_sources(study.calibrate.scales, manifest)
    return [*models, *scales, *oracle_source(manifest, study.calibrate)]


def open_set(
    study: Study, manifest: DatasetManifest, source: CalibrationSource
) -> CalibratedManifest:
    """The manifest of the set that a source was mapped to.

    Raises:
        UserError: It is missing, or was made with another model, dataset or settings.
    """
    folder = calibrated_folder(study, source.name, manifest)
    calibrated = read_calibrated(folder)
    if calibrated.fingerprint != _fingerprint(study, manifest, source):
        msg = f"{folder}: made with another model, dataset or settings; "
        raise UserError(msg + "run `topocal calibrate` again")
    return calibrated


def model_source(study: Study, name: str, manifest: DatasetManifest) -> CalibrationSource:
    """A model of the study, ready for rows."""
    return card_source(name, *open_model(study, name, manifest), study.calibrate)


def card_source(
    name: str, folder: Path, card: ModelCard, settings: SummarySettings
) -> CalibrationSource:
    """A finished model, ready for rows."""
    # The file's checksum: a model that was trained again may differ under equal settings.
    identity = fingerprint(card=card.fingerprint, file=bulk_artefact(card).sha256)
    return CalibrationSource(name, card.kind, identity, open_calibrator(folder, card, settings))


def scale_sources(scales: Mapping[str, str], manifest: DatasetManifest) -> list[CalibrationSource]:
    """The references among the dataset's columns; those that it lacks are left out."""
    if manifest.target is None:
        return []
    known = {column.name for column in manifest.columns}
    return [
        CalibrationSource(
            name, SCALE, fingerprint(weight=weight), ReferenceScale(weight, manifest.target)
        )
        for name, weight in scales.items()
        if weight in known
    ]


def oracle_source(manifest: DatasetManifest, settings: SummarySettings) -> list[CalibrationSource]:
    """The exact density of a simulated sample; none where there is none."""
    density = oracle_of(manifest)
    if isinstance(density, str) or manifest.target is None:
        return []
    ranges = {
        name: (manifest.statistics[name].minimum, manifest.statistics[name].maximum)
        for name in density.inputs
        if name in manifest.statistics
    }
    low, high = manifest.target_range()
    reach = (low - settings.margin, high + settings.margin)
    summariser = Summariser(density, manifest.target, reach, ranges, settings)
    return [CalibrationSource(ORACLE, ORACLE, density.fingerprint, summariser)]


def _fingerprint(study: Study, manifest: DatasetManifest, source: CalibrationSource) -> str:
    return fingerprint(
        stage="calibrate",
        version=VERSION,
        settings=study.calibrate.model_dump(mode="json", exclude={"models", "scales"}),
        density=source.fingerprint,
        dataset=manifest.fingerprint,
        **({"target": label_of(manifest)} if label_of(manifest) else {}),
        **_family_of(source),
    )


def _family_of(source: CalibrationSource) -> dict[str, Any]:
    """What a set follows from of the family of its densities, if it has any."""
    calibrator = source.calibrator
    return (
        FAMILIES[calibrator.density.family].identity if isinstance(calibrator, Summariser) else {}
    )


def plan_parts(
    study: Study, manifest: DatasetManifest, source: CalibrationSource, *, folder: Path
) -> list[CalibrationPlan]:
    """What the workers need to calibrate each part of the study's split into a folder.

    Raises:
        UserError: There is nothing to calibrate.
    """
    dataset, split = dataset_folder(study), study.calibrate.split
    parts = manifest.parts_of(split)
    if not parts:
        msg = f"{dataset}: the {split} split has no rows to calibrate; give it a larger fraction"
        raise UserError(msg)
    share = min(study.calibrate.crps_rows / sum(part.rows for part in parts), 1.0)
    calibrator = source.calibrator.scoring_crps(share)
    return [
        CalibrationPlan(
            calibrator=calibrator,
            dataset=dataset,
            part=part,
            folder=folder,
            has_truth=manifest.target is not None,
        )
        for part in parts
    ]


def _calibrate(
    client: Client, study: Study, manifest: DatasetManifest, source: CalibrationSource, wanted: str
) -> None:
    with replacing_folder(calibrated_folder(study, source.name, manifest)) as new:
        plans = plan_parts(study, manifest, source, folder=new)
        done = map_parts(client, calibrate_part, plans, label=f"calibrate {source.name}")
        record = _describe(study, manifest, source, wanted, (plans[0], done))
        record.save(new / MANIFEST)
    rows = sum(part.rows for part in record.parts)
    log.info("%s: %s, %d rows", stage_of("calibrate", manifest), source.name, rows)


def _describe(
    study: Study,
    manifest: DatasetManifest,
    source: CalibrationSource,
    wanted: str,
    outcome: tuple[CalibrationPlan, list[CalibratedPart]],
) -> CalibratedManifest:
    plan, done = outcome
    calibrator = plan.calibrator
    scores = calibrator.scores if plan.has_truth else ()
    return CalibratedManifest(
        fingerprint=wanted,
        dataset_fingerprint=manifest.fingerprint,
        name=source.name,
        kind=source.kind,
        split=study.calibrate.split,
        target=calibrator.target,
        **calibrator.functionals._asdict(),
        columns=describe_columns(calibrator.target, {*calibrator.columns, *scores}),
        parts=tuple(result.part for result in done),
        rows_at_bound=_sum_at_bound(done),
        rows_out_of_domain=sum(result.rows_out_of_domain for result in done),
        versions=versions_of("onnxruntime", "numba", "pyarrow"),
    )


def _sum_at_bound(done: list[CalibratedPart]) -> dict[str, int]:
    names = done[0].rows_at_bound
    return {name: sum(result.rows_at_bound[name] for result in done) for name in names}


if __name__ == "__main__":
    sys.exit(run_job("calibrate", main, sys.argv[1:]))
