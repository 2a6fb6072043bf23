"""The work of `apply` on a farm: chunks are calibrated one by one, then joined file by file.

The manifest lists what was written and makes the output exist.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.apply.friend import write_friend
from pipeline.apply.inputs import Input, ParquetInput
from pipeline.apply.rows import Calibration, Reason, apply_to_rows, empty_columns
from pipeline.formats.calibrated_set import CalibratedColumn
from pipeline.formats.columns import IDENTITY
from pipeline.formats.files import replacing
from pipeline.formats.records import OutputRecord, Record
from pipeline.numerics.arrays import Columns, IntArray
from pipeline.root.files import Access


class AppliedFile(Record):
    """One input and what became of it.

    Attributes:
        input: The input, as it was named.
        entries: Of the input.
        rows: Clusters; each is in the output.
        outputs: Files of the output and their sizes in bytes.
        reasons: Rows by reason; "calibrated" those that are.
        outside: Of these, rows with a feature outside its training range.
    """

    input: str
    entries: int
    rows: int
    outputs: dict[str, int]
    reasons: dict[str, int]
    outside: int = 0


class AppliedManifest(OutputRecord):
    """All that a reader may rely on; it is written last.

    Attributes:
        fingerprint: Of the model and the settings.
        model: Folder of the model.
        kind: Of the model.
        columns: Of the output.
        reasons: The codes of the column `reason`.
        bits: The features in the order of the bits of `outside`.
        inputs: In order.
        versions: Software.
        citation: How to cite the model.
    """

    model: str
    kind: str
    columns: tuple[CalibratedColumn, ...]
    reasons: dict[str, int]
    bits: tuple[str, ...]
    inputs: tuple[AppliedFile, ...]
    versions: dict[str, str]
    citation: str

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {path: size for item in self.inputs for path, size in item.outputs.items()}


ENTRY = "entry"
PARTS = "parts"
OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """All that a worker needs to calibrate one chunk of one input.

    Attributes:
        calibration: The model.
        source: The input.
        start: First row.
        stop: The row after the last one.
        columns: Of the output.
        path: Parquet file to write.
        is_joined: Whether it becomes part of a friend tree, for which entries are needed.
        access: How the input is read.
    """

    calibration: Calibration
    source: Input
    start: int
    stop: int
    columns: tuple[str, ...]
    path: Path
    is_joined: bool
    access: Access


@dataclass(frozen=True, slots=True)
class InputPlan:
    """One input: its chunks, and where the output goes.

    Attributes:
        source: The input.
        chunks: In order.
        columns: Of the output.
        path: A friend tree's file, or a folder of Parquet parts.
        calibration: The model.
    """

    source: Input
    chunks: tuple[ChunkPlan, ...]
    columns: tuple[str, ...]
    path: Path
    calibration: Calibration

    @property
    def is_joined(self) -> bool:
        """Whether the output is a friend tree."""
        return self.path.suffix == ".root"


def plan_input(  # noqa: PLR0913 - wiring
    source: Input,
    name: str,
    folder: Path,
    calibration: Calibration,
    columns: tuple[str, ...],
    access: Access,
    *,
    wanted: Literal["root", "parquet"],
) -> InputPlan:
    """What is done with one input; Parquet stays Parquet."""
    is_joined = wanted == "root" and not isinstance(source, ParquetInput)
    chunks = tuple(
        ChunkPlan(
            calibration=calibration,
            source=source,
            start=start,
            stop=stop,
            columns=columns,
            path=folder / PARTS / name / f"part-{number:05d}.parquet",
            is_joined=is_joined,
            access=access,
        )
        for number, (start, stop) in enumerate(source.chunks())
    )
    path = folder / (f"{name}.topocal.root" if is_joined else name)
    return InputPlan(source, chunks, columns, path, calibration)


def apply_chunk(plan: ChunkPlan) -> Mapping[str, int]:
    """Calibrate a chunk and write it as Parquet. Runs on a worker.

    Returns:
        Rows by reason, and those calibrated with a feature outside its training range.
    """
    counts, outside = np.zeros(len(Reason), np.int64), 0
    writer: pq.ParquetWriter | None = None
    with replacing(plan.path, flush=False) as temporary:
        try:
            for piece in plan.source.read(plan.start, plan.stop, plan.access):
                columns = apply_to_rows(plan.calibration, piece.columns)
                counts += np.bincount(columns["reason"], minlength=len(Reason))
                is_calibrated = columns["reason"] == Reason.CALIBRATED
                outside += int(np.count_nonzero(columns["outside"][is_calibrated]))
                kept = {name: columns[name] for name in plan.columns}
                extra = {ENTRY: piece.entry} if plan.is_joined else {}
                table = pa.table({IDENTITY: piece.ids, **extra, **kept})
                writer = writer or _writer(temporary, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
    return {reason.name.lower(): int(counts[reason]) for reason in Reason} | {OUTSIDE: outside}


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    floating = [field.name for field in schema if pa.types.is_floating(field.type)]
    return pq.ParquetWriter(
        path, schema, compression="lz4", use_dictionary=False, use_byte_stream_split=floating
    )


def finish_input(plan: InputPlan) -> None:
    """Put one input's chunks together. Runs on a worker."""
    if plan.is_joined:
        empty = empty_columns(plan.calibration, plan.columns)
        write_friend(plan.path, _pieces(plan.chunks, plan.columns), plan.source.entries, empty)
        return
    plan.path.mkdir()
    for chunk in plan.chunks:
        shutil.move(chunk.path, plan.path / chunk.path.name)


def describe_input(
    plan: InputPlan, folder: Path, counts: Mapping[Path, Mapping[str, int]]
) -> AppliedFile:
    """What became of one input; counts are by the chunks' paths."""
    outputs = [plan.path] if plan.is_joined else sorted(plan.path.iterdir())
    names = [reason.name.lower() for reason in Reason]
    return AppliedFile(
        input=plan.source.path,
        entries=plan.source.entries or plan.source.rows,
        rows=plan.source.rows,
        outputs={str(path.relative_to(folder)): path.stat().st_size for path in outputs},
        reasons={name: sum(counts[chunk.path][name] for chunk in plan.chunks) for name in names},
        outside=sum(counts[chunk.path][OUTSIDE] for chunk in plan.chunks),
    )


def _pieces(
    chunks: Sequence[ChunkPlan], columns: Sequence[str]
) -> Iterator[tuple[Columns, IntArray]]:
    for chunk in chunks:
        with pq.ParquetFile(chunk.path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                yield {n: table[n].to_numpy() for n in columns}, table[ENTRY].to_numpy()
