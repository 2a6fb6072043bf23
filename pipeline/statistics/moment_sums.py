"""Sums of deviations in bins, and their merging; compiled."""

import numpy as np

from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import Bins, Floats, Indices

Sums = tuple[Floats, Floats, Floats, Floats, Floats]


@exact_kernel
def binned_sums(
    values: Floats, bins: Bins, num_bins: int, weights: Floats
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


@exact_kernel
def merge_sums(counts: Indices, sums: Sums, other_counts: Indices, other_sums: Sums) -> Sums:
    """Merges moments of B bins.

    Args:
        counts: [B] rows.
        sums: Each [B]: sums of w, of w^2, centres, sums of w (x - centre), of w (x - centre)^2.
        other_counts: [B].
        other_sums: As `sums`.
    """
    weights, squares, centre, tilt, spread = sums
    other_weights, other_squares, other_centre, other_tilt, other_spread = other_sums
    middle, tilts, spreads = np.empty_like(centre), np.empty_like(centre), np.empty_like(centre)
    for b in range(len(counts)):
        rows, other_rows = counts[b], other_counts[b]
        share = other_rows / max(rows + other_rows, 1)
        middle[b] = centre[b] + (other_centre[b] - centre[b]) * share
        step = centre[b] - middle[b] if rows > 0 else 0.0
        other_step = other_centre[b] - middle[b] if other_rows > 0 else 0.0
        # Where all weights are 1 no rounding may look like a tilt.
        is_plain = weights[b] == squares[b] == rows and tilt[b] == 0.0
        is_other_plain = other_weights[b] == other_squares[b] == other_rows and other_tilt[b] == 0.0
        moved = tilt[b] + weights[b] * step
        other_moved = other_tilt[b] + other_weights[b] * other_step
        tilts[b] = 0.0 if is_plain and is_other_plain else moved + other_moved
        spreads[b] = (spread[b] + 2.0 * step * tilt[b] + weights[b] * (step * step)) + (
            other_spread[b]
            + 2.0 * other_step * other_tilt[b]
            + other_weights[b] * (other_step * other_step)
        )
    return weights + other_weights, squares + other_squares, middle, tilts, spreads
