"""Sums in the bins of all axes at once; compiled.

Bins are numbers without sign: to find out which end an index counts from costs as much as the sum.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import FloatArray, Int32Array, IntArray
from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import Bins

_Four = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def sums_on_axes(
    values: Sequence[FloatArray], bins: Bins, totals: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Sums of Q quantities in the bins of all axes at once, about one centre for each quantity.

    Args:
        values: Q times [N]; what is not finite is left out.
        bins: [N, A] bin of each row on each axis, numbered through all axes.
        totals: [B, 3] from `totals_on_axes`.
        weights: [N]; empty for 1.

    Returns:
        [5, Q, B] of rows, sums of w, of w^2, of w (x - centre) and of w (x - centre)^2; and the
        centres [Q].
    """
    centres = np.array([_rough_centre(each) for each in values])
    out = np.zeros((5, len(values), len(totals)))
    for first in range(0, len(values), 4):
        chosen = range(first, min(first + 4, len(values)))
        # The last quantity fills up the four.
        at = [min(first + k, len(values) - 1) for k in range(4)]
        one, two, three, four = (values[q] for q in at)
        some = one, two, three, four
        sums, known = _sums_of_four(some, centres[at], bins, len(totals), weights)
        for q in chosen:
            if known[q - first] > 0:
                out[:3, q] = _totals_of_known(values[q], bins, totals, weights, known[q - first]).T
            out[3, q] = sums[:, q - first]
            out[4, q] = sums[:, 4 + q - first]
    return out, centres


@exact_kernel
def _sums_of_four(
    values: _Four, centres: FloatArray, bins: Bins, num_bins: int, weights: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Sums [B, 8] of w x and w x^2 of four quantities [N], and rows [4] that have each."""
    out, known = np.zeros((num_bins, 8)), np.zeros(4, np.int64)
    is_weighted = len(weights) > 0
    one, two, three, four = values
    for i in range(len(one)):
        a, b = one[i] - centres[0], two[i] - centres[1]
        c, d = three[i] - centres[2], four[i] - centres[3]
        has_a, has_b, has_c, has_d = (
            abs(a) < np.inf,
            abs(b) < np.inf,
            abs(c) < np.inf,
            abs(d) < np.inf,
        )
        known[0] += has_a
        known[1] += has_b
        known[2] += has_c
        known[3] += has_d
        a, b = a if has_a else 0.0, b if has_b else 0.0
        c, d = c if has_c else 0.0, d if has_d else 0.0
        w = weights[i] if is_weighted else 1.0
        wa, wb, wc, wd = w * a, w * b, w * c, w * d
        sums = (wa, wb, wc, wd, wa * a, wb * b, wc * c, wd * d)
        for k in range(bins.shape[1]):
            at = bins[i, k]
            for q in range(8):
                out[at, q] += sums[q]
    return out, known


@exact_kernel
def count_rows(
    order: Int32Array,
    fine_bins: Int32Array,
    bins: Bins,
    counts: NDArray[np.integer],
    sums: FloatArray,
    weights: FloatArray,
) -> None:
    """Adds rows to their fine bin in the bins of all axes at once.

    Args:
        order: [M] rows, sorted by fine bin so that the counts of one fine bin stay at hand.
        fine_bins: [M] their fine bins.
        bins: [N, A] bin of each row on each axis, numbered through all axes.
        counts: [fine bins, bins] rows; added to.
        sums: [fine bins, bins, 2] sums of w and w^2; added to. Empty without weights.
        weights: [N]; empty for 1.
    """
    axes = bins.shape[1]
    for i in range(len(order)):
        row, fine_bin = np.uint32(order[i]), np.uint32(fine_bins[i])
        for a in range(axes):
            counts[fine_bin, bins[row, a]] += np.uint32(1)
        if len(weights) > 0:
            w = weights[row]
            for a in range(axes):
                sums[fine_bin, bins[row, a], 0] += w
                sums[fine_bin, bins[row, a], 1] += w * w


@exact_kernel
def _rough_centre(values: FloatArray) -> float:
    """The median of the first finite values [N]; 0 without any.

    Deviations from a mean would cancel in all bins if a single row is far out.
    """
    some, known = np.empty(min(len(values), 501)), 0
    for i in range(len(values)):
        if known == len(some):
            break
        if abs(values[i]) < np.inf:
            some[known] = values[i]
            known += 1
    return np.median(some[:known]) if known > 0 else 0.0


@exact_kernel
def totals_on_axes(bins: Bins, num_bins: int, weights: FloatArray) -> FloatArray:
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
def _totals_of_known(
    values: FloatArray, bins: Bins, totals: FloatArray, weights: FloatArray, known: int
) -> FloatArray:
    """Totals [B, 3] of the rows with a value: of all less those without, or added up."""
    is_full = 2 * known > len(values)
    sign = -1.0 if is_full else 1.0
    out = totals.copy() if is_full else np.zeros_like(totals)
    for i in range(0 if known == len(values) else len(values)):
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
