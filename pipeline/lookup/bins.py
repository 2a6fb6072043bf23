"""Which bin of a table each row is in.

Shape letters: A axes, N rows, Q binned quantities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.lookup.settings import TableAxis
from pipeline.numerics.arrays import BoolArray, Columns, FloatArray, IntArray
from pipeline.numerics.compiled import exact_kernel, kernel
from pipeline.numerics.special import ROUGH_LOG, rough_log

UNKNOWN = -1  # the bin of a row that has no number on some axis

_Quantity = tuple[str, str | None, bool, str]


@dataclass(frozen=True, slots=True)
class Quantities:
    """The binned quantities of some rows, each computed once for all tables.

    Attributes:
        places: By quantity: its row of the values.
        values_QN: As they are.
        scaled_QN: On the scale of the axis: rough logarithms where the bins are even in them.
    """

    places: Mapping[_Quantity, int]
    values_QN: FloatArray
    scaled_QN: FloatArray

    @classmethod
    def of(cls, columns: Columns, axes: Sequence[TableAxis]) -> "Quantities":
        """The quantities of N rows that some axes need."""
        places: dict[_Quantity, int] = {}
        for axis in axes:
            places.setdefault(_quantity(axis), len(places))
        num_rows = len(columns[axes[0].of])
        values_QN, scaled_QN = np.empty((2, len(places), num_rows))
        for (name, over, absolute, scale), at in places.items():
            above = columns[name]
            below = above if over is None else columns[over]
            flags = (over is not None, absolute, scale == "log")
            _scaled(np.asarray(above), np.asarray(below), flags, values_QN[at], scaled_QN[at])
        return cls(places, values_QN, scaled_QN)

    def bins(self, axes: Sequence[TableAxis]) -> IntArray:
        """The flat bin [N] of each row, the last axis running fastest; UNKNOWN where NaN."""
        places = np.array([self.places[_quantity(axis)] for axis in axes])
        starts = np.array([_on_scale(axis, axis.low) for axis in axes])
        ends = np.array([_on_scale(axis, axis.high) for axis in axes])
        sizes = np.array([axis.bins for axis in axes])
        out = np.empty(self.values_QN.shape[1], np.int64)
        is_log = np.array([axis.scale == "log" for axis in axes])
        spacing = starts, sizes / (ends - starts), sizes, is_log
        _flat_bins(self.values_QN, self.scaled_QN, places, spacing, out)
        return out


def num_bins(axes: Sequence[TableAxis]) -> int:
    """Bins of a table in all."""
    return int(np.prod([axis.bins for axis in axes]))


def edges_of(axis: TableAxis) -> FloatArray:
    """The edges [bins + 1] of an axis."""
    space = np.geomspace if axis.scale == "log" else np.linspace
    return np.asarray(space(axis.low, axis.high, axis.bins + 1), np.float64)


def _quantity(axis: TableAxis) -> _Quantity:
    return (axis.of, axis.over, axis.absolute, axis.scale)


def _on_scale(axis: TableAxis, value: float) -> float:
    return float(np.log(value)) if axis.scale == "log" else value


@kernel
def _scaled(
    above: NDArray[Any],
    below: NDArray[Any],
    flags: tuple[bool, bool, bool],
    values_N: FloatArray,
    scaled_N: FloatArray,
) -> None:
    is_ratio, is_absolute, is_log = flags
    for i in range(values_N.size):
        value = np.float64(above[i])
        if is_ratio:
            value /= np.float64(below[i])
        if is_absolute:
            value = abs(value)
        values_N[i] = value
        scaled_N[i] = rough_log(value) if is_log else value


@kernel
def _flat_bins(
    values_QN: FloatArray,
    scaled_QN: FloatArray,
    places_A: IntArray,
    spacing: tuple[FloatArray, FloatArray, IntArray, BoolArray],
    out: IntArray,
) -> None:
    starts_A, steps_A, sizes_A, is_log_A = spacing
    place_N = np.empty(out.size)
    out[:] = 0
    for a in range(places_A.size):
        values_N, scaled_N = values_QN[places_A[a]], scaled_QN[places_A[a]]
        start, step, size = starts_A[a], steps_A[a], sizes_A[a]
        for i in range(out.size):
            place_N[i] = (scaled_N[i] - start) * step
        if is_log_A[a]:
            _settle(values_N, start, step, place_N)
        for i in range(out.size):
            if np.isnan(place_N[i]) or out[i] < 0:
                out[i] = -1
            else:
                out[i] = out[i] * size + np.int64(min(max(place_N[i], 0.0), size - 1.0))


@kernel
def _settle(values_N: FloatArray, start: float, step: float, place_N: FloatArray) -> None:
    """Exact logarithms where a rough one is too near to an edge, or is none."""
    near, margin = 0, ROUGH_LOG * step
    for i in range(place_N.size):
        near += not margin < place_N[i] - np.floor(place_N[i]) < 1.0 - margin
    if near == 0:
        return
    for i in range(place_N.size):
        if not margin < place_N[i] - np.floor(place_N[i]) < 1.0 - margin:
            place_N[i] = (np.log(values_N[i]) - start) * step


@exact_kernel
def values_at(values_B: FloatArray, bins_N: IntArray) -> FloatArray:
    """The value of each row's bin [N]; NaN where that is UNKNOWN."""
    out = np.empty(bins_N.size)
    for i in range(bins_N.size):
        out[i] = values_B[np.uint64(bins_N[i])] if bins_N[i] >= 0 else np.nan
    return out
