"""The manifest that makes a dataset exist, and the reading of its parts."""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from pipeline.formats.columns import Column, Cut, Feature, Target, tables_of
from pipeline.formats.errors import UserError
from pipeline.formats.files import sha256_of
from pipeline.formats.ragged import column_of
from pipeline.formats.records import OutputRecord, Record
from pipeline.formats.transforms import ColumnStatistics

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
        fingerprint: Of that identity, the file's end and the tree's own record, in which the
            place of every basket is written.
        entries: Entries of the tree.
        rows: Clusters in them.
        simulation: The generator's settings and this file's seed, for a simulated file.
    """

    path: str
    size: int | None
    uuid: str
    fingerprint: str
    entries: int
    rows: int
    simulation: dict[str, Any] | None = None


class MissingRows(Record):
    """What `dataset.on_error: skip` left out; ingest, run again, fetches it.

    Attributes:
        path: The ROOT file.
        start: First cluster of the file that is missing; None: the file was not opened at all.
        stop: The cluster after the last one.
        reason: Why.
    """

    path: str
    start: int | None = None
    stop: int | None = None
    reason: str


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
        target: The only target, or the one that this manifest is a view for; None where the inputs
            have no truth, or have several targets.
        targets: The targets where there are several.
        columns: All columns of the parts.
        inputs: The ROOT files.
        missing: What could not be read and was skipped; empty for a complete dataset.
        cut_flow: Steps in order; the first `before` counts all entries.
        floors: Rows raised to a floor, by column.
        cuts: The cuts, in order; those on columns that are not known for data cut an exact density
            as well.
        split: Fractions and seed of the split.
        parts: The Parquet files; readers trust only these.
        statistics: By column, of the training split.
        versions: Software that wrote the dataset.
    """

    format_version: Literal[2] = 2
    settings_fingerprint: str
    features: tuple[Feature, ...]
    target: Target | None
    # not written where there are none: a dataset with one target reads as it always did
    targets: tuple[Target, ...] = Field(default=(), exclude_if=lambda targets: not targets)
    columns: tuple[Column, ...]
    inputs: tuple[InputFile, ...]
    missing: tuple[MissingRows, ...] = ()
    cut_flow: tuple[CutCount, ...]
    floors: tuple[FloorCount, ...]
    cuts: tuple[Cut, ...] = ()
    split: dict[str, Any]
    parts: tuple[Part, ...]
    statistics: dict[str, ColumnStatistics]
    versions: dict[str, str]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {part.path: part.size for part in self.parts}

    @property
    def truth_cuts(self) -> tuple[Cut, ...]:
        """The cuts on columns that are no features, so that an exact density must be cut too."""
        features = {feature.name for feature in self.features}
        return tuple(cut for cut in self.cuts if cut.column not in features)

    def parts_of(self, split: Split) -> tuple[Part, ...]:
        """The parts of one split, in order."""
        return tuple(part for part in self.parts if part.split == split)

    def rows_of(self, split: Split) -> int:
        """The number of rows of one split."""
        return sum(part.rows for part in self.parts_of(split))

    @property
    def every_target(self) -> tuple[Target, ...]:
        """All targets of the dataset; none without truth."""
        return self.targets or (() if self.target is None else (self.target,))

    def select_targets(self, names: Sequence[str] | None) -> tuple[Target, ...]:
        """The targets with these names, in the order of the names; the only one if None.

        Raises:
            UserError: The dataset has no truth, or not these targets, or several and none is named.
        """
        if names is None:
            return (self.require_target(),)
        known = {target.name: target for target in self.every_target}
        unknown = [name for name in names if name not in known]
        if unknown:
            msg = (
                f"targets: {', '.join(unknown)} not in the dataset, which has "
                f"{', '.join(known) or 'none'}"
            )
            raise UserError(msg)
        return tuple(known[name] for name in names)

    def for_target(self, target: Target) -> "DatasetManifest":
        """The same dataset as one with this target alone sees it."""
        return self.model_copy(update={"target": target})

    def require_target(self) -> Target:
        """The target.

        Raises:
            UserError: The dataset has none, or several.
        """
        if self.target is None and self.targets:
            names = ", ".join(target.name for target in self.targets)
            msg = (
                f"the dataset has the targets {names}, and one is needed here; a model names what "
                "it predicts with the key targets"
            )
            raise UserError(msg)
        if self.target is None:
            msg = (
                "this dataset has no truth (dataset.target is null): it can be calibrated with a "
                "finished model, not trained on or evaluated; ingest a sample with truth for that"
            )
            raise UserError(msg)
        return self.target

    def require_log_ratio(self, kind: str) -> Target:
        """The target, which a kind of model knows only as log10 of a ratio.

        Raises:
            UserError: It is another, or there is none.
        """
        target = self.require_target()
        if not target.is_log_ratio:
            msg = (
                f"kind {kind} predicts log10 of a ratio, and {target.name} has transform "
                f"{target.transform} and inverse {target.inverse}; use a kind with a density"
            )
            raise UserError(msg)
        return target

    def target_range(self) -> tuple[float, float]:
        """Smallest and largest transformed target among the training rows.

        Raises:
            UserError: The dataset has no target, or no usable range of it.
        """
        target = self.require_target()
        statistics = self.statistics.get(target.name)
        if statistics is None or (target.transform == "log10" and statistics.minimum <= 0):
            found = "no statistics" if statistics is None else f"values from {statistics.minimum:g}"
            msg = (
                f"the dataset has {found} of its target {target.name}, expected positive "
                "training rows; run `topocal ingest` again with a cut that keeps these only"
            )
            raise UserError(msg)
        if target.transform == "identity":
            return statistics.minimum, statistics.maximum
        return math.log10(statistics.minimum), math.log10(statistics.maximum)


