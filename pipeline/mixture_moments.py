"""Moments of R and of l = log10 R within a range, network by network; compiled.

The variances come from differences of sums: float64 throughout, tails of Gaussians accurate
relative to themselves, and R in units near its mean. Most components lie well within the range:
only those that an edge touches pay for their tails.
"""

import numpy as np

from pipeline.compiled import kernel, summing_kernel
from pipeline.fastmath import LN10, SQRT_2PI, Row, Vector, copy_into, exp64, tail64
from pipeline.masses import Room, finite_bounds, rough_moments, row_of

Edge = tuple[float, float, float]  # where, 1 for low and -1 for high, log of the factor per l
Edges = tuple[Vector, Vector, Vector, Vector]  # low: sigmas to it, values at it; at high; to high
Sums = tuple[Vector, Vector, Vector, Vector, Vector]  # integrals of 1, R, R^2, l, l^2

_TOUCHED = 7.0  # sigmas from an edge; the mass beyond is 1e-12 of the component
_LANES = 8  # of a vector instruction
_FAINT = -300.0  # log of the largest value of a network from which on it is scaled


@kernel
def moment_rows(block: Vector, bounds: tuple[Vector, Vector], networks: int, out: Vector) -> None:
    """Moments of R = 10^l and of l within the bounds of each row.

    Args:
        block: [N, 5, C], as from fastmath.load_rows.
        bounds: low [N] and high [N], in l.
        networks: number of networks S.
        out: [5, N]; gets the mean of R in the averaged density, then for R and for l the mean over
            networks of the variance and the variance over networks (1 / S) of the mean. Rows that
            are NaN, or whose range is empty, are left as they are.
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
        _cut(row, (low, high), edges, sums)
        _average(sums, tops, averages, out[:, i])
        scale = 10.0**reference
        out[0, i] *= scale
        out[1, i] *= scale * scale
        out[2, i] *= scale * scale


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
def _cut(row: Row, bounds: tuple[float, float], edges: Edges, sums: Sums) -> None:
    """Cuts the components that an edge touches, with or without R or R^2 as a factor.

    By runs of whole vectors: those of one kind, side by side, often share their fate.
    """
    _, m, inverse, s, _ = row
    low, high = bounds
    below, above = edges[0], edges[3]
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
def _any_below(values: Vector, limit: float) -> bool:
    count = 0
    for c in range(values.size):
        count += int(values[c] < limit)
    return count > 0


@kernel
def _is_near(parts: Sums, edge: Edge) -> bool:
    """Whether any component, times R to some power, is touched by an edge."""
    m, inverse, s, _, _ = parts
    at, side, tilt = edge
    count = 0
    for i in range(m.size):
        count += int(side * ((m[i] - at) * inverse[i] + tilt * s[i]) < _TOUCHED)
    return count > 0


@kernel
def _cut_run(
    row: Row, bounds: tuple[float, float], edges: Edges, sums: Sums, run: tuple[int, int]
) -> None:
    """Replaces the integrals of a run of components by those within the bounds.

    With z the edges in sigmas, the integral of l - m is -s [phi], that of its square
    s^2 (mass - [z phi]).
    """
    start, end = run
    a, m, inverse = row[0][start:end], row[1][start:end], row[2][start:end]
    s, e0, e1 = row[3][start:end], edges[1][start:end], edges[2][start:end]
    low, high = bounds
    for i in range(m.size):
        z = (low - m[i]) * inverse[i]
        e0[i] = exp64(a[i] - 0.5 * z * z)
    for i in range(m.size):
        z = (high - m[i]) * inverse[i]
        e1[i] = exp64(a[i] - 0.5 * z * z)
    parts = (m, inverse, s, e0, e1)
    for power in range(3):
        _take_edges(parts, bounds, power * LN10, sums[power][start:end])
    mass, first, second = sums[0][start:end], sums[3][start:end], sums[4][start:end]
    for i in range(m.size):
        first[i] = m[i] * mass[i] + s[i] * (e0[i] - e1[i]) / SQRT_2PI
    for i in range(m.size):
        z0, z1 = (low - m[i]) * inverse[i], (high - m[i]) * inverse[i]
        spread = s[i] * s[i] * (mass[i] + (z0 * e0[i] - z1 * e1[i]) / SQRT_2PI)
        second[i] = m[i] * (2.0 * first[i] - m[i] * mass[i]) + spread


@kernel
def _take_edges(parts: Sums, bounds: tuple[float, float], tilt: float, out: Vector) -> None:
    """Turns each component's integral of R^power over all l into that over the range."""
    m, inverse, s, e0, e1 = parts
    low, high = (bounds[0], 1.0, tilt), (bounds[1], -1.0, tilt)
    is_low, is_high = _is_near(parts, low), _is_near(parts, high)
    if is_low and is_high:
        _take_tails(parts, bounds, tilt, out)
    elif is_low:
        _take_tail((m, inverse, s, e0), low, out)
    elif is_high:
        _take_tail((m, inverse, s, e1), high, out)


@kernel
def _take_tails(parts: Sums, bounds: tuple[float, float], tilt: float, out: Vector) -> None:
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
def _take_tail(parts: tuple[Vector, Vector, Vector, Vector], edge: Edge, out: Vector) -> None:
    """For one edge."""
    m, inverse, s, e = parts
    at, side, tilt = edge
    factor = exp64(tilt * at)
    for i in range(m.size):
        z = side * ((at - m[i]) * inverse[i] - tilt * s[i])
        tail = tail64(abs(z)) * e[i] * factor
        out[i] = tail if z >= 0.0 else out[i] - tail


@kernel
def _average(sums: Sums, tops: Vector, averages: Sums, found: Vector) -> None:
    """Mean of the averaged density; mean variance and variance of the means, for R and for l."""
    for j in range(5):
        _add_components(sums[j], averages[j])
    _divide(averages)
    shares, means, squares, log_means, log_squares = averages
    for s in range(tops.size):
        shares[s] *= exp64(tops[s])
    found[0] = _mean(means, shares)
    found[1], found[2] = _spread(means, squares)
    found[3], found[4] = _spread(log_means, log_squares)


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
