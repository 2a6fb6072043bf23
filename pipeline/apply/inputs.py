"""Inputs of `apply`: ROOT files of any layout and Parquet files, cut into chunks of rows."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.formats.columns import IDENTITY
from pipeline.formats.errors import UserError
from pipeline.formats.ragged import column_of
from pipeline.ingest.clean import identify
from pipeline.ingest.identity import Ids
from pipeline.numerics.arrays import Columns, IntArray
from pipeline.root.files import Access
from pipeline.root.inspect import MARK_ROWS, RootSource, Wanted, inspect_file, refuse_other_layout
from pipeline.root.layout import SHIPPED, Layout, read_layout
from pipeline.root.read import read_rows

log = logging.getLogger(__name__)

CHUNK_ROWS = 2 * MARK_ROWS
BUFFER_BYTES = 1 << 20  # of each column that is read from a Parquet file
PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Piece:
    """N rows: the wanted columns, `cluster_id` [N] and the input's entry [N] of each."""

    columns: Columns
    ids: Ids
    entry: IntArray


@dataclass(frozen=True, slots=True)
class RootInput:
    """Clusters of one tree of a ROOT file, and the layout that it follows."""

    source: RootSource
    layout: Layout

    @property
    def path(self) -> str:
        """The path or URL as the user has given it."""
        return self.source.file.path

    @property
    def rows(self) -> int:
        """Number of clusters in the tree."""
        return self.source.file.rows

    @property
    def entries(self) -> int | None:
        """Of the tree, if they are events; None if each is a cluster."""
        return self.source.file.entries if self.layout.rows == "vectors" else None

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges [first, last) of entries that are read at a time."""
        return [
            (first, min(first + CHUNK_ROWS, self.rows)) for first in range(0, self.rows, CHUNK_ROWS)
        ]

    def read(self, start: int, stop: int, access: Access) -> Iterator[Piece]:
        """The rows of a chunk.

        Raises:
            UserError: They cannot be read.
        """
        for rows in read_rows(self.source, self.layout, start, stop, access):
            everything = np.arange(len(rows))
            _, ids = identify(self.source, self.layout.rows == "vectors", rows, everything)
            yield Piece(rows.columns, ids, rows.entry)


@dataclass(frozen=True, slots=True)
class ParquetInput:
    """A Parquet file; a chunk is some row groups."""

    path: str
    rows: int
    groups: tuple[int, ...]
    columns: tuple[str, ...]

    @property
    def entries(self) -> None:
        """None: each row of a Parquet file is a cluster, so there are no counts by entry."""
        return

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of rows, at the edges of row groups."""
        edges = np.concatenate([[0], np.cumsum(self.groups)])
        chunks, first = [], 0
        for edge in edges[1:]:
            if edge - first >= CHUNK_ROWS or edge == self.rows:
                chunks.append((first, int(edge)))
                first = int(edge)
        return [chunk for chunk in chunks if chunk[1] > chunk[0]]

    def read(self, start: int, stop: int, access: Access) -> Iterator[Piece]:  # noqa: ARG002 - local files need no access
        """The rows of a chunk.

        Raises:
            UserError: They cannot be read.
        """
        edges = np.concatenate([[0], np.cumsum(self.groups)])
        groups = np.flatnonzero((edges[:-1] >= start) & (edges[1:] <= stop)).tolist()
        at = start
        try:
            # left alone, the columns of a whole row group are read at once
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
                for batch in file.iter_batches(MARK_ROWS, row_groups=groups, columns=self.columns):
                    columns = {name: column_of(batch[name]) for name in batch.schema.names}
                    entry = np.arange(at, at + batch.num_rows, dtype=np.int64)
                    at += batch.num_rows
                    ids = columns.pop(IDENTITY, entry.astype(np.uint64))
                    yield Piece(columns, ids, entry)
        except (pa.ArrowException, OSError) as error:
            msg = f"{self.path}: rows {start} to {stop} cannot be read ({error})"
            raise UserError(msg) from error


Input = RootInput | ParquetInput


def open_input(path: str, layout: Layout | None, wanted: Wanted, access: Access) -> Input:
    """What a file is and how its columns are read.

    Raises:
        UserError: It cannot be read or lacks columns; all that are missing are named.
    """
    if path.endswith(PARQUET_SUFFIXES):
        return _open_parquet(path, wanted)
    if layout is None:
        layout = read_layout(guess_layout(path, access))
    return RootInput(inspect_file(path, layout, wanted, access), layout)


def guess_layout(path: str, access: Access) -> str:
    """The shipped layout whose tree and required columns a file has; the first if several fit.

    Raises:
        UserError: None fits, or the file cannot be read.
    """
    names = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
    reasons, fitting = [], []
    for name in names:
        try:
            refuse_other_layout(path, read_layout(name), access)
        except UserError as error:
            reasons.append(str(error))
        else:
            fitting.append(name)
    if fitting:
        if len(fitting) > 1:
            told = "%s: fits the layouts %s; %s is taken, layout=NAME takes another"
            log.warning(told, path, ", ".join(fitting), fitting[0])
        return fitting[0]
    if len(set(reasons)) == 1:  # it lies with the file, whatever the layout
        raise UserError(reasons[0])
    trees = [reason for reason in reasons if "no tree named" not in reason]
    told = trees[0] if trees else reasons[0]
    msg = f"no shipped layout fits ({', '.join(names)}): {told}; give one with layout=FILE.yaml"
    raise UserError(msg)


def _open_parquet(path: str, wanted: Wanted) -> ParquetInput:
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            metadata = file.metadata
            groups = tuple(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
    except FileNotFoundError:
        msg = f"{path}: no such file; check the inputs"
        raise UserError(msg) from None
    except (pa.ArrowException, OSError) as error:
        msg = f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})"
        raise UserError(msg) from error
    missing = [name for name in wanted.needed if name not in names]
    if missing:
        msg = f"{path}: lacks {', '.join(missing)}; the model needs them, under these names"
        raise UserError(msg)
    columns = [*wanted.needed, *([IDENTITY] if IDENTITY in names else [])]
    return ParquetInput(path, sum(groups), groups, tuple(columns))
