"""Values into fine bins and bins; compiled.

A `Spacing` is a scale of fine, even bins, linear or logarithmic, for quantiles of a stream.
"""

import functools
import math
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.formats.records import Record
from pipeline.numerics.arrays import FloatArray, Int32Array, RealArray
from pipeline.numerics.compiled import exact_kernel
from pipeline.numerics.special import ROUGH_LOG, rough_log

Bins = NDArray[np.uint16]

OUTSIDE = -1  # the fine bin of a value that is not a number
UNSEEN = -2  # the fine bin of a row that is not asked for

_BLOCK = 512  # values at a time whose logarithms are vector instructions


@exact_kernel
def linear_fine_bins(values: RealArray, start: float, scale: float, fine_bins: int) -> Int32Array:
    """The fine bin of each value [N] for evenly spaced edges; `scale` is fine bins per unit."""
    out = np.empty(len(values), np.int32)
    for i in range(len(values)):
        step = np.floor((np.float64(values[i]) - start) * scale) + 1.0
        if step != step:  # noqa: PLR0124 - no number
            out[i] = OUTSIDE
        else:
            out[i] = np.int32(min(max(step, 0.0), fine_bins + 1.0))
    return out


@exact_kernel
def log_fine_bins(values: RealArray, start: float, scale: float, fine_bins: int) -> Int32Array:
    """The same for values whose logarithms are evenly spaced; zero and less are below all.

    Where an approximate logarithm is too near to an edge, the exact one decides.
    """
    out = np.empty(len(values), np.int32)
    steps = np.empty(_BLOCK)
    margin = ROUGH_LOG * scale
    for first in range(0, len(values), _BLOCK):
        last = min(first + _BLOCK, len(values))
        for i in range(first, last):
            steps[i - first] = (rough_log(np.float64(values[i])) - start) * scale + 1.0
        for i in range(first, last):
            step = np.floor(steps[i - first])
            rest = steps[i - first] - step
            if margin < rest < 1.0 - margin:
                out[i] = np.int32(min(max(step, 0.0), fine_bins + 1.0))
            else:
                out[i] = _log_fine_bin(np.float64(values[i]), start, scale, fine_bins)
    return out


@exact_kernel
def _log_fine_bin(value: float, start: float, scale: float, fine_bins: int) -> int:
    if value > 0.0:
        step = np.floor((np.log(value) - start) * scale) + 1.0
        return int(min(max(step, 0.0), fine_bins + 1.0))
    return 0 if value <= 0.0 else OUTSIDE


@exact_kernel
def edge_bins(values: RealArray, edges: FloatArray, is_log: bool) -> Bins:
    """What `numpy.searchsorted(edges, values, side="right")` gives; NaN is above all edges.

    The bin of evenly spaced edges is guessed and then corrected, so that any edges are right.
    """
    last = len(edges) - 1
    low, high = edges[0], edges[last]
    start = np.log(low) if is_log else low
    scale = last / (np.log(high) - start if is_log else high - start)
    out = np.empty(len(values), np.uint16)
    steps = np.empty(_BLOCK)
    for first in range(0, len(values), _BLOCK):
        stop = min(first + _BLOCK, len(values))
        for i in range(first, stop):
            value = np.float64(values[i])
            steps[i - first] = ((rough_log(value) if is_log else value) - start) * scale
        for i in range(first, stop):
            value = np.float64(values[i])
            if value < low:
                out[i] = 0
            elif value < high:
                out[i] = _corrected(min(max(int(steps[i - first]), 0), last - 1), value, edges)
            else:
                out[i] = last + 1
    return out


@exact_kernel
def _corrected(at: int, value: float, edges: FloatArray) -> int:
    while value < edges[at]:
        at -= 1
    while value >= edges[at + 1]:
        at += 1
    return at + 1


@exact_kernel
def group_fine_bins(fine_bins: Int32Array, groups: Int32Array) -> Int32Array:
    """The group of each fine bin [N]; OUTSIDE stays so."""
    out = np.empty_like(fine_bins)
    for i in range(len(fine_bins)):
        out[i] = groups[np.uint32(fine_bins[i])] if fine_bins[i] >= 0 else fine_bins[i]
    return out


@exact_kernel
def number_bins(bins: Bins, starts: Bins) -> Bins:
    """Bins [N, A] of axes, numbered through them.

    Args:
        bins: [A, N] of each axis.
        starts: [A] the number of each axis' first bin.
    """
    out = np.empty((bins.shape[1], len(bins)), np.uint16)
    for i in range(len(out)):
        for a in range(len(bins)):
            out[i, a] = bins[a, i] + starts[a]
    return out


CORE = 0.2  # |log x| from which on groups of fine bins around one widen


