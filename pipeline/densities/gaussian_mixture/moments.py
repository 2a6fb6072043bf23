"""Moments of R and of l = log10 R within a range, network by network; compiled.

Whole components have closed forms; only those that an edge of the range touches pay for their
tails, whose integrals of cut Gaussians come first.
"""

from typing import NamedTuple

import numpy as np

from pipeline.densities.gaussian_mixture.components import Room, finite_bounds
from pipeline.densities.gaussian_mixture.records import (
    Averages,
    Components,
    Edges,
    Integrals,
    row_of,
)
from pipeline.numerics.arrays import FloatArray
from pipeline.numerics.compiled import kernel, summing_kernel
from pipeline.numerics.special import (
    LN10,
    SQRT_2PI,
    add_components,
    aligned,
    copy_into,
    exp64,
    tail64,
)


class Edge(NamedTuple):
    """Where the range ends, 1 for its low and -1 for its high edge, and the power of e^l taken."""

    at: float
    side: float
    tilt: float


class Nearby(NamedTuple):
    """A run of components at the edges: as `Components` and `Edges` have them."""

    means: FloatArray
    inverse: FloatArray
    sigmas: FloatArray
    at_low: FloatArray
    at_high: FloatArray


_TOUCHED = 7.0  # sigmas from an edge; the mass beyond is 1e-12 of the component
_LANES = 8  # of a vector instruction


@kernel
def cut_components(
    row: Components, bounds: tuple[float, float], edges: Edges, sums: Integrals
) -> None:
    """Cuts the components that an edge touches, with or without R or R^2 as a factor.

    By runs of whole vectors: those of one kind, side by side, often share their fate.
    """
    _, m, inverse, s, _ = row
    low, high = bounds
    below, above = edges.to_low, edges.to_high
    for c in range(m.size):
        below[c] = (m[c] - low) * inverse[c]
    for c in range(m.size):
        above[c] = (high - m[c]) * inverse[c] - 2.0 * LN10 * s[c]
    first = 0
    for last in range(_LANES, m.size + 1, _LANES):
        vector = slice(last - _LANES, last)
        is_touched = _any_below(below[vector], _TOUCHED) or _any_below(above[vector], _TOUCHED)
        if first < last - _LANES and not is_touched:
            _cut_run(row, bounds, edges, sums, (first, last - _LANES))
        if not is_touched:
            first = last
    if first < m.size:
        _cut_run(row, bounds, edges, sums, (first, m.size))


@kernel
def _any_below(values: FloatArray, limit: float) -> bool:
    count = 0
    for c in range(values.size):
        count += int(values[c] < limit)
    return count > 0


@kernel
def _nearest(parts: Nearby, bounds: tuple[float, float], tilt: float) -> tuple[float, float]:
    """Smallest distances in sigmas of any component, times R to some power, from both edges."""
    m, inverse, s, _, _ = parts
    low, high = -np.inf, -np.inf
    for i in range(m.size):
        shift = tilt * s[i]
        low = max(low, (bounds[0] - m[i]) * inverse[i] - shift)
        high = max(high, shift - (bounds[1] - m[i]) * inverse[i])
    return -low, -high


@kernel
def _cut_run(
    row: Components,
    bounds: tuple[float, float],
    edges: Edges,
    sums: Integrals,
    run: tuple[int, int],
) -> None:
    """Replaces the integrals of a run of components by those within the bounds.

    With z the edges in sigmas, the integral of l - m is -s [phi], that of its square
    s^2 (mass - [z phi]).
    """
    start, end = run
    a, m, inverse = row.log_weights[start:end], row.means[start:end], row.inverse[start:end]
    s, e0, e1 = row.sigmas[start:end], edges.at_low[start:end], edges.at_high[start:end]
    low, high = bounds
    for i in range(m.size):
        z = (low - m[i]) * inverse[i]
        e0[i] = exp64(a[i] - 0.5 * z * z)
    for i in range(m.size):
        z = (high - m[i]) * inverse[i]
        e1[i] = exp64(a[i] - 0.5 * z * z)
    parts = Nearby(m, inverse, s, e0, e1)
    for power in range(3):
        _take_edges(parts, bounds, power * LN10, sums[power][start:end])
    mass = sums.mass[start:end]
    first, second = sums.log_first[start:end], sums.log_second[start:end]
    for i in range(m.size):
        first[i] = m[i] * mass[i] + s[i] * (e0[i] - e1[i]) / SQRT_2PI
    for i in range(m.size):
        z0, z1 = (low - m[i]) * inverse[i], (high - m[i]) * inverse[i]
        spread = s[i] * s[i] * (mass[i] + (z0 * e0[i] - z1 * e1[i]) / SQRT_2PI)
        second[i] = m[i] * (2.0 * first[i] - m[i] * mass[i]) + spread


@kernel
def _take_edges(parts: Nearby, bounds: tuple[float, float], tilt: float, out: FloatArray) -> None:
    """Turns each component's integral of R^power over all l into that over the range."""
    m, inverse, s, e0, e1 = parts
    low, high = Edge(bounds[0], 1.0, tilt), Edge(bounds[1], -1.0, tilt)
    to_low, to_high = _nearest(parts, bounds, tilt)
    # With its centre beyond one edge a component has little left that the other might take.
    if max(to_low, to_high) < _TOUCHED or min(to_low, to_high) < 0.0:
        _take_tails(parts, bounds, tilt, out)
    elif to_low < _TOUCHED:
        _take_tail((m, inverse, s, e0), low, out)
    elif to_high < _TOUCHED:
        _take_tail((m, inverse, s, e1), high, out)


