"""Moments of R and of l = log10 R within a range, network by network; compiled.

The variances come from differences of sums: float64 throughout, tails of Gaussians accurate
relative to themselves, and R in units near its mean.
"""

import numpy as np

from pipeline.compiled import kernel, summing_kernel
from pipeline.fastmath import (
    LN10,
    SQRT_2PI,
    Parts,
    Vector,
    exp64,
    exponent_inside,
    finite_bounds,
    tail64,
    take_row,
)

Sums = tuple[Vector, Vector, Vector, Vector, Vector]  # integrals of 1, R, R^2, l, l^2


@summing_kernel
def rough_moments(parts: Parts) -> tuple[float, float, float]:
    """Mean and standard deviation of l without cuts, and the sum of the weights."""
    a, m, inverse = parts
    weight, first, second = 0.0, 0.0, 0.0
    for c in range(a.size):
        w, s = exp64(a[c]), 1.0 / inverse[c]
        weight += w
        first += w * m[c]
        second += w * (m[c] * m[c] + s * s)
    mean = first / weight
    return mean, np.sqrt(max(second / weight - mean * mean, 0.0)), weight


@kernel
def moment_rows(block: Vector, bounds: tuple[Vector, Vector], tops: Vector, out: Vector) -> None:
    """Moments of R = 10^l and of l within the bounds of each row.

    Args:
        block: [N, 3, S * K], as from fastmath.load_rows.
        bounds: low [N] and high [N], in l.
        tops: [S], scratch; its length tells the number of networks.
        out: [6, N]; gets the mean of the averaged density, the mean over networks of the variance
            and the variance over networks (1 / S) of the mean, for R and then for l. Rows that are
            NaN, or whose range is empty, are left as they are.
    """
    num_rows, _, size = block.shape
    networks = tops.size
    parts = (np.empty(size), np.empty(size), np.empty(size))
    sums = (np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    means = np.empty((2, networks))
    for row in range(num_rows):
        low, high = bounds[0][row], bounds[1][row]
        if not (take_row(block, row, parts) and low < high):
            continue
        low, high = finite_bounds(parts, low, high)
        reference = min(max(rough_moments(parts)[0], low), high)
        _shift_networks(parts, low, high, tops)
        low, high = low - reference, high - reference
        for c in range(size):
            parts[1][c] -= reference
        for power in range(3):
            _powers(parts, low, high, float(power), sums[power])
        _logs(parts, low, high, (sums[0], sums[3], sums[4]))
        found = out[:, row]
        _average(sums, tops, means, found)
        scale = 10.0**reference
        found[0] *= scale
        found[1:3] *= scale * scale


@kernel
def _shift_networks(parts: Parts, low: float, high: float, tops: Vector) -> None:
    """Shifts the log weights of each network so that its largest value within the range is one.

    A network all of whose mass is far outside would else underflow. The shifts, relative to the
    largest of the row, go to tops.
    """
    a, m, inverse = parts
    components = a.size // tops.size
    for s in range(tops.size):
        top = -np.inf
        for c in range(s * components, (s + 1) * components):
            top = max(top, exponent_inside(a[c], m[c], inverse[c], low, high))
        tops[s] = top
        for c in range(s * components, (s + 1) * components):
            a[c] -= top
    tops -= tops.max()


@kernel
def _powers(parts: Parts, low: float, high: float, power: float, out: Vector) -> None:
    """Per component, the integral of R^power over the range.

    R^j times a Gaussian is a Gaussian about m + j L s^2. Its values at the edges are those of the
    plain one times R^j, so that the rounding of large exponents cancels in ratios of the powers.
    """
    a, m, inverse = parts
    tilt = power * LN10
    low_factor, high_factor = exp64(tilt * low), exp64(tilt * high)
    for c in range(a.size):
        q = tilt / inverse[c]
        z0, z1 = (low - m[c]) * inverse[c], (high - m[c]) * inverse[c]
        e0 = exp64(a[c] - 0.5 * z0 * z0) * low_factor
        e1 = exp64(a[c] - 0.5 * z1 * z1) * high_factor
        z0, z1 = z0 - q, z1 - q
        t0, t1 = tail64(abs(z0)) * e0, tail64(abs(z1)) * e1
        full = exp64(a[c] + tilt * m[c] + 0.5 * q * q)
        # With both edges on one side of the centre tail minus tail, else all minus both tails;
        # in factors instead of branches, which would not become vector instructions.
        sign0 = 1.0 if z0 >= 0.0 else -1.0
        sign1 = 1.0 if z1 <= 0.0 else -1.0
        middle = 1.0 if sign0 + sign1 < 0.0 else 0.0
        out[c] = max(middle * full + sign0 * t0 + sign1 * t1, 0.0)


@kernel
def _logs(parts: Parts, low: float, high: float, sums: Parts) -> None:
    """Per component, the integrals of l and l^2 over the range; the first of sums is that of 1.

    With z the edges in sigmas, the integral of l - m is -s [phi], that of its square
    s^2 (mass - [z phi]).
    """
    mass, first, second = sums
    a, m, inverse = parts
    for c in range(a.size):
        z0, z1 = (low - m[c]) * inverse[c], (high - m[c]) * inverse[c]
        e0, e1 = exp64(a[c] - 0.5 * z0 * z0), exp64(a[c] - 0.5 * z1 * z1)
        s = 1.0 / inverse[c]
        edge = s * (e0 - e1) / SQRT_2PI
        spread = s * s * (mass[c] + (z0 * e0 - z1 * e1) / SQRT_2PI)
        first[c] = m[c] * mass[c] + edge
        second[c] = m[c] * (m[c] * mass[c] + 2.0 * edge) + spread


@kernel
def _average(sums: Sums, tops: Vector, means: Vector, found: Vector) -> None:
    """Mean of the averaged density; mean variance and variance of the means, for R and for l."""
    networks = tops.size
    components = sums[0].size // networks
    found[:] = 0.0
    weight = 0.0
    for s in range(networks):
        m0, m1, m2, l1, l2 = 0.0, 0.0, 0.0, 0.0, 0.0
        for c in range(s * components, (s + 1) * components):
            m0 += sums[0][c]
            m1 += sums[1][c]
            m2 += sums[2][c]
            l1 += sums[3][c]
            l2 += sums[4][c]
        means[0, s], means[1, s] = m1 / m0, l1 / m0
        found[1] += max(m2 / m0 - means[0, s] ** 2, 0.0) / networks
        found[4] += max(l2 / m0 - means[1, s] ** 2, 0.0) / networks
        share = exp64(tops[s])
        weight += share * m0
        found[0] += share * m1
    found[0] /= weight
    found[2] = np.var(means[0])
    found[5] = np.var(means[1])