class Spacing(Record):
    """Fine bins of equal width in x (linear) or in log x (log), and one flow bin at each end.

    Attributes:
        scale: What is evenly spaced.
        low: Lower edge of the first fine bin.
        high: Upper edge of the last fine bin.
        cells: Number of fine bins between the two.
    """

    scale: Literal["log", "linear"]
    low: float
    high: float
    cells: int = Field(gt=0, le=60_000)  # they are numbered in 16 bits

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.low >= self.high:
            msg = f"low must be below high, got {self.low:g} and {self.high:g}"
            raise ValueError(msg)
        if self.scale == "log" and self.low <= 0:
            msg = f"a log scale starts above 0, got low = {self.low:g}"
            raise ValueError(msg)
        return self

    @property
    def width(self) -> int:
        """Number of fine bins with both flow bins."""
        return self.cells + 2

    @property
    def resolution(self) -> float:
        """Width of a fine bin: relative (upper/lower edge - 1) if log, absolute if linear."""
        if self.scale == "log":
            return float((self.high / self.low) ** (1 / self.cells) - 1)
        return (self.high - self.low) / self.cells

    def edges(self) -> FloatArray:
        """The edges [fine bins + 1]; not to be changed."""
        return _edges(self.scale, self.low, self.high, self.cells)

    def index(self, values: RealArray) -> Int32Array:
        """The fine bin of each value [N]: 0 below low, 1 to `cells` inside, then `cells` + 1.

        What is no number gets OUTSIDE; on a log scale zero and less are below low.
        """
        if self.scale == "log":
            start, stop = np.log(self.low), np.log(self.high)
            return log_fine_bins(values, start, self.cells / (stop - start), self.cells)
        scale = self.cells / (self.high - self.low)
        return linear_fine_bins(values, self.low, scale, self.cells)


class Grouped(Record):
    """Some neighbouring fine bins of a spacing taken together.

    Attributes:
        base: The spacing.
        starts: Numbers, from 0, of the edges of the base that are kept, first and last included.
    """

    base: Spacing
    starts: tuple[int, ...]

    @classmethod
    def evenly(cls, base: Spacing, group: int) -> Self:
        """Groups of as many fine bins; the last one may be smaller."""
        return cls(base=base, starts=(*range(0, base.cells, group), base.cells))

    @classmethod
    def around_one(cls, base: Spacing) -> Self:
        """Single fine bins of a log spacing near 1, groups that widen with the distance from there.

        With x the distance in log, they are about sqrt(1 + (x / 0.2)^2) fine bins wide.
        """
        one = -math.log(base.low) / math.log(base.high / base.low) * base.cells
        reach = CORE * base.cells / math.log(base.high / base.low)
        ends = np.arcsinh(np.array([-one, base.cells - one]) / reach).tolist()
        steps = max(1, round((ends[1] - ends[0]) * reach))
        kept = np.round(one + reach * np.sinh(np.linspace(ends[0], ends[1], steps + 1)))
        starts = np.unique(np.clip(kept, 0, base.cells)).astype(int).tolist()
        return cls(base=base, starts=tuple(starts))

    def __eq__(self, other: object) -> bool:
        # Pydantic would compare the arrays that are kept as well.
        return isinstance(other, Grouped) and (self.base, self.starts) == (other.base, other.starts)

    def __hash__(self) -> int:
        return hash((self.base, self.starts))

    @property
    def cells(self) -> int:
        """Number of groups, without the flow bins."""
        return len(self.starts) - 1

    @property
    def width(self) -> int:
        """Number of groups with both flow bins."""
        return self.cells + 2

    @property
    def resolution(self) -> float:
        """Width of the widest group, relative or absolute as the base's."""
        edges = self.edges()
        widths = edges[1:] / edges[:-1] - 1 if self.base.scale == "log" else np.diff(edges)
        return float(widths.max())

    def edges(self) -> FloatArray:
        """The edges [fine bins + 1]; not to be changed."""
        return self._kept_edges

    @functools.cached_property
    def _kept_edges(self) -> FloatArray:
        return self.base.edges()[list(self.starts)]

    def index(self, values: RealArray) -> Int32Array:
        """The group of each value [N], as `Spacing.index`."""
        return group_fine_bins(self.base.index(values), self.of_fine_bins)

    @functools.cached_property
    def of_fine_bins(self) -> Int32Array:
        """The group of each fine bin of the base [base.width], flow bins at both ends."""
        groups = np.searchsorted(self.starts, np.arange(self.base.cells), side="right")
        return np.concatenate([[0], groups, [self.cells + 1]]).astype(np.int32)


@functools.lru_cache(maxsize=256)
def _edges(scale: str, low: float, high: float, fine_bins: int) -> FloatArray:
    make = np.geomspace if scale == "log" else np.linspace
    edges = np.asarray(make(low, high, fine_bins + 1), dtype=np.float64)
    edges.flags.writeable = False
    return edges


# Made once in a worker: all parts have the same.
around_one = functools.lru_cache(maxsize=8)(Grouped.around_one)
evenly = functools.lru_cache(maxsize=8)(Grouped.evenly)
