"""Moments of R and of l = log10 R within a range, network by network; compiled.

The variances come from differences of sums: float64 throughout, tails of Gaussians accurate
relative to themselves, and R in units near its mean. Most components lie well within the range:
only those that an edge touches pay for their tails.
"""

import numpy as np

from pipeline.densities.gaussian_mixture.components import Room, finite_bounds
from pipeline.densities.gaussian_mixture.moment_edges import Sums, cut_components
from pipeline.numerics.compiled import kernel, summing_kernel
from pipeline.numerics.special import (
    LN10,
    Row,
    Vector,
    add_components,
    aligned,
    copy_into,
    exp64,
    row_of,
)

# Of the networks: shares of the averaged density, one over them, and the means of four powers.
Averages = tuple[Vector, Vector, Vector, Vector, Vector, Vector]

_FAINT = -300.0  # log of the largest value of a network from which on it is scaled
_NEAR = 20.0  # sigmas outside the range at which a network is far from being so faint


@kernel
def moment_rows(
    block: Vector, moments: Vector, bounds: tuple[Vector, Vector], networks: int, out: Vector
) -> None:
    """Moments of R = 10^l and of l within the bounds of each row.

    Args:
        block: [N, 5, C], of blocks.blocks_of.
        moments: [N, 3], of moments_of_rows.
        bounds: low [N] and high [N], in l.
        networks: number of networks S.
        out: [6, N]; gets the mean of R in the averaged density, then for R and for l the mean over
            networks of the variance and the variance over networks (1 / S) of the mean, then the
            mean of l. Rows that are NaN, or whose range is empty, are left as they are.
    """
    num_rows, _, size = block.shape
    wide = aligned(12, size)
    sums = (wide[0], wide[1], wide[2], wide[3], wide[4])
    room = (wide[5], wide[6], wide[7])
    edges = (wide[8], wide[9], wide[10], wide[11])
    tops, six = np.empty(networks), aligned(6, -(-networks // 8) * 8)
    n = networks
    averages = (six[0][:n], six[1][:n], six[2][:n], six[3][:n], six[4][:n], six[5][:n])
    for i in range(num_rows):
        low, high = bounds[0][i], bounds[1][i]
        if np.isnan(block[i, 0, 0]) or not low < high:
            continue
        row = row_of(block, i)
        low, high = finite_bounds(row, low, high)
        reference = min(max(moments[i, 0], low), high)
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
    if _all_within(row, low, high, _NEAR):
        tops[:] = 0.0
        return a, means, inverse, s, weights
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


@kernel
def _all_within(row: Row, low: float, high: float, reach: float) -> bool:
    """Whether no component has its centre more than so many sigmas outside the range."""
    _, m, inverse, _, _ = row
    count = 0
    for c in range(m.size):
        count += int(max(low - m[c], m[c] - high) * inverse[c] > reach)
    return count == 0


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
def _average(sums: Sums, tops: Vector, averages: Averages, found: Vector) -> None:
    """Means of the averaged density; mean variance and variance of the means, for R and for l."""
    shares, inverse, means, squares, log_means, log_squares = averages
    add_components(sums[0], shares)
    for s in range(inverse.size):
        inverse[s] = 1.0 / shares[s]
    _add(sums[1], inverse, means)
    _add(sums[2], inverse, squares)
    _add(sums[3], inverse, log_means)
    _add(sums[4], inverse, log_squares)
    if tops.min() < 0.0:
        for s in range(tops.size):
            shares[s] *= exp64(tops[s])
    found[0], found[5] = _means(shares, means, log_means)
    found[1], found[2] = _spread(means, squares)
    found[3], found[4] = _spread(log_means, log_squares)


@kernel
def _add(values: Vector, by: Vector, out: Vector) -> None:
    """Sums over the components of each network, times a number each."""
    add_components(values, out)
    for s in range(out.size):
        out[s] *= by[s]


@summing_kernel
def _means(shares: Vector, means: Vector, log_means: Vector) -> tuple[float, float]:
    """Of R and of l in the averaged density."""
    weight, first, second = 0.0, 0.0, 0.0
    for s in range(shares.size):
        weight += shares[s]
        first += shares[s] * means[s]
        second += shares[s] * log_means[s]
    return first / weight, second / weight


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
