"""Turn ROOT files into a partitioned Parquet dataset with streamed statistics.

Run: topocal ingest STUDY.yaml [dataset.inputs=[FILE,...]]
Reads the ROOT files named in the study; writes <output>/dataset/split=*/part-*.parquet and,
last, manifest.json. A run that was stopped, or that skipped something, goes on where it was.
"""

import functools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from distributed import Client

from jobs.farm.dask import open_access, open_farm, worker_peak_mib
from jobs.launch import Run, run_job
from jobs.simulate import simulated_inputs
from jobs.study import Study
from jobs.tags import open_untagged, untagged_folder
from pipeline.fold import map_parts
from pipeline.formats.errors import UserError
from pipeline.formats.lock import holding
from pipeline.formats.manifest import (
    MANIFEST,
    DatasetManifest,
    InputFile,
    MissingRows,
    read_manifest,
)
from pipeline.formats.versions import versions_of
from pipeline.ingest.clean import refuse_unknown_events
from pipeline.ingest.dataset import build_manifest, dataset_fingerprint
from pipeline.ingest.plan import kept_columns, plan_parts, settings_fingerprint, wanted_columns
from pipeline.ingest.resume import Staging, find_earlier, open_staging, receipt_path
from pipeline.ingest.write import write_parts
from pipeline.root.files import Access
from pipeline.root.inspect import RootSource, Wanted, inspect_file, list_inputs
from pipeline.settings import DatasetSettings

log = logging.getLogger(__name__)


def ingested_folder(study: Study) -> Path:
    """Where the dataset of all clusters is."""
    return study.folder / "dataset"


def dataset_folder(study: Study) -> Path:
    """Where the dataset that models are trained and judged on is."""
    return untagged_folder(study) if study.dataset.drop_tagged else ingested_folder(study)


def main(study: Study, run: Run) -> None:
    """Make the dataset that the study's section `dataset` describes."""
    folder, settings = ingested_folder(study), study.dataset
    paths = list_inputs(settings.inputs or simulated_inputs(study), study.dask.remote)
    _refuse_inputs_inside(folder, paths)
    # The farm ends before the lock is given up: nobody else writes beside workers of a failed run.
    with holding(folder) as held, open_farm(study.dask) as client:
        access = open_access(client, study.dask, paths)
        sources, unopened = _inspect(client, settings, paths, access)
        wanted = dataset_fingerprint(settings, [source.file for source in sources], unopened)
        if run.keeps("ingest", folder / MANIFEST, DatasetManifest, wanted):
            _warn_of_missing(read_manifest(folder))
            return
        stage = open_staging(
            folder, held, settings=settings_fingerprint(settings), plan=wanted, fresh=run.redo
        )
        manifest = _write(client, settings, sources, unopened, (stage, access))
        run.counts["worker_peak_mib"] = worker_peak_mib(client)
    _conclude(run, manifest)


def open_dataset(study: Study) -> DatasetManifest:
    """The manifest of the dataset that models are trained and judged on.

    Raises:
        UserError: There is none, or it was made with other settings than the study's.
    """
    manifest = open_ingested(study)
    return open_untagged(study, manifest) if study.dataset.drop_tagged else manifest


def open_ingested(study: Study) -> DatasetManifest:
    """The manifest of the dataset of all clusters.

    Raises:
        UserError: There is none, or it was made with other settings than the study's.
    """
    folder = ingested_folder(study)
    manifest = read_manifest(folder)
    if manifest.settings_fingerprint != settings_fingerprint(study.dataset):
        msg = f"{folder}: made with other settings of dataset; run `topocal ingest` again"
        raise UserError(msg)
    return manifest


def _refuse_inputs_inside(folder: Path, paths: Sequence[str]) -> None:
    inside = [path for path in paths if Path(path).absolute().is_relative_to(folder)]
    if inside:
        msg = f"{inside[0]}: lies in {folder}, which is about to be written; choose another output"
        raise UserError(msg)


def _inspect(
    client: Client, settings: DatasetSettings, paths: Sequence[str], access: Access
) -> tuple[list[RootSource], list[MissingRows]]:
    """The files and how to read them; those that cannot be opened and may be skipped."""
    look = functools.partial(
        _look, settings=settings, wanted=wanted_columns(settings), access=access
    )
    results = map_parts(client, look, paths, label="inspect", unit="files")
    sources = [result for result in results if isinstance(result, RootSource)]
    unopened = [result for result in results if isinstance(result, MissingRows)]
    by_uuid: dict[str, str] = {}
    for source in sources:
        if source.file.uuid in by_uuid:
            msg = f"{source.file.path}: the same file as {by_uuid[source.file.uuid]}; name it once"
            raise UserError(msg)
        by_uuid[source.file.uuid] = source.file.path
    if not sources:
        msg = f"none of the {len(paths)} inputs can be read; the first: {unopened[0].reason}"
        raise UserError(msg)
    return sources, unopened


def _look(
    path: str, *, settings: DatasetSettings, wanted: Wanted, access: Access
) -> RootSource | MissingRows:
    try:
        source = inspect_file(path, settings.layout, wanted, access)
        if settings.split.unit == "event":
            refuse_unknown_events(source, is_vectors=settings.layout.rows == "vectors")
    except UserError as error:
        if settings.on_error == "fail":
            raise
        return MissingRows(path=path, reason=str(error))
    return source


def _write(
    client: Client,
    settings: DatasetSettings,
    sources: Sequence[RootSource],
    unopened: Sequence[MissingRows],
    place: tuple[Staging, Access],
) -> DatasetManifest:
    stage, access = place
    names = tuple(column.name for column in kept_columns(settings, sources))
    earlier = find_earlier(stage.earlier, names)
    plans = plan_parts(settings, sources, folder=stage.folder, access=access, earlier=earlier)
    if any(plan.earlier for plan in plans):
        total = sum(len(plan.blocks) for plan in plans)
        known = sum(len(plan.earlier) for plan in plans)
        log.info("ingest: %d of %d blocks are there from an earlier run", known, total)
    receipts = map_parts(
        client,
        write_parts,
        plans,
        label="ingest",
        sizes=[plan.rows for plan in plans],
        unit="clusters",
    )
    files: list[InputFile] = [source.file for source in sources]
    versions = versions_of("uproot", "pyarrow")
    manifest = build_manifest(plans, receipts, files=files, unopened=unopened, versions=versions)
    kept = [receipt_path(Path(), receipt.index) for receipt in receipts]
    stage.commit(manifest, [str(path) for path in kept])
    return manifest


def _conclude(run: Run, manifest: DatasetManifest) -> None:
    run.counts["cut_flow"] = [step.model_dump() for step in manifest.cut_flow]
    run.counts["rows"] = {
        split: manifest.rows_of(split) for split in ("train", "validation", "test")
    }
    log.info(
        "ingest: %d clusters, %d kept: %s",
        manifest.cut_flow[0].before,
        manifest.cut_flow[-1].after,
        ", ".join(f"{rows} {split}" for split, rows in run.counts["rows"].items()),
    )
    _warn_of_missing(manifest)


def _warn_of_missing(manifest: DatasetManifest) -> None:
    for gap in manifest.missing[:5]:
        log.warning("ingest: skipped: %s", gap.reason)
    if manifest.missing:
        log.warning(
            "ingest: %d pieces are missing and listed in the manifest; run again to fetch them",
            len(manifest.missing),
        )


if __name__ == "__main__":
    sys.exit(run_job("ingest", main, sys.argv[1:]))
