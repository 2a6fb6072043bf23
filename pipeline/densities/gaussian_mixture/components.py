"""Mass, density and slope of a row's mixture, cut to its bounds; compiled."""

import numpy as np

from pipeline.densities.gaussian_mixture.records import (
    Components,
    CutRow,
    Gaussians,
    Gaussians32,
    Offsets,
    Offsets32,
    row_of,
)
from pipeline.numerics.arrays import Float32Array, FloatArray
from pipeline.numerics.compiled import kernel, summing_kernel
from pipeline.numerics.special import SQRT_2PI, centred32, exp32, exp64, tail32, tail64

FAR = 40.0  # sigmas from the centre at which a Gaussian is zero in float64

_F = np.float32

Room = tuple[FloatArray, FloatArray, FloatArray]
Five = tuple[np.float32, np.float32, np.float32, np.float32, np.float32]


@summing_kernel
def rough_moments(row: Components) -> tuple[float, float, float]:
    """Mean and standard deviation of l without cuts, and the sum of the weights."""
    _, m, _, s, weights = row
    weight, first, second = 0.0, 0.0, 0.0
    for c in range(m.size):
        weight += weights[c]
        first += weights[c] * m[c]
        second += weights[c] * (m[c] * m[c] + s[c] * s[c])
    mean = first / weight
    return mean, np.sqrt(max(second / weight - mean * mean, 0.0)), weight


@kernel
def moments_of_rows(block: FloatArray) -> FloatArray:
    """Rough moments of each row, [N, 3]."""
    moments = np.empty((len(block), 3))
    for i in range(len(block)):
        moments[i, 0], moments[i, 1], moments[i, 2] = rough_moments(row_of(block, i))
    return moments


@kernel
def largest_inside(row: Components, lower: float, upper: float) -> float:
    """Largest value of a - z^2 / 2 within the bounds, of all components."""
    a, m, inverse, _, _ = row
    top = -np.inf
    for c in range(a.size):
        z = max(lower - m[c], m[c] - upper, 0.0) * inverse[c]
        top = max(top, a[c] - 0.5 * z * z)
    return top


@kernel
def cut_row(row: Components, bounds: tuple[float, float], room: Room) -> CutRow:
    """Prepares the mass between lower and a point, for mass64 and mass32.

    Log weights are shifted so that the largest value within the bounds is one: nothing underflows
    however far the bounds lie in a tail. Of each component, the offsets are what is added to the
    tail function at points below its centre, and from what it is taken above; so tails are
    subtracted from tails and never one from one.

    Args:
        row: of a block.
        bounds: lower and upper, in l; may be infinite.
        room: where the shifted log weights and the offsets may be kept.
    """
    lower, upper = bounds
    shifted, above, below = room
    if lower == -np.inf and upper == np.inf:
        below[:] = 0.0
        whole = Gaussians(row.log_weights, row.means, row.inverse)
        total = sum_of(row.weights)
        return CutRow(whole, Offsets(row.weights, below), lower, upper, total, 0.0)
    start, end = finite_bounds(row, lower, upper)
    top = largest_inside(row, lower, upper)
    for c in range(shifted.size):
        shifted[c] = row.log_weights[c] - top
    parts, offsets = Gaussians(shifted, row.means, row.inverse), Offsets(above, below)
    _split(parts, offsets, lower)
    total = sum_of(above) if upper == np.inf else mass64(parts, offsets, end)[0]
    return CutRow(parts, offsets, start, end, total, top)


@kernel
def _split(parts: Gaussians, offsets: Offsets, lower: float) -> None:
    a, m, inverse = parts
    above, below = offsets
    if lower == -np.inf:
        below[:] = 0.0
        for c in range(a.size):
            above[c] = exp64(a[c])
        return
    # One array written per loop: with more, LLVM gives up on proving that none overlaps.
    for c in range(a.size):
        z = (lower - m[c]) * inverse[c]
        below[c] = -tail64(abs(z)) * exp64(a[c] - 0.5 * z * z)
    for c in range(a.size):
        # Factors instead of branches, into which LLVM would move the exponential.
        is_inside = 1.0 if lower < m[c] else 0.0
        above[c] = is_inside * exp64(a[c]) + (2.0 * is_inside - 1.0) * below[c]


