"""Rows into cells and bins; compiled.

A quantity is sorted once by its fine cells; its histogram in the bins of any axis is then one pass
over the sorted rows, whose order within a cell is that of the rows, so that sums have the bits of
`numpy.bincount`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import exact_kernel

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Numbers = NDArray[np.int32]
Reals = NDArray[np.floating]

OUTSIDE = -1  # the cell of a value that is not a number


class Occupied(NamedTuple):
    """Occupied cells in rising order.

    Attributes:
        cells: [C].
        counts: [C] rows.
        weights: [C] sums of w; empty without weights.
        squares: [C] sums of w^2; likewise.
    """

    cells: Numbers
    counts: Indices
    weights: Floats
    squares: Floats


class SortedRows(NamedTuple):
    """Rows in the order of their cells.

    Attributes:
        order: [M] rows that have a cell.
        cells: [M] their cells, rising.
        outside: [N - M] rows that have none.
    """

    order: Numbers
    cells: Numbers
    outside: Numbers


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
    """The same for values whose logarithms are evenly spaced; zero and less are below all."""
    out = np.empty(len(values), np.int32)
    for i in range(len(values)):
        value = np.float64(values[i])
        if value > 0.0:
            step = np.floor((np.log(value) - start) * scale) + 1.0
            out[i] = np.int32(min(max(step, 0.0), cells + 1.0))
        elif value <= 0.0:
            out[i] = 0
        else:
            out[i] = OUTSIDE
    return out


@exact_kernel
def edge_bins(values: Reals, edges: Floats, is_log: bool) -> NDArray[np.int16]:
    """What `numpy.searchsorted(edges, values, side="right")` gives; NaN is above all edges.

    The bin of evenly spaced edges is guessed and then corrected, so that any edges are right.
    """
    last = len(edges) - 1
    low, high = edges[0], edges[last]
    start = np.log(low) if is_log else low
    scale = last / (np.log(high) - start if is_log else high - start)
    out = np.empty(len(values), np.int16)
    for i in range(len(values)):
        value = np.float64(values[i])
        if value < low:
            out[i] = 0
        elif value < high:
            at = int(((np.log(value) if is_log else value) - start) * scale)
            at = min(max(at, 0), last - 1)
            while value < edges[at]:
                at -= 1
            while value >= edges[at + 1]:
                at += 1
            out[i] = at + 1
        else:
            out[i] = last + 1
    return out


@exact_kernel
def sort_rows(index: Numbers, width: int) -> SortedRows:
    """Rows by their cells [N] in [0, width), in the order of the rows within a cell."""
    starts = np.zeros(width + 1, np.int32)
    missing = 0
    for i in range(len(index)):
        if index[i] == OUTSIDE:
            missing += 1
        else:
            starts[index[i] + 1] += 1
    for c in range(width):
        starts[c + 1] += starts[c]
    known = len(index) - missing
    order, ordered = np.empty(known, np.int32), np.empty(known, np.int32)
    outside = np.empty(missing, np.int32)
    missing = 0
    for i in range(len(index)):
        if index[i] == OUTSIDE:
            outside[missing] = i
            missing += 1
        else:
            at = starts[index[i]]
            starts[index[i]] = at + 1
            order[at] = i
            ordered[at] = index[i]
    return SortedRows(order, ordered, outside)


@exact_kernel
def group_rows(
    rows: SortedRows, bins: NDArray[np.int16], num_bins: int, width: int, weights: Floats
) -> tuple[Occupied, Indices]:
    """Sums of the rows in each bin and cell, and rows without a cell in each bin [num_bins].

    Args:
        rows: From `sort_rows`.
        bins: [N] in [0, num_bins); empty if there is one bin.
        num_bins: B.
        width: Cells of a bin.
        weights: [N]; empty for 1.
    """
    known = len(rows.order)
    starts = np.zeros(num_bins + 1, np.int32)
    one = len(bins) == 0
    for i in range(known):
        starts[(0 if one else bins[rows.order[i]]) + 1] += 1
    for b in range(num_bins):
        starts[b + 1] += starts[b]
    cells, by_bin = np.empty(known, np.int32), np.empty(known, np.int32)
    for i in range(known):
        b = 0 if one else bins[rows.order[i]]
        at = starts[b]
        starts[b] = at + 1
        cells[at] = b * width + rows.cells[i]
        by_bin[at] = rows.order[i]
    outside = np.zeros(num_bins, np.int64)
    for i in rows.outside:
        outside[0 if one else bins[i]] += 1
    return _run_lengths(cells, by_bin, weights), outside


@exact_kernel
def _run_lengths(cells: Numbers, rows: Numbers, weights: Floats) -> Occupied:
    number = 0
    for i in range(len(cells)):
        if i == 0 or cells[i] != cells[i - 1]:
            number += 1
    is_weighted = len(weights) > 0
    found, counts = np.empty(number, np.int32), np.zeros(number, np.int64)
    sums = np.zeros(number if is_weighted else 0)
    squares = np.zeros(number if is_weighted else 0)
    at = -1
    for i in range(len(cells)):
        if i == 0 or cells[i] != cells[i - 1]:
            at += 1
            found[at] = cells[i]
        counts[at] += 1
        if is_weighted:
            w = weights[rows[i]]
            sums[at] += w
            squares[at] += w * w
    return Occupied(found, counts, sums, squares)


@exact_kernel
def merge_occupied(one: Occupied, two: Occupied) -> Occupied:
    """The sums of both; both have weights or neither has."""
    cells = _union(one.cells, two.cells)
    size = len(cells) if len(one.weights) + len(two.weights) > 0 else 0
    merged = Occupied(cells, np.zeros(len(cells), np.int64), np.zeros(size), np.zeros(size))
    _add_to(merged, one)
    _add_to(merged, two)
    return merged


@exact_kernel
def _union(one: Numbers, two: Numbers) -> Numbers:
    """All cells, both rising, once each."""
    out = np.empty(len(one) + len(two), np.int32)
    i, j, number = 0, 0, 0
    while i < len(one) or j < len(two):
        if j == len(two) or (i < len(one) and one[i] < two[j]):
            out[number] = one[i]
            i += 1
        else:
            out[number] = two[j]
            i += i < len(one) and one[i] == two[j]
            j += 1
        number += 1
    return out[:number].copy()


@exact_kernel
def _add_to(total: Occupied, part: Occupied) -> None:
    at = 0
    for i in range(len(part.cells)):
        while total.cells[at] != part.cells[i]:
            at += 1
        total.counts[at] += part.counts[i]
        if len(part.weights) > 0:
            total.weights[at] += part.weights[i]
            total.squares[at] += part.squares[i]


@exact_kernel
def count_rows(
    rows: SortedRows,
    bins: NDArray[np.int16],
    counts: NDArray[np.integer],
    sums: Floats,
    weights: Floats,
) -> None:
    """Adds rows to their cell in the bins of all axes at once.

    Args:
        rows: From `sort_rows`, so that the counts of one cell stay at hand.
        bins: [N, A] bin of each row on each axis, numbered through all axes.
        counts: [cells, bins] rows; added to.
        sums: [cells, bins, 2] sums of w and w^2; added to. Empty without weights.
        weights: [N]; empty for 1.
    """
    axes = bins.shape[1]
    for i in range(len(rows.order)):
        row, cell = rows.order[i], rows.cells[i]
        for a in range(axes):
            counts[cell, bins[row, a]] += 1
        if len(weights) > 0:
            w = weights[row]
            for a in range(axes):
                sums[cell, bins[row, a], 0] += w
                sums[cell, bins[row, a], 1] += w * w


@exact_kernel
def rough_centres(values: Floats) -> Floats:
    """Medians [Q] of the first finite values of a table [N, Q]; 0 without any.

    Deviations from a mean would cancel in all bins if a single row is far out.
    """
    out = np.zeros(values.shape[1])
    some = np.empty(min(len(values), 501))
    for q in range(values.shape[1]):
        known = 0
        for i in range(len(values)):
            if known < len(some) and abs(values[i, q]) < np.inf:
                some[known] = values[i, q]
                known += 1
        if known > 0:
            out[q] = np.median(some[:known])
    return out


@exact_kernel
def totals_on_axes(bins: NDArray[np.int16], num_bins: int, weights: Floats) -> Floats:
    """Rows, sums of w and of w^2 [B, 3] in the bins of all axes at once.

    Args:
        bins: [N, A] bin of each row on each axis, numbered through all axes.
        num_bins: B, of all axes together.
        weights: [N]; empty for 1.
    """
    out = np.zeros((num_bins, 3))
    for i in range(len(bins)):
        w = weights[i] if len(weights) > 0 else 1.0
        for a in range(bins.shape[1]):
            at = bins[i, a]
            out[at, 0] += 1.0
            out[at, 1] += w
            out[at, 2] += w * w
    return out


@exact_kernel
def sums_on_axes(
    values: Floats, centre: Floats, bins: NDArray[np.int16], totals: Floats, weights: Floats
) -> Floats:
    """Sums of Q quantities in the bins of all axes at once, about one centre for each quantity.

    Args:
        values: [N, Q]; what is not finite is left out.
        centre: [Q].
        bins: [N, A] bin of each row on each axis, numbered through all axes.
        totals: [B, 3] from `totals_on_axes`.
        weights: [N]; empty for 1.

    Returns:
        [B, 5, Q] of rows, sums of w, of w^2, of w (x - centre) and of w (x - centre)^2.
    """
    num_rows, size = values.shape
    num_bins = len(totals)
    out = np.zeros((num_bins, 5, size))
    for first in range(0, size, 4):
        steps = np.zeros((num_rows, 4))
        for q in range(first, min(first + 4, size)):
            known = 0
            for i in range(num_rows):
                step = values[i, q] - centre[q]
                is_known = abs(step) < np.inf
                known += is_known
                steps[i, q - first] = step if is_known else 0.0
            if known > 0:
                out[:, :3, q] = _totals_of_known(values[:, q], bins, totals, weights, known)
        sums = _sums_of_four(steps, bins, num_bins, weights)
        for q in range(first, min(first + 4, size)):
            out[:, 3, q] = sums[:, q - first]
            out[:, 4, q] = sums[:, 4 + q - first]
    return out


@exact_kernel
def _totals_of_known(
    values: Floats, bins: NDArray[np.int16], totals: Floats, weights: Floats, known: int
) -> Floats:
    """Totals [B, 3] of the rows with a value: of all less those without, or added up."""
    is_full = 2 * known > len(values)
    sign = -1.0 if is_full else 1.0
    out = totals.copy() if is_full else np.zeros_like(totals)
    for i in range(len(values)):
        if (abs(values[i]) < np.inf) != is_full:
            w = sign * (weights[i] if len(weights) > 0 else 1.0)
            for a in range(bins.shape[1]):
                at = bins[i, a]
                out[at, 0] += sign
                out[at, 1] += w
                out[at, 2] += sign * w * w
    for b in range(len(out)):
        if out[b, 0] == 0.0:  # only rounding is left of the weights
            out[b, 1] = 0.0
            out[b, 2] = 0.0
    return out


@exact_kernel
def _sums_of_four(steps: Floats, bins: NDArray[np.int16], num_bins: int, weights: Floats) -> Floats:
    """Sums [B, 8] of w x and w x^2 of four quantities [N, 4]; unrolled: a loop is far slower."""
    out = np.zeros((num_bins, 8))
    is_weighted = len(weights) > 0
    for i in range(len(steps)):
        one, two, three, four = steps[i, 0], steps[i, 1], steps[i, 2], steps[i, 3]
        w = weights[i] if is_weighted else 1.0
        for a in range(bins.shape[1]):
            at = bins[i, a]
            out[at, 0] += w * one
            out[at, 1] += w * two
            out[at, 2] += w * three
            out[at, 3] += w * four
            out[at, 4] += w * one * one
            out[at, 5] += w * two * two
            out[at, 6] += w * three * three
            out[at, 7] += w * four * four
    return out


@exact_kernel
def binned_sums(
    values: Floats, bins: NDArray[np.int16], num_bins: int, weights: Floats
) -> tuple[Indices, Floats, Floats, Floats, Floats, Floats]:
    """Moments of Q quantities in bins, about the plain means of their finite values.

    Args:
        values: [N, Q]; what is not finite is left out.
        bins: [N] in [0, num_bins).
        num_bins: B.
        weights: [N]; empty for 1.

    Returns:
        Each [Q, B]: rows; sums of w; of w^2; centre, the plain mean (0 without rows); sums of
        w (x - centre), exactly 0 without weights; sums of w (x - centre)^2.
    """
    num_rows, size = values.shape
    is_weighted = len(weights) > 0
    counts = np.zeros((num_bins, size))
    centre, sums, squares = np.zeros_like(counts), np.zeros_like(counts), np.zeros_like(counts)
    for i in range(num_rows):
        b = bins[i]
        w = weights[i] if is_weighted else 1.0
        for q in range(size):
            value = values[i, q]
            is_known = abs(value) < np.inf
            centre[b, q] += value if is_known else 0.0
            counts[b, q] += 1.0 if is_known else 0.0
            sums[b, q] += w if is_known else 0.0
            squares[b, q] += w * w if is_known else 0.0
    for b in range(num_bins):
        for q in range(size):
            centre[b, q] = centre[b, q] / counts[b, q] if counts[b, q] > 0.0 else 0.0
    first, second = np.zeros_like(counts), np.zeros_like(counts)
    for i in range(num_rows):
        b = bins[i]
        w = weights[i] if is_weighted else 1.0
        for q in range(size):
            value = values[i, q]
            step = value - centre[b, q] if abs(value) < np.inf else 0.0
            first[b, q] += w * step if is_weighted else 0.0
            second[b, q] += w * step * step
    return (
        counts.T.astype(np.int64),
        sums.T.copy(),
        squares.T.copy(),
        centre.T.copy(),
        first.T.copy(),
        second.T.copy(),
    )