def read_manifest(folder: Path) -> DatasetManifest:
    """The manifest of the dataset in a folder."""
    return DatasetManifest.load(folder / MANIFEST, made_by="ingest")


def select_features(
    manifest: DatasetManifest, names: Sequence[str] | None, tables: Sequence[str] = ()
) -> tuple[Feature, ...]:
    """The inputs of a model, in the dataset's order: features with one number a row, then lists.

    Args:
        manifest: Of the dataset.
        names: Of the features that are one number a row; all of these if None.
        tables: Of lists, all of whose columns are inputs.

    Raises:
        UserError: A name is no such feature of the dataset, or a table is not there.
    """
    single = [feature for feature in manifest.features if not feature.is_ragged]
    known = [feature.name for feature in single]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        msg = f"features: {', '.join(unknown)} not in the dataset, which has {', '.join(known)}"
        raise UserError(msg)
    lists = tables_of(manifest.features)
    absent = [table for table in tables if table not in lists]
    if absent:
        there = ", ".join(lists) or "none"
        msg = f"encoder: the dataset has no table {', '.join(absent)} of lists; it has {there}"
        raise UserError(msg)
    chosen = [feature for feature in single if names is None or feature.name in names]
    return (*chosen, *(feature for table in tables for feature in lists[table]))


def check_part(folder: Path, part: Part) -> None:
    """Compare a part with the manifest, without holding it in memory.

    Raises:
        UserError: The file is missing or is not the one that the manifest lists.
    """
    path = folder / part.path
    try:
        size, sha256 = path.stat().st_size, sha256_of(path)
    except FileNotFoundError:
        raise UserError(_missing(path)) from None
    _compare(path, part, size, sha256)


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
        raise UserError(_missing(path)) from None
    _compare(path, part, len(content), hashlib.sha256(content).hexdigest())
    wanted = None if columns is None else list(columns)
    # Workers are processes, one a core: more threads of each would only get in each other's way.
    return pq.read_table(io.BytesIO(content), columns=wanted, use_threads=False)


def columns_of(table: pa.Table | pa.RecordBatch) -> dict[str, NDArray[Any]]:
    """By name: the values [N] of each column, without a copy where Arrow allows it.

    A column of lists is a `Ragged`, which is indexed as an array is.
    """
    return {name: column_of(table[name]) for name in table.column_names}


def _missing(path: Path) -> str:
    return f"{path}: listed in the manifest but missing; make the output again with --redo"


def _compare(path: Path, part: Part, size: int, sha256: str) -> None:
    if size != part.size or sha256 != part.sha256:
        msg = (
            f"{path}: {size} bytes that do not match the manifest's checksum "
            f"({part.size} bytes expected); make the output again with --redo"
        )
        raise UserError(msg)
