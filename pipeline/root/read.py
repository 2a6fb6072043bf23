"""Rows of ROOT files: ranges of clusters as flat columns."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from pipeline.formats.errors import UserError
from pipeline.formats.ragged import as_ragged, join
from pipeline.numerics.arrays import Columns, IntArray
from pipeline.root.expressions import arrays_of, as_lists, as_numbers, lengths
from pipeline.root.files import Access, fingerprint_of, open_tree, reading_errors
from pipeline.root.inspect import MARK_ROWS, RootSource
from pipeline.root.layout import Layout
from pipeline.root.remote import server_of


@dataclass(frozen=True, slots=True)
class RootBlock:
    """N clusters: their columns, and the entry and the place in the entry of each [N]."""

    columns: Columns
    entry: IntArray
    index: IntArray

    def __len__(self) -> int:
        return len(self.entry)

    def __getitem__(self, rows: slice) -> "RootBlock":
        columns = {name: values[rows] for name, values in self.columns.items()}
        return RootBlock(columns, self.entry[rows], self.index[rows])


def concatenate(pieces: Sequence[RootBlock]) -> RootBlock:
    """The blocks one after the other as one."""
    names = pieces[0].columns
    columns = {name: join([piece.columns[name] for piece in pieces]) for name in names}
    entry = np.concatenate([piece.entry for piece in pieces])
    return RootBlock(columns, entry, np.concatenate([piece.index for piece in pieces]))


def read_rows(
    source: RootSource, layout: Layout, start: int, stop: int, access: Access
) -> Iterator[RootBlock]:
    """The clusters [start, stop) of a file, in pieces of about `access.read_rows`.

    For vectors, `start` is a multiple of 65,536 and `stop` too or the end of the file.

    Raises:
        UserError: They cannot be read, or are no longer those that were inspected.
    """
    path = source.file.path
    low, high, skip = _entries_of(source, layout, start, stop)
    step = max(1, access.read_rows * (high - low) // max(1, stop - start))
    left = stop - start
    for first in range(low, high, step):
        last = min(first + step, high)
        read = partial(_read_entries, source, layout, access, first, last)
        with reading_errors(path, f"entries {first} to {last} cannot be read"):
            rows = access.read(path, read)[skip:]
        rows = rows[:left]
        skip = 0
        left -= len(rows)
        yield rows
    if left:
        msg = f"{path}: {left} of {stop - start} clusters are gone since the file was inspected"
        raise UserError(msg)


# The file that was read last stays open: the next part's clusters are most often in it, and
# opening a tree costs as much as reading 30,000 of its clusters.
_last = threading.local()


def _read_entries(
    source: RootSource, layout: Layout, access: Access, first: int, last: int
) -> RootBlock:
    """The clusters of entries [first, last)."""
    try:
        table = _open_table(source, layout, access)
        expressions = list(dict.fromkeys(source.expressions.values()))
        library = "np" if layout.rows == "entries" and not source.lists else "ak"
        arrays = arrays_of(table, expressions, (first, last), library)
    except Exception:
        close_last()
        raise
    return _flatten(source, layout, arrays, first, last)


def _open_table(source: RootSource, layout: Layout, access: Access) -> Any:  # noqa: ANN401 - uproot is untyped
    path = source.file.path
    key = (path, source.file.fingerprint, layout.tree, _stamp_of(path))
    if getattr(_last, "key", None) != key:
        close_last()
        with ExitStack() as stack:
            file, table = stack.enter_context(open_tree(path, layout.tree, access))
            if fingerprint_of(file, layout.tree) != source.file.fingerprint:
                msg = f"{path}: changed since it was inspected; run again"
                raise UserError(msg)
            _last.key, _last.table, _last.stack = key, table, stack.pop_all()
    return _last.table


def close_last() -> None:
    """Close the file that was kept open."""
    stack = getattr(_last, "stack", None)
    _last.key = _last.table = _last.stack = None
    if stack is not None:
        stack.close()


def _stamp_of(path: str) -> tuple[int, int, int] | None:
    """What changes when a local file is written again."""
    if server_of(path) is not None:
        return None
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _entries_of(source: RootSource, layout: Layout, start: int, stop: int) -> tuple[int, int, int]:
    """Entries [low, high) that hold the clusters [start, stop), and how many to leave out first."""
    if layout.rows == "entries":
        return start, stop, 0
    low, skip = source.marks[start // MARK_ROWS]
    if stop == source.file.rows:
        return low, source.file.entries, skip
    high, before = source.marks[stop // MARK_ROWS]
    return low, high + (before > 0), skip


def _flatten(source: RootSource, layout: Layout, arrays: Any, first: int, last: int) -> RootBlock:  # noqa: ANN401 - uproot is untyped
    entry = np.arange(first, last, dtype=np.int64)
    if layout.rows == "entries":
        columns = {n: _number(source, n, arrays[e]) for n, e in source.expressions.items()}
        return RootBlock(columns, entry, np.zeros(last - first, dtype=np.int64))
    counted = next(n for n in source.expressions if layout.level_of(n) == "cluster")
    counts = lengths(arrays[source.expressions[counted]], counted)
    columns = {}
    for name, expression in source.expressions.items():
        values = arrays[expression]
        if layout.level_of(name) == "event":
            columns[name] = np.repeat(_number(source, name, values), counts)
            continue
        if not np.array_equal(lengths(values, name), counts):
            msg = f"{source.file.path}: vectors of {name} and {counted} differ in length"
            raise UserError(msg)
        columns[name] = _number(source, name, ak.flatten(values, axis=1))
    starts = np.cumsum(counts) - counts
    index = np.arange(counts.sum(), dtype=np.int64) - np.repeat(starts, counts)
    return RootBlock(columns, np.repeat(entry, counts), index)


def _number(source: RootSource, name: str, values: Any) -> NDArray[Any]:  # noqa: ANN401 - awkward is untyped
    """The column's values in its unit, one number or, of a list, as many as it has, a cluster."""
    is_list, factor = name in source.lists, source.factors.get(name, 1.0)
    try:
        numbers = cast("NDArray[Any]", as_lists(values)) if is_list else as_numbers(values)
    except (ValueError, TypeError):
        what = "one list of numbers" if is_list else "one number"
        msg = (
            f"{source.file.path}: column {name} ({source.expressions[name]}) is not {what} "
            "a cluster; correct its expression or level in the layout"
        )
        raise UserError(msg) from None
    if (lists := as_ragged(numbers)) is not None:
        return numbers if factor == 1.0 else cast("NDArray[Any]", lists.times(factor))
    return numbers if factor == 1.0 else numbers * np.float64(factor)
