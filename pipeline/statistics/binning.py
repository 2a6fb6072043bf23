"""Values into cells and bins; compiled."""

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.compiled import exact_kernel
from pipeline.numerics.special import ROUGH_LOG, rough_log

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Numbers = NDArray[np.int32]
Reals = NDArray[np.floating]
Bins = NDArray[np.uint16]

OUTSIDE = -1  # the cell of a value that is not a number
UNSEEN = -2  # the cell of a row that is not asked for

_BLOCK = 512  # values at a time whose logarithms are vector instructions


@exact_kernel
def linear_cells(values: Reals, start: float, scale: float, cells: int) -> Numbers:
    """The cell of each value [N] for evenly spaced edges; `scale` is cells per unit."""
    out = np.empty(len(values), np.int32)
    for i in range(len(values)):
        step = np.floor((np.float64(values[i]) - start) * scale) + 1.0
        if step != step:  # noqa: PLR0124 - no number
            out[i] = OUTSIDE
        else:
            out[i] = np.int32(min(max(step, 0.0), cells + 1.0))
    return out


@exact_kernel
def log_cells(values: Reals, start: float, scale: float, cells: int) -> Numbers:
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
                out[i] = np.int32(min(max(step, 0.0), cells + 1.0))
            else:
                out[i] = _log_cell(np.float64(values[i]), start, scale, cells)
    return out


@exact_kernel
def _log_cell(value: float, start: float, scale: float, cells: int) -> int:
    if value > 0.0:
        step = np.floor((np.log(value) - start) * scale) + 1.0
        return int(min(max(step, 0.0), cells + 1.0))
    return 0 if value <= 0.0 else OUTSIDE


@exact_kernel
def edge_bins(values: Reals, edges: Floats, is_log: bool) -> Bins:
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
def _corrected(at: int, value: float, edges: Floats) -> int:
    while value < edges[at]:
        at -= 1
    while value >= edges[at + 1]:
        at += 1
    return at + 1


@exact_kernel
def group_cells(cells: Numbers, groups: Numbers) -> Numbers:
    """The group of each cell [N]; OUTSIDE stays so."""
    out = np.empty_like(cells)
    for i in range(len(cells)):
        out[i] = groups[np.uint32(cells[i])] if cells[i] >= 0 else cells[i]
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
