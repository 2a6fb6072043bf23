"""Columns whose rows are lists of any length: cells of a cluster, constituents of a jet.

Shape letters: N rows, E elements of all rows together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Lists of numbers, one after the other, as Arrow holds them; it is indexed as an array is.

    Attributes:
        values: [E], or any array with E in front; those of row i are
            values[offsets[i] : offsets[i + 1]].
        offsets: [N + 1], from 0, int64.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @classmethod
    def of_counts(cls, values: NDArray[Any], counts: ArrayLike) -> "Ragged":
        """From the number of elements [N] of each row."""
        ends = np.cumsum(np.asarray(counts, np.int64))
        return cls(values, np.concatenate([np.zeros(1, np.int64), ends]))

    @classmethod
    def of_arrow(cls, array: pa.Array | pa.ChunkedArray) -> "Ragged":
        """An Arrow array of lists, without a copy if it is one piece."""
        whole = array
        if isinstance(array, pa.ChunkedArray):
            whole = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
        offsets = np.asarray(whole.offsets).astype(np.int64)
        values = np.asarray(whole.values)[offsets[0] : offsets[-1]]
        return cls(values, offsets - offsets[0])

    def to_arrow(self) -> pa.ListArray:
        """The same as an Arrow array."""
        return pa.ListArray.from_arrays(
            pa.array(self.offsets.astype(np.int32)), pa.array(np.ascontiguousarray(self.values))
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice | NDArray[Any]) -> "Ragged":
        """Some rows: adjacent ones as views, others by number or by a mask as copies."""
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step == 1:
                offsets = self.offsets[first : max(last, first) + 1]
                return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
            rows = np.arange(first, last, step)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        counts = self.counts[rows]
        found = Ragged.of_counts(np.empty(0), counts)
        # Where each element comes from: the start of its row, and its place in it.
        shift = np.repeat(self.offsets[:-1][rows] - found.offsets[:-1], counts)
        return Ragged(self.values[np.arange(found.offsets[-1]) + shift], found.offsets)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of elements of each row [N]."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The number of each element's row [E]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def times(self, factor: float) -> "Ragged":
        """The lists with each number multiplied, of the same type."""
        return Ragged((self.values * factor).astype(self.values.dtype), self.offsets)

    def astype(self, dtype: Any, copy: bool = True) -> "Ragged":  # noqa: ANN401 - as NumPy has it
        """The same lists with numbers of another type."""
        return Ragged(self.values.astype(dtype, copy=copy), self.offsets)

    def rows_where_all(self, flags_E: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The rows [N] all of whose elements have a flag; a row without elements is one."""
        failed = np.concatenate([np.zeros(1, np.int64), np.cumsum(~flags_E)])
        return np.asarray(np.diff(failed[self.offsets]) == 0)


def as_ragged(values: NDArray[Any] | Ragged) -> Ragged | None:
    """The column if it is one of lists, else None."""
    return values if isinstance(values, Ragged) else None


def every_element(values: NDArray[Any], check: Any) -> NDArray[np.bool_]:  # noqa: ANN401 - of arrays to flags
    """The rows [N] of a column whose value, or each of whose elements, passes a check."""
    if (lists := as_ragged(values)) is not None:
        return lists.rows_where_all(check(lists.values))
    return np.asarray(check(values), bool)


def join(pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Columns one after the other as one."""
    lists = [found for piece in pieces if (found := as_ragged(piece)) is not None]
    return cast("NDArray[Any]", join_lists(lists)) if lists else np.concatenate(pieces)


def join_lists(pieces: Sequence[Ragged]) -> Ragged:
    """Lists of some rows after those of others."""
    counts = np.concatenate([each.counts for each in pieces])
    return Ragged.of_counts(np.concatenate([each.values for each in pieces]), counts)


def table_of(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Columns by name as an Arrow table."""
    arrays = {
        name: values if (lists := as_ragged(values)) is None else lists.to_arrow()
        for name, values in columns.items()
    }
    return pa.table(arrays)


def column_of(array: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A column of an Arrow table: an array, or `Ragged` of lists, without a copy if possible."""
    if pa.types.is_list(array.type):
        return cast("NDArray[Any]", Ragged.of_arrow(array))
    return cast("NDArray[Any]", array.to_numpy(zero_copy_only=False))
