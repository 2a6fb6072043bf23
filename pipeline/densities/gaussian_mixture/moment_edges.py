"""Integrals of Gaussians cut at the edges of a range; compiled, float64."""

from pipeline.numerics.compiled import kernel
from pipeline.numerics.special import (
    LN10,
    LOWEST64,
    SQRT_2PI,
    Row,
    Vector,
    exp64,
    key64,
    tail64,
    value64,
)

Sums = tuple[Vector, Vector, Vector, Vector, Vector]  # integrals of 1, R, R^2, l, l^2
Edge = tuple[float, float, float]  # where, 1 for low and -1 for high, log of the factor per l
Edges = tuple[Vector, Vector, Vector, Vector]  # low: sigmas to it, values at it; at high; to high

_TOUCHED = 7.0  # sigmas from an edge; the mass beyond is 1e-12 of the component
_LANES = 8  # of a vector instruction


@kernel
def cut_components(row: Row, bounds: tuple[float, float], edges: Edges, sums: Sums) -> None:
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
def _nearest(parts: Sums, bounds: tuple[float, float], tilt: float) -> tuple[float, float]:
    """Smallest distances in sigmas of any component, times R to some power, from both edges."""
    m, inverse, s, _, _ = parts
    low, high = LOWEST64, LOWEST64
    for i in range(m.size):
        shift = tilt * s[i]
        low = max(low, key64((bounds[0] - m[i]) * inverse[i] - shift))
        high = max(high, key64(shift - (bounds[1] - m[i]) * inverse[i]))
    return -value64(low), -value64(high)


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
    to_low, to_high = _nearest(parts, bounds, tilt)
    # With its centre beyond one edge a component has little left that the other might take.
    if max(to_low, to_high) < _TOUCHED or min(to_low, to_high) < 0.0:
        _take_tails(parts, bounds, tilt, out)
    elif to_low < _TOUCHED:
        _take_tail((m, inverse, s, e0), low, out)
    elif to_high < _TOUCHED:
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