@kernel
def _take_tails(parts: Nearby, bounds: tuple[float, float], tilt: float, out: FloatArray) -> None:
    """For both edges.

    The values at the edges are those of the plain Gaussian times R^j, so that the rounding of
    large exponents cancels in ratios of the powers.
    """
    low, high = bounds
    m, inverse, s, e0, e1 = parts
    low_factor, high_factor = exp64(tilt * low), exp64(tilt * high)
    for i in range(m.size):
        q = tilt * s[i]
        z0, z1 = (low - m[i]) * inverse[i] - q, (high - m[i]) * inverse[i] - q
        t0 = tail64(abs(z0)) * e0[i] * low_factor
        t1 = tail64(abs(z1)) * e1[i] * high_factor
        # With both edges on one side of the centre tail minus tail, else all minus both tails.
        sign0 = 1.0 if z0 >= 0.0 else -1.0
        sign1 = 1.0 if z1 <= 0.0 else -1.0
        whole = out[i] if sign0 + sign1 < 0.0 else 0.0
        out[i] = max(whole + sign0 * t0 + sign1 * t1, 0.0)


@kernel
def _take_tail(
    parts: tuple[FloatArray, FloatArray, FloatArray, FloatArray], edge: Edge, out: FloatArray
) -> None:
    """For one edge."""
    m, inverse, s, e = parts
    at, side, tilt = edge
    factor = exp64(tilt * at)
    for i in range(m.size):
        z = side * ((at - m[i]) * inverse[i] - tilt * s[i])
        tail = tail64(abs(z)) * e[i] * factor
        out[i] = tail if z >= 0.0 else out[i] - tail


_FAINT = -300.0  # log of the largest value of a network from which on it is scaled
_NEAR = 20.0  # sigmas outside the range at which a network is far from being so faint


@kernel
def moment_rows(
    block: FloatArray,
    moments: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    networks: int,
    out: FloatArray,
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
    sums = Integrals(wide[0], wide[1], wide[2], wide[3], wide[4])
    room = (wide[5], wide[6], wide[7])
    edges = Edges(wide[8], wide[9], wide[10], wide[11])
    tops, six = np.empty(networks), aligned(6, -(-networks // 8) * 8)
    n = networks
    averages = Averages(six[0][:n], six[1][:n], six[2][:n], six[3][:n], six[4][:n], six[5][:n])
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
def _shift(
    row: Components, at: tuple[float, float, float], tops: FloatArray, room: Room
) -> Components:
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
        return Components(a, means, inverse, s, weights)
    tops[:] = -np.inf
    for first in range(0, a.size - tops.size + 1, tops.size):
        _raise_tops(a[first:], m[first:], inverse[first:], (low, high), tops)
    if tops.min() > _FAINT:
        tops[:] = 0.0
        return Components(a, means, inverse, s, weights)
    for c in range(a.size):
        shifted[c] = a[c] - tops[c % tops.size]
    for c in range(a.size):
        scaled[c] = exp64(shifted[c])
    tops -= tops.max()
    return Components(shifted, means, inverse, s, scaled)


@kernel
def _all_within(row: Components, low: float, high: float, reach: float) -> bool:
    """Whether no component has its centre more than so many sigmas outside the range."""
    _, m, inverse, _, _ = row
    count = 0
    for c in range(m.size):
        count += int(max(low - m[c], m[c] - high) * inverse[c] > reach)
    return count == 0


@summing_kernel
def _raise_tops(
    a: FloatArray, m: FloatArray, inverse: FloatArray, bounds: tuple[float, float], tops: FloatArray
) -> None:
    low, high = bounds
    for s in range(tops.size):
        z = max(low - m[s], m[s] - high, 0.0) * inverse[s]
        tops[s] = max(tops[s], a[s] - 0.5 * z * z)


@kernel
def _whole(row: Components, sums: Integrals) -> None:
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
def _average(sums: Integrals, tops: FloatArray, averages: Averages, found: FloatArray) -> None:
    """Means of the averaged density; mean variance and variance of the means, for R and for l."""
    shares, inverse, means, squares, log_means, log_squares = averages
    add_components(sums.mass, shares)
    for s in range(inverse.size):
        inverse[s] = 1.0 / shares[s]
    _add(sums.first, inverse, means)
    _add(sums.second, inverse, squares)
    _add(sums.log_first, inverse, log_means)
    _add(sums.log_second, inverse, log_squares)
    if tops.min() < 0.0:
        for s in range(tops.size):
            shares[s] *= exp64(tops[s])
    found[0], found[5] = _means(shares, means, log_means)
    found[1], found[2] = _spread(means, squares)
    found[3], found[4] = _spread(log_means, log_squares)


@kernel
def _add(values: FloatArray, by: FloatArray, out: FloatArray) -> None:
    """Sums over the components of each network, times a number each."""
    add_components(values, out)
    for s in range(out.size):
        out[s] *= by[s]


@summing_kernel
def _means(shares: FloatArray, means: FloatArray, log_means: FloatArray) -> tuple[float, float]:
    """Of R and of l in the averaged density."""
    weight, first, second = 0.0, 0.0, 0.0
    for s in range(shares.size):
        weight += shares[s]
        first += shares[s] * means[s]
        second += shares[s] * log_means[s]
    return first / weight, second / weight


@summing_kernel
def _spread(means: FloatArray, squares: FloatArray) -> tuple[float, float]:
    """Mean variance, and variance of the means (1 / S)."""
    average, within, between = 0.0, 0.0, 0.0
    for s in range(means.size):
        average += means[s]
        within += max(squares[s] - means[s] * means[s], 0.0)
    average /= means.size
    for s in range(means.size):
        between += (means[s] - average) * (means[s] - average)
    return within / means.size, between / means.size
