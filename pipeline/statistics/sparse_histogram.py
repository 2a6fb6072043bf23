"""Histograms as their occupied fine bins; compiled.

A quantity is sorted once by its fine bins; its histogram in the bins of any axis is then one pass
over the sorted rows, whose order within a fine bin is that of the rows, so that sums have the
bits of `numpy.bincount`.
"""

from typing import NamedTuple

import numpy as np

from pipeline.numerics.arrays import FloatArray, Int32Array, IntArray
from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import OUTSIDE, UNSEEN, Bins

_BEYOND = np.iinfo(np.int32).max  # above all fine bins

# Kernels take and give plain tuples: a named one costs 20 microseconds a call.
_Arrays = tuple[Int32Array, IntArray, FloatArray, FloatArray]


class Occupied(NamedTuple):
    """Occupied fine bins in rising order.

    Attributes:
        fine_bins: [C].
        counts: [C] rows.
        weights: [C] sums of w; empty without weights.
        squares: [C] sums of w^2; likewise.
    """

    fine_bins: Int32Array
    counts: IntArray
    weights: FloatArray
    squares: FloatArray


class SortedRows(NamedTuple):
    """Rows in the order of their fine bins.

    Attributes:
        order: [M] rows that have a fine bin.
        fine_bins: [M] their fine bins, rising.
        outside: [N - M] rows that have none.
    """

    order: Int32Array
    fine_bins: Int32Array
    outside: Int32Array


def sort_rows(index: Int32Array, width: int) -> SortedRows:
    """Rows by their fine bins [N] in [0, width), in the order of the rows within a fine bin.

    Rows in the fine bin OUTSIDE are told apart, those in UNSEEN are left out.
    """
    return SortedRows(*_sort(index, width))


def group_rows(
    rows: SortedRows, bins: Bins, num_bins: int, width: int, weights: FloatArray
) -> tuple[Occupied, IntArray]:
    """Sums of the rows in each bin and fine bin, and rows without a fine bin by bin [num_bins].

    Args:
        rows: From `sort_rows`.
        bins: [N] in [0, num_bins); empty if there is one bin.
        num_bins: B.
        width: Fine bins of a bin.
        weights: [N]; empty for 1.
    """
    order, fine_bins, outside = rows
    if len(bins) == 0:
        missing = np.array([len(outside)])
    else:
        fine_bins, order = _by_bin(order, fine_bins, bins, num_bins, width)
        missing = np.bincount(bins[outside], minlength=num_bins)
    return Occupied(*_run_lengths(fine_bins, order, weights)), missing


def count_fine_bins(
    index: Int32Array, bins: Bins, num_bins: int, width: int, weights: FloatArray
) -> tuple[Occupied, IntArray]:
    """The same of the fine bins [N] of rows in any order: faster than sorting for few fine bins."""
    occupied, outside = _count(index, bins, num_bins, width, weights)
    return Occupied(*occupied), outside


def merge_occupied(one: Occupied, two: Occupied) -> Occupied:
    """The sums of both; both have weights or neither has."""
    return Occupied(*_merge(_plain(one), _plain(two)))


def _plain(occupied: Occupied) -> _Arrays:
    return occupied.fine_bins, occupied.counts, occupied.weights, occupied.squares


@exact_kernel
def _sort(index: Int32Array, width: int) -> tuple[Int32Array, Int32Array, Int32Array]:
    starts = np.zeros(width + 1, np.int32)
    missing, known = 0, 0
    for i in range(len(index)):
        if index[i] >= 0:
            starts[np.uint32(index[i]) + np.uint32(1)] += 1
            known += 1
        else:
            missing += index[i] == OUTSIDE
    for c in range(width):
        starts[c + 1] += starts[c]
    order, ordered = np.empty(known, np.int32), np.empty(known, np.int32)
    outside = np.empty(missing, np.int32)
    missing = 0
    for i in range(len(index)):
        if index[i] >= 0:
            fine_bin = np.uint32(index[i])
            at = np.uint32(starts[fine_bin])
            starts[fine_bin] += 1
            order[at] = i
            ordered[at] = index[i]
        elif index[i] != UNSEEN:
            outside[missing] = i
            missing += 1
    return order, ordered, outside


