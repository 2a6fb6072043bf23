"""The manifest of a calibrated set: one part for each part of a dataset's split, row by row."""

from pathlib import Path
from typing import Literal

from pipeline.formats.columns import Target
from pipeline.formats.manifest import MANIFEST, Part, Split
from pipeline.formats.records import Record


class CalibratedColumn(Record):
    """One column of a calibrated set."""

    name: str
    unit: str
    description: str


class CalibratedManifest(Record):
    """All that a reader of a calibrated set may rely on; it is written last.

    Attributes:
        fingerprint: Of everything that the set follows from.
        dataset_fingerprint: The dataset whose split was calibrated.
        name: Of the model; "oracle" for the exact density.
        kind: Of the model; "oracle" for the exact density.
        split: The calibrated split.
        target: What was predicted.
        central: The functional in the column of the target's name.
        sigma: How the linear sigmas were computed.
        search_range: log10 range in which modes were searched and moments integrated.
        columns: Columns besides `cluster_id`.
        parts: In the order of the dataset's parts of that split, with equal row counts.
        rows_at_bound: Rows whose mode met a bound of the search range, by mode.
        rows_out_of_domain: Rows with a feature outside the model's training range.
    """

    format_version: Literal[1] = 1
    fingerprint: str
    dataset_fingerprint: str
    name: str
    kind: str
    split: Split
    target: Target
    central: str
    sigma: str
    search_range: tuple[float, float]
    columns: tuple[CalibratedColumn, ...]
    parts: tuple[Part, ...]
    rows_at_bound: dict[str, int]
    rows_out_of_domain: int
    versions: dict[str, str]


def read_calibrated(folder: Path) -> CalibratedManifest:
    """The manifest of the calibrated set in a folder."""
    return CalibratedManifest.load(folder / MANIFEST, made_by="calibrate")