@kernel
def finite_bounds(row: Components, lower: float, upper: float) -> tuple[float, float]:
    """Bounds with infinite ones replaced by points beyond which no component has any mass."""
    if lower > -np.inf and upper < np.inf:
        return lower, upper
    left, right, widest = _extent(row)
    start = lower if lower > -np.inf else min(left - FAR * widest, upper - 1.0)
    end = upper if upper < np.inf else max(right + FAR * widest, lower + 1.0)
    return start, end


@kernel
def _extent(row: Components) -> tuple[float, float, float]:
    """Lowest centre, highest centre and largest width."""
    _, m, _, s, _ = row
    left, right, widest = np.inf, -np.inf, -np.inf
    for c in range(m.size):
        left, right, widest = min(left, m[c]), max(right, m[c]), max(widest, s[c])
    return left, right, widest


@summing_kernel
def sum_of(values: FloatArray) -> float:
    """Of all values, in any order."""
    total = 0.0
    for c in range(values.size):
        total += values[c]
    return total


@summing_kernel
def mass64(parts: Gaussians, offsets: Offsets, x: float) -> tuple[float, float, float]:
    """Mass between lower and x, and the density and its slope at x, in the units of cut_row."""
    a, m, inverse = parts
    above, below = offsets
    mass, density, slope = 0.0, 0.0, 0.0
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        e = exp64(a[c] - 0.5 * z * z)
        tail = tail64(abs(z)) * e
        mass += above[c] - tail if z > 0.0 else below[c] + tail
        e *= inverse[c]
        density += e
        slope -= z * inverse[c] * e
    return mass, density / SQRT_2PI, slope / SQRT_2PI


@summing_kernel
def centred_mass32(parts: Gaussians32, weights: Float32Array, x: np.float32) -> float:
    """Mass below x less half of all, to 4e-7 of it; a third of the time of mass32."""
    _, m, inverse = parts
    mass = _F(0.0)
    for c in range(m.size):
        mass += weights[c] * centred32((x - m[c]) * inverse[c])
    return float(mass)


@kernel
def centred_masses32(
    parts: Gaussians32, weights: Float32Array, points: FloatArray, out: FloatArray
) -> None:
    """The same at several points, five in one pass over the components."""
    last = len(points) - 1
    for first in range(0, len(points), 5):
        x0, x1, x2 = points[first], points[min(first + 1, last)], points[min(first + 2, last)]
        x3, x4 = points[min(first + 3, last)], points[min(first + 4, last)]
        masses = _five_masses(parts, weights, (_F(x0), _F(x1), _F(x2), _F(x3), _F(x4)))
        for j in range(first, min(first + 5, last + 1)):
            out[j] = masses[j - first]


@summing_kernel
def _five_masses(parts: Gaussians32, weights: Float32Array, points: Five) -> Five:
    _, m, inverse = parts
    x0, x1, x2, x3, x4 = points
    f0, f1, f2, f3, f4 = _F(0.0), _F(0.0), _F(0.0), _F(0.0), _F(0.0)
    for c in range(m.size):
        f0 += weights[c] * centred32((x0 - m[c]) * inverse[c])
        f1 += weights[c] * centred32((x1 - m[c]) * inverse[c])
        f2 += weights[c] * centred32((x2 - m[c]) * inverse[c])
        f3 += weights[c] * centred32((x3 - m[c]) * inverse[c])
        f4 += weights[c] * centred32((x4 - m[c]) * inverse[c])
    return f0, f1, f2, f3, f4


@summing_kernel
def mass32(parts: Gaussians32, offsets: Offsets32, x: np.float32) -> tuple[float, float, float]:
    """What mass64 gives, in float32, to 3e-7 of the total weight."""
    a, m, inverse = parts
    above, below = offsets
    mass, density, slope = _F(0.0), _F(0.0), _F(0.0)
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        e = exp32(a[c] - _F(0.5) * z * z)
        tail = tail32(abs(z)) * e
        mass += above[c] - tail if z > _F(0.0) else below[c] + tail
        e *= inverse[c]
        density += e
        slope -= z * inverse[c] * e
    return float(mass), float(density) / SQRT_2PI, float(slope) / SQRT_2PI