@exact_kernel
def _by_bin(
    order: Int32Array, fine_bins: Int32Array, bins: Bins, num_bins: int, width: int
) -> tuple[Int32Array, Int32Array]:
    """Rows by bin, then fine bin: the fine bins, numbered through the bins, and the rows."""
    starts = np.zeros(num_bins + 1, np.int32)
    for i in range(len(order)):
        starts[np.uint32(bins[np.uint32(order[i])]) + np.uint32(1)] += 1
    for b in range(num_bins):
        starts[b + 1] += starts[b]
    numbered, rows = np.empty_like(order), np.empty_like(order)
    for i in range(len(order)):
        b = bins[np.uint32(order[i])]
        at = np.uint32(starts[b])
        starts[b] += 1
        numbered[at] = b * width + fine_bins[i]
        rows[at] = order[i]
    return numbered, rows


@exact_kernel
def _run_lengths(fine_bins: Int32Array, rows: Int32Array, weights: FloatArray) -> _Arrays:
    number = 0
    for i in range(len(fine_bins)):
        if i == 0 or fine_bins[i] != fine_bins[i - 1]:
            number += 1
    is_weighted = len(weights) > 0
    found, counts = np.empty(number, np.int32), np.zeros(number, np.int64)
    sums = np.zeros(number if is_weighted else 0)
    squares = np.zeros(number if is_weighted else 0)
    at = -1
    for i in range(len(fine_bins)):
        if i == 0 or fine_bins[i] != fine_bins[i - 1]:
            at += 1
            found[at] = fine_bins[i]
        counts[at] += 1
        if is_weighted:
            w = weights[rows[i]]
            sums[at] += w
            squares[at] += w * w
    return found, counts, sums, squares


@exact_kernel
def _count(
    index: Int32Array, bins: Bins, num_bins: int, width: int, weights: FloatArray
) -> tuple[_Arrays, IntArray]:
    size = num_bins * width
    is_weighted = len(weights) > 0
    counts = np.zeros(size, np.uint32)
    sums = np.zeros((size if is_weighted else 0, 2))
    outside = np.zeros(num_bins, np.int64)
    for i in range(len(index)):
        b = np.uint32(bins[i] if len(bins) > 0 else 0)
        if index[i] == OUTSIDE:
            outside[b] += 1
            continue
        at = b * np.uint32(width) + np.uint32(index[i])
        counts[at] += np.uint32(1)
        if is_weighted:
            sums[at, 0] += weights[i]
            sums[at, 1] += weights[i] * weights[i]
    fine_bins = np.flatnonzero(counts)
    found = sums[fine_bins] if is_weighted else sums
    rows = counts[fine_bins].astype(np.int64)
    return (fine_bins.astype(np.int32), rows, found[:, 0].copy(), found[:, 1].copy()), outside


@exact_kernel
def _merge(one: _Arrays, two: _Arrays) -> _Arrays:
    fine_bins, counts, weights, squares = one
    other_fine_bins, other_counts, other_weights, other_squares = two
    size = len(fine_bins) + len(other_fine_bins)
    is_weighted = len(weights) + len(other_weights) > 0
    out, rows = np.empty(size, np.int32), np.empty(size, np.int64)
    sums, more = np.empty(size if is_weighted else 0), np.empty(size if is_weighted else 0)
    i, j, number = 0, 0, 0
    while i < len(fine_bins) or j < len(other_fine_bins):
        fine_bin = fine_bins[i] if i < len(fine_bins) else _BEYOND
        other = other_fine_bins[j] if j < len(other_fine_bins) else _BEYOND
        first, second = fine_bin <= other, other <= fine_bin
        out[number] = min(fine_bin, other)
        rows[number] = (counts[i] if first else 0) + (other_counts[j] if second else 0)
        if is_weighted:
            sums[number] = (weights[i] if first else 0.0) + (other_weights[j] if second else 0.0)
            more[number] = (squares[i] if first else 0.0) + (other_squares[j] if second else 0.0)
        i += first
        j += second
        number += 1
    size = number if is_weighted else 0
    return out[:number].copy(), rows[:number].copy(), sums[:size].copy(), more[:size].copy()
