"""Where tags and the dataset without tagged rows are, and whether they are the study's."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.study import Study
from pipeline.formats.calibrated_set import TagManifest
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import MANIFEST, DatasetManifest, read_manifest
from pipeline.formats.versions import fingerprint
from pipeline.tagging.selection import untagged_fingerprint

VERSION = 1  # raised when the same settings and data give other tags


def tags_folder(study: Study) -> Path:
    """The folder that holds the scores and decisions of the tagger for each cluster."""
    return study.folder / "tags"


def untagged_folder(study: Study) -> Path:
    """Where the dataset without tagged rows is."""
    return study.folder / "untagged"


def tags_fingerprint(study: Study, manifest: DatasetManifest) -> str:
    """The fingerprint of the study's tags, with the regression whose failures are labelled."""
    first_pass = study.first_pass
    return fingerprint(
        stage="tag",
        version=VERSION,
        settings=study.tag,
        seed=study.seed,
        first_pass=None if first_pass is None else study.models[first_pass],
        # what the first pass predicts, where it is a density
        functionals=study.calibrate.model_dump(mode="json", include={"central", "sigma", "margin"}),
        dataset=manifest.fingerprint,
    )


def open_tags(study: Study, manifest: DatasetManifest) -> TagManifest:
    """The manifest of the study's tags.

    Args:
        study: With a section tag.
        manifest: Of the ingested dataset.

    Raises:
        UserError: They are missing, or of other settings or another dataset.
    """
    folder = tags_folder(study)
    tags = TagManifest.load(folder / MANIFEST, made_by="tag")
    if tags.fingerprint != tags_fingerprint(study, manifest):
        msg = f"{folder}: made with other settings or another dataset; run `topocal tag` again"
        raise UserError(msg)
    return tags


def tag_tables(study: Study, manifest: DatasetManifest) -> dict[str, pa.Table]:
    """By name: the tables of the study's tagger for the report; none if it has no tagger.

    Raises:
        UserError: The tags are missing, or of other settings or another dataset.
    """
    if study.tag is None:
        return {}
    tags, folder = open_tags(study, manifest), tags_folder(study)
    found = {f"tag_{name}": pq.read_table(folder / f"{name}.parquet") for name in tags.tables}
    rows = [
        {"figure": name, "value": value, "rule": tags.rule, "threshold": tags.threshold}
        for name, value in tags.figures.items()
    ]
    return {"tag": pa.Table.from_pylist(rows), **found}


def open_untagged(study: Study, manifest: DatasetManifest) -> DatasetManifest:
    """The manifest of the dataset without tagged rows.

    Raises:
        UserError: It is missing, or of other tags.
    """
    tags, folder = open_tags(study, manifest), untagged_folder(study)
    if not (folder / MANIFEST).exists():
        msg = f"{folder}: not found; it is written by `topocal tag`, run that first"
        raise UserError(msg)
    untagged = read_manifest(folder)
    if untagged.fingerprint != untagged_fingerprint(manifest, tags):
        msg = f"{folder}: made with other tags; run `topocal tag` again"
        raise UserError(msg)
    return untagged
