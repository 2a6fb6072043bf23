"""Which bin of a table each row is in.

Shape letters: A axes, N rows, Q binned quantities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import kernel
from pipeline.lookup.settings import TableAxis

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]

UNKNOWN = -1  # the bin of a row that has no number on some axis

_Quantity = tuple[str, str | None, bool, str]


@dataclass(frozen=True, slots=True)
class Quantities:
    """The binned quantities of some rows, each computed once for all tables.

    Attributes:
        places: By quantity: its row of the values.
        values_QN: On the scale of the axis: logarithms where the bins are even in them.
    """

    places: Mapping[_Quantity, int]
    values_QN: Floats

    @classmethod
    def of(cls, columns: Columns, axes: Sequence[TableAxis]) -> "Quantities":
        """The quantities of N rows that some axes need."""
        places: dict[_Quantity, int] = {}
        for axis in axes:
            places.setdefault(_quantity(axis), len(places))
        num_rows = len(columns[axes[0].of])
        values_QN = np.empty((len(places), num_rows))
        for (name, over, absolute, scale), at in places.items():
            above = columns[name]
            below = above if over is None else columns[over]
            flags = (over is not None, absolute, scale == "log")
            _scaled(np.asarray(above), np.asarray(below), flags, values_QN[at])
        return cls(places, values_QN)

    def bins(self, axes: Sequence[TableAxis]) -> Indices:
        """The flat bin [N] of each row, the last axis running fastest; UNKNOWN where NaN."""
        places = np.array([self.places[_quantity(axis)] for axis in axes])
        starts = np.array([_on_scale(axis, axis.low) for axis in axes])
        ends = np.array([_on_scale(axis, axis.high) for axis in axes])
        cells = np.array([axis.bins for axis in axes])
        out = np.empty(self.values_QN.shape[1], np.int64)
        _flat_bins(self.values_QN, places, (starts, cells / (ends - starts), cells), out)
        return out


def num_bins(axes: Sequence[TableAxis]) -> int:
    """Bins of a table in all."""
    return int(np.prod([axis.bins for axis in axes]))


def edges_of(axis: TableAxis) -> Floats:
    """The edges [bins + 1] of an axis."""
    space = np.geomspace if axis.scale == "log" else np.linspace
    return np.asarray(space(axis.low, axis.high, axis.bins + 1), np.float64)


def _quantity(axis: TableAxis) -> _Quantity:
    return (axis.of, axis.over, axis.absolute, axis.scale)


def _on_scale(axis: TableAxis, value: float) -> float:
    return float(np.log(value)) if axis.scale == "log" else value


@kernel
def _scaled(
    above: NDArray[Any], below: NDArray[Any], flags: tuple[bool, bool, bool], out: Floats
) -> None:
    is_ratio, is_absolute, is_log = flags
    for i in range(out.size):
        value = np.float64(above[i])
        if is_ratio:
            value /= np.float64(below[i])
        if is_absolute:
            value = abs(value)
        out[i] = np.log(value) if is_log else value


@kernel
def _flat_bins(
    values_QN: Floats,
    places_A: Indices,
    spacing: tuple[Floats, Floats, Indices],
    out: Indices,
) -> None:
    starts_A, steps_A, cells_A = spacing
    out[:] = 0
    for a in range(places_A.size):
        values_N, start, step, cells = values_QN[places_A[a]], starts_A[a], steps_A[a], cells_A[a]
        for i in range(out.size):
            value = values_N[i]
            if np.isnan(value) or out[i] < 0:
                out[i] = -1
            else:
                at = min(max((value - start) * step, 0.0), cells - 1.0)
                out[i] = out[i] * cells + np.int64(at)
