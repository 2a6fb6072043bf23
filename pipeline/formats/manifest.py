"""The manifest that makes a dataset exist, and the reading of its parts."""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.formats.columns import Column, Feature, Target
from pipeline.formats.errors import UserError
from pipeline.formats.records import OutputRecord, Record
from pipeline.formats.scaling import ColumnStatistics

MANIFEST = "manifest.json"
Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Part(Record):
    """One Parquet file.

    Attributes:
        path: Relative to the folder of the manifest.
        split: The split that its rows belong to.
        index: Number of the part among all parts that ingest planned; the same for the
            train, validation and test part that come from the same clusters.
        rows: Number of rows.
        size: Bytes of the file.
        sha256: Checksum of the file.
    """

    path: str
    split: Split
    index: int
    rows: int
    size: int
    sha256: str


class InputFile(Record):
    """One ROOT file that went into a dataset.

    Attributes:
        path: As it was opened.
        size: Bytes; None where the server does not tell.
        uuid: The ROOT file's own identity.
        entries: Entries of the tree.
        simulation: The generator's settings and this file's seed, for a simulated file.
    """

    path: str
    size: int | None
    uuid: str
    entries: int
    simulation: dict[str, Any] | None = None


class CutCount(Record):
    """One step of the cut flow: rows before and after."""

    rule: str
    before: int
    after: int


class FloorCount(Record):
    """Rows of a column that were raised to a floor."""

    column: str
    floor: float
    rows: int


class DatasetManifest(OutputRecord):
    """All that a reader of a dataset may rely on; it is written last.

    Attributes:
        format_version: Raised when this record changes.
        fingerprint: Of the settings and inputs that the dataset follows from.
        settings_fingerprint: Of the settings alone.
        features: The networks' inputs, in order.
        target: The networks' target; None where the inputs have no truth.
        columns: All columns of the parts.
        inputs: The ROOT files.
        cut_flow: Steps in order; the first `before` counts all entries.
        floors: Rows raised to a floor, by column.
        truth_cuts: (column, lower, upper) of cuts on columns that are not known for data; an
            exact density must be cut the same way.
        split: Fractions and seed of the split.
        parts: The Parquet files; readers trust only these.
        statistics: By column, of the training split.
        versions: Software that wrote the dataset.
    """

    format_version: Literal[1] = 1
    settings_fingerprint: str
    features: tuple[Feature, ...]
    target: Target | None
    columns: tuple[Column, ...]
    inputs: tuple[InputFile, ...]
    cut_flow: tuple[CutCount, ...]
    floors: tuple[FloorCount, ...]
    truth_cuts: tuple[tuple[str, float | None, float | None], ...]
    split: dict[str, Any]
    parts: tuple[Part, ...]
    statistics: dict[str, ColumnStatistics]
    versions: dict[str, str]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {part.path: part.size for part in self.parts}

    def parts_of(self, split: Split) -> tuple[Part, ...]:
        """The parts of one split, in order."""
        return tuple(part for part in self.parts if part.split == split)

    def rows_of(self, split: Split) -> int:
        """The number of rows of one split."""
        return sum(part.rows for part in self.parts_of(split))

    def log10_target_range(self) -> tuple[float, float]:
        """Smallest and largest log10 of the target among the training rows.

        Raises:
            UserError: The dataset has no target.
        """
        if self.target is None:
            msg = (
                "this dataset has no truth (its inputs lack the denominator of the response): "
                "it can be calibrated, not trained on; ingest a simulated sample with truth"
            )
            raise UserError(msg)
        statistics = self.statistics[self.target.name]
        return math.log10(statistics.minimum), math.log10(statistics.maximum)


def read_manifest(folder: Path) -> DatasetManifest:
    """The manifest of the dataset in a folder."""
    return DatasetManifest.load(folder / MANIFEST, made_by="ingest")


def read_part(folder: Path, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one part, after a check of its size and checksum.

    Args:
        folder: The folder of the manifest that lists the part.
        part: The part.
        columns: The columns wanted; all if None.

    Raises:
        UserError: The file is missing or is not the one that the manifest lists.
    """
    path = folder / part.path
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        msg = f"{path}: listed in the manifest but missing; make the output again with --redo"
        raise UserError(msg) from None
    if len(content) != part.size or hashlib.sha256(content).hexdigest() != part.sha256:
        msg = (
            f"{path}: {len(content)} bytes that do not match the manifest's checksum "
            f"({part.size} bytes expected); make the output again with --redo"
        )
        raise UserError(msg)
    wanted = None if columns is None else list(columns)
    # Workers are processes, one a core: more threads of each would only get in each other's way.
    return pq.read_table(io.BytesIO(content), columns=wanted, use_threads=False)
