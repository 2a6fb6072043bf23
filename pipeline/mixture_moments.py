"""Moments of R and of l = log10 R within a range, network by network; compiled.

The variances come from differences of sums: float64 throughout, tails of Gaussians accurate
relative to themselves, and R in units near its mean. Most components lie well within the range:
only those that an edge touches pay for their tails.
"""

import numpy as np

from pipeline.compiled import kernel, summing_kernel
from pipeline.fastmath import LN10, Row, Vector, copy_into, exp64
from pipeline.masses import Room, finite_bounds, rough_moments, row_of
from pipeline.moment_edges import Sums, cut_components

_FAINT = -300.0  # log of the largest value of a network from which on it is scaled


@kernel
def moment_rows(block: Vector, bounds: tuple[Vector, Vector], networks: int, out: Vector) -> None:
    """Moments of R = 10^l and of l within the bounds of each row.

    Args:
        block: [N, 5, C], as from fastmath.load_rows.
        bounds: low [N] and high [N], in l.
        networks: number of networks S.
        out: [6, N]; gets the mean of R in the averaged density, then for R and for l the mean over
            networks of the variance and the variance over networks (1 / S) of the mean, then the
            mean of l. Rows that are NaN, or whose range is empty, are left as they are.
    """
    num_rows, _, size = block.shape
    sums = (np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    room = (np.empty(size), np.empty(size), np.empty(size))
    edges = (np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    tops, five = np.empty(networks), np.empty((5, networks))
    averages = (five[0], five[1], five[2], five[3], five[4])
    for i in range(num_rows):
        low, high = bounds[0][i], bounds[1][i]
        if np.isnan(block[i, 0, 0]) or not low < high:
            continue
        row = row_of(block, i)
        low, high = finite_bounds(row, low, high)
        reference = min(max(rough_moments(row)[0], low), high)
        row = _shift(row, (low, high, reference), tops, room)
        low, high = low - reference, high - reference
        _whole(row, sums)
        cut_components(row, (low, high), edges, sums)
        _average(sums, tops, averages, out[:, i])
        scale = 10.0**reference
        out[0, i] *= scale
        out[1, i] *= scale * scale
        out[2, i] *= scale * scale
        out[5, i] += reference


@kernel
def _shift(row: Row, at: tuple[float, float, float], tops: Vector, room: Room) -> Row:
    """The row with means relative to a reference and, where it matters, scaled networks.

    A network all of whose mass is far outside would else underflow: its log weights are shifted so
    that its largest value within the range is one. The shifts, relative to the largest of the row,
    go to tops.
    """
    low, high, reference = at
    a, m, inverse, s, weights = row
    means, shifted, scaled = room
    for c in range(a.size):
        means[c] = m[c] - reference
    tops[:] = -np.inf
    for first in range(0, a.size - tops.size + 1, tops.size):
        _raise_tops(a[first:], m[first:], inverse[first:], (low, high), tops)
    if tops.min() > _FAINT:
        tops[:] = 0.0
        return a, means, inverse, s, weights
    for c in range(a.size):
        shifted[c] = a[c] - tops[c % tops.size]
    for c in range(a.size):
        scaled[c] = exp64(shifted[c])
    tops -= tops.max()
    return shifted, means, inverse, s, scaled


@summing_kernel
def _raise_tops(
    a: Vector, m: Vector, inverse: Vector, bounds: tuple[float, float], tops: Vector
) -> None:
    low, high = bounds
    for s in range(tops.size):
        z = max(low - m[s], m[s] - high, 0.0) * inverse[s]
        tops[s] = max(tops[s], a[s] - 0.5 * z * z)


@kernel
def _whole(row: Row, sums: Sums) -> None:
    """Per component the integrals over all l.

    R^j times a Gaussian is a Gaussian about m + j L s^2, of weight w A^j B^(j j) with A = exp(L m)
    and B = exp((L s)^2 / 2).
    """
    _, m, _, s, weights = row
    zeroth, first, second, log_first, log_second = sums
    copy_into(weights, zeroth)
    for c in range(m.size):
        log_first[c] = weights[c] * m[c]
    for c in range(m.size):
        log_second[c] = weights[c] * (m[c] * m[c] + s[c] * s[c])
    for c in range(m.size):
        second[c] = exp64(0.5 * (LN10 * s[c]) ** 2)
    for c in range(m.size):
        first[c] = exp64(LN10 * m[c]) * second[c]
    for c in range(m.size):
        second[c] = first[c] * first[c] * second[c] * second[c] * weights[c]
    for c in range(m.size):
        first[c] *= weights[c]


@kernel
def _average(sums: Sums, tops: Vector, averages: Sums, found: Vector) -> None:
    """Means of the averaged density; mean variance and variance of the means, for R and for l."""
    for j in range(5):
        _add_components(sums[j], averages[j])
    _divide(averages)
    shares, means, squares, log_means, log_squares = averages
    if tops.min() < 0.0:
        for s in range(tops.size):
            shares[s] *= exp64(tops[s])
    found[0] = _mean(means, shares)
    found[1], found[2] = _spread(means, squares)
    found[3], found[4] = _spread(log_means, log_squares)
    found[5] = _mean(log_means, shares)


@kernel
def _add_components(values: Vector, out: Vector) -> None:
    """Sums over the components of each network."""
    copy_into(values, out)
    for first in range(out.size, values.size - out.size + 1, out.size):
        others = values[first : first + out.size]
        for s in range(out.size):
            out[s] += others[s]


@kernel
def _divide(averages: Sums) -> None:
    """By the first, which is brought back afterwards."""
    by = averages[0]
    for s in range(by.size):
        by[s] = 1.0 / by[s]
    for j in range(1, 5):
        values = averages[j]
        for s in range(by.size):
            values[s] *= by[s]
    for s in range(by.size):
        by[s] = 1.0 / by[s]


@summing_kernel
def _mean(values: Vector, shares: Vector) -> float:
    total, weight = 0.0, 0.0
    for s in range(values.size):
        total += shares[s] * values[s]
        weight += shares[s]
    return total / weight


@summing_kernel
def _spread(means: Vector, squares: Vector) -> tuple[float, float]:
    """Mean variance, and variance of the means (1 / S)."""
    average, within, between = 0.0, 0.0, 0.0
    for s in range(means.size):
        average += means[s]
        within += max(squares[s] - means[s] * means[s], 0.0)
    average /= means.size
    for s in range(means.size):
        between += (means[s] - average) * (means[s] - average)
    return within / means.size, between / means.size
