"""Turn ROOT files into a partitioned Parquet dataset with streamed statistics.

Run: topocal ingest STUDY.yaml [dataset.inputs=[FILE,...]]
Reads the ROOT files named in the study; writes <output>/dataset/split=*/part-*.parquet and,
last, manifest.json.
"""

import functools
import logging
import operator
import sys
from collections.abc import Sequence
from pathlib import Path

from distributed import Client

from jobs.farm import open_farm
from jobs.launch import Run, run_job
from jobs.simulate import simulated_inputs
from jobs.study import Study
from pipeline.dataset import build_manifest, settings_fingerprint
from pipeline.fold import map_parts, merge_in_order
from pipeline.formats.errors import UserError
from pipeline.formats.files import replacing_folder
from pipeline.formats.fingerprint import fingerprint
from pipeline.formats.manifest import MANIFEST, DatasetManifest, InputFile, read_manifest
from pipeline.formats.versions import versions_of
from pipeline.ingest import (
    PartPlan,
    WrittenParts,
    plan_parts,
    required_branches,
    write_parts,
)
from pipeline.read import inspect_file, list_inputs

log = logging.getLogger(__name__)

VERSION = 1  # raised when the same inputs give another dataset


def dataset_folder(study: Study) -> Path:
    """Where the dataset of a study is."""
    return study.folder / "dataset"


def main(study: Study, run: Run) -> None:
    """Make the dataset that the study's section `dataset` describes."""
    folder = dataset_folder(study)
    paths = list_inputs(study.dataset.inputs or simulated_inputs(study))
    with open_farm(study.dask) as client:
        files, branches = _inspect(client, study, paths)
        wanted = _fingerprint(study, files)
        if run.keeps("ingest", folder / MANIFEST, DatasetManifest, wanted):
            return
        _refuse_inputs_inside(folder, paths)
        with replacing_folder(folder) as new:
            plans = plan_parts(
                study.dataset, files, branches, folder=new, step=study.dask.read_entries
            )
            written = map_parts(client, write_parts, plans, label="ingest")
            manifest = _merge(plans, written, wanted)
            manifest.save(new / MANIFEST)
    run.counts["cut_flow"] = [step.model_dump() for step in manifest.cut_flow]
    run.counts["rows"] = {
        split: manifest.rows_of(split) for split in ("train", "validation", "test")
    }
    log.info(
        "ingest: %d entries, %d kept: %s",
        manifest.cut_flow[0].before,
        manifest.cut_flow[-1].after,
        ", ".join(f"{rows} {split}" for split, rows in run.counts["rows"].items()),
    )


def open_dataset(study: Study) -> DatasetManifest:
    """The manifest of the study's dataset.

    Raises:
        UserError: There is none, or it was made with other settings than the study's.
    """
    folder = dataset_folder(study)
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
    client: Client, study: Study, paths: Sequence[str]
) -> tuple[tuple[InputFile, ...], set[str]]:
    """What the files are, and the branches that all of them have."""
    inspect = functools.partial(
        inspect_file, tree=study.dataset.tree, required=required_branches(study.dataset)
    )
    results = map_parts(client, inspect, paths, label="inspect")
    by_uuid: dict[str, str] = {}
    for file, _ in results:
        if file.uuid in by_uuid:
            msg = f"{file.path}: the same file as {by_uuid[file.uuid]}; name each file once"
            raise UserError(msg)
        by_uuid[file.uuid] = file.path
    return tuple(file for file, _ in results), set.intersection(*[names for _, names in results])


def _fingerprint(study: Study, files: Sequence[InputFile]) -> str:
    # The paths stay out: a file that was moved is the same file.
    settings = study.dataset.model_dump(mode="json", exclude={"inputs"})
    inputs = [file.model_dump(mode="json", exclude={"path"}) for file in files]
    return fingerprint(stage="ingest", version=VERSION, settings=settings, inputs=inputs)


def _merge(
    plans: Sequence[PartPlan], written: Sequence[WrittenParts], wanted: str
) -> DatasetManifest:
    total = merge_in_order([s for parts in written for s in parts.summaries], operator.add)
    parts = [part for result in written for part in result.parts]
    return build_manifest(
        plans[0], total, parts, fingerprint=wanted, versions=versions_of("uproot", "pyarrow")
    )


if __name__ == "__main__":
    sys.exit(run_job("ingest", main, sys.argv[1:]))
