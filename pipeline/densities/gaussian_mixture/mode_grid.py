"""The grid on which the mode of a row's mixture is looked for; compiled, float32.

Units: positions relative to the middle of the range, log weights relative to the largest value of
a component within the range. A tilt t multiplies the density of l by exp(-t l): one grid serves
the density of l and that of R = 10^l.
"""

import numpy as np

from pipeline.densities.gaussian_mixture.records import (
    Components,
    Core,
    Extent,
    Grid,
    Intervals,
    Runs,
    Small,
    Tilted,
)
from pipeline.numerics.arrays import Float32Array
from pipeline.numerics.compiled import kernel, summing_kernel
from pipeline.numerics.special import copy_into, exp32

INTERVALS = 96

# A component adds at most its height to the density: peaks below these fractions of the highest
# move a maximum by less than the refinement starts from.
_HULL = 1e-6  # peaks below this fraction of the highest cannot move the maximum out of the hull
_WIDTH = 1e-2  # peaks above this fraction set the grid step
_NARROW = 1e-7  # narrower ones above this fraction are looked at interval by interval
_RUN = 16  # points from one exponential to the next
_F = np.float32
_LOWEST = _F(-np.inf)


@kernel
def shrink_row(row: Components, middle: float, small: Small) -> None:
    """A row in float32, with means relative to the middle."""
    a, m, inverse, s, _ = row
    copy_into(a, small.log_weights)
    copy_into(inverse, small.inverse)
    copy_into(s, small.sigmas)
    for c in range(a.size):
        small.means[c] = m[c] - middle


@kernel
def find_heights(small: Small, half: float, tilt: float, heights: Float32Array) -> float:
    """Each component's largest value within the range, tilted; returns the highest.

    What lies outside must not hide what lies inside, hence values within the range and not the
    peaks themselves.
    """
    top = _exponents(small, _F(half), _F(tilt), heights)
    return _exponentiate(small.inverse, _F(top), _F(np.exp(top)), heights)


@kernel
def _exponents(small: Small, half: np.float32, tilt: np.float32, out: Float32Array) -> float:
    a, m, inverse, s = small
    for c in range(a.size):
        shift = tilt * s[c]
        centre = m[c] - shift * s[c]
        z = max(-half - centre, centre - half, _F(0.0)) * inverse[c]
        out[c] = a[c] - tilt * m[c] + _F(0.5) * (shift * shift - z * z)
    return _largest(out)


@kernel
def _exponentiate(
    inverse: Float32Array, top: np.float32, scale: np.float32, heights: Float32Array
) -> float:
    for c in range(heights.size):
        heights[c] = scale * inverse[c] * exp32(heights[c] - top)
    return _largest(heights)


@kernel
def _largest(values: Float32Array) -> float:
    largest = _LOWEST
    for c in range(values.size):
        largest = max(largest, values[c])
    return float(largest)


@kernel
def find_extent(small: Small, half: float, tilted: tuple[Tilted, Tilted]) -> Extent:
    """The hull of the centres that count, and the largest 1 / s of two groups of components.

    Args:
        small: the components.
        half: half the length of the range.
        tilted: two tilts, the components' heights and the highest; what counts in one of them does.
    """
    _, m, inverse, s = small
    (tilt0, heights0, peak0), (tilt1, heights1, peak1) = tilted
    hull0, wide0, faint0 = _F(_HULL * peak0), _F(_WIDTH * peak0), _F(_NARROW * peak0)
    hull1, wide1, faint1 = _F(_HULL * peak1), _F(_WIDTH * peak1), _F(_NARROW * peak1)
    slope0, slope1, edge, nothing = _F(tilt0), _F(tilt1), _F(-half), _F(0.0)
    left, right, steepest, narrowest = _LOWEST, _LOWEST, _LOWEST, _LOWEST
    for c in range(m.size):
        height0, height1 = heights0[c], heights1[c]
        centre0, centre1 = m[c] - slope0 * s[c] * s[c], m[c] - slope1 * s[c] * s[c]
        is_in0, is_in1 = height0 > hull0, height1 > hull1
        left = max(left, -centre0 if is_in0 else edge, -centre1 if is_in1 else edge)
        right = max(right, centre0 if is_in0 else edge, centre1 if is_in1 else edge)
        steep = inverse[c] if (height0 > wide0) | (height1 > wide1) else nothing
        steepest = max(steepest, steep)
        narrow = inverse[c] if (height0 > faint0) | (height1 > faint1) else nothing
        narrowest = max(narrowest, narrow)
    return Extent(-float(left), float(right), float(steepest), float(narrowest))


@kernel
def choose_grid(extent: Extent, core: Core) -> tuple[Grid, bool]:
    """The even grid, and whether its step is at most half the width of all that can be seen.

    Such a fine one also covers the core, if it has the intervals for it.
    """
    left, right, steepest, narrowest = extent
    half, first, last = core
    margin = 0.25 / steepest  # components left out of the hull may pull a little
    left = min(max(left - margin, -half), half)
    right = max(min(right + margin, half), -half)
    if right <= left:  # all centres beyond one bound
        left, right = max(left - margin, -half), min(right + margin, half)
    first, last = min(first, left), max(last, right)
    if 2.0 * (last - first) * narrowest <= INTERVALS:
        left, right = first, last
    is_fine = 2.0 * (right - left) * narrowest <= INTERVALS
    wanted = 2.0 * (right - left) * (narrowest if is_fine else steepest)
    size = int(min(max(np.ceil(wanted), 2.0), float(INTERVALS)))
    return Grid(left, right, (right - left) / size, size), is_fine


@summing_kernel
def density(small: Small, x: np.float32) -> np.float32:
    """Sum over components of exp(a - z^2 / 2) / s, without 1 / sqrt(2 pi)."""
    a, m, inverse, _ = small
    total = _F(0.0)
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        total += inverse[c] * exp32(a[c] - _F(0.5) * z * z)
    return total


@kernel
def fill_densities(small: Small, grid: Grid, runs: Runs, values: Float32Array) -> None:
    """Density at the points of a fine grid, by recurrence.

    From point to point a Gaussian is multiplied by a ratio, and the ratio by exp(-h^2 / s^2). The
    exponentials are taken anew every few points: a component that is zero in float32 at the first
    stays so, and is by then still four sigmas from its centre.
    """
    left, _, step, size = grid
    _start_ratios(small, _F(step), runs.decays)
    for first in range(0, size + 1, _RUN):
        _start_run(small, _F(left + first * step), _F(step), runs)
        for i in range(first, min(first + _RUN, size + 1), 4):
            values[i], values[i + 1], values[i + 2], values[i + 3] = _advance(runs)


@kernel
def _start_ratios(small: Small, step: np.float32, out: Float32Array) -> None:
    inverse = small.inverse
    for c in range(out.size):
        out[c] = exp32(-((step * inverse[c]) ** 2))


@kernel
def _start_run(small: Small, x: np.float32, step: np.float32, runs: Runs) -> None:
    a, m, inverse, _ = small
    values, ratios, _ = runs
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        exponent = a[c] - _F(0.5) * z * z
        values[c] = inverse[c] * exp32(exponent) * (_F(1.0) if exponent > _F(-87.0) else _F(0.0))
    for c in range(a.size):
        width = step * inverse[c]
        ratios[c] = exp32(-width * ((x - m[c]) * inverse[c] + _F(0.5) * width))


@summing_kernel
def _advance(runs: Runs) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """The sums at four points; the runs move on to the fifth."""
    values, ratios, decays = runs
    f0, f1, f2, f3 = _F(0.0), _F(0.0), _F(0.0), _F(0.0)
    for c in range(values.size):
        ratio, decay = ratios[c], decays[c]
        v0 = values[c]
        v1 = v0 * ratio
        ratio *= decay
        v2 = v1 * ratio
        ratio *= decay
        v3 = v2 * ratio
        ratio *= decay
        values[c] = v3 * ratio
        ratios[c] = ratio * decay
        f0 += v0
        f1 += v1
        f2 += v2
        f3 += v3
    return f0, f1, f2, f3


@kernel
def evaluate_densities(small: Small, grid: Grid, values: Float32Array) -> None:
    """Density at the points of any grid."""
    left, _, step, size = grid
    for i in range(size + 1):
        values[i] = density(small, _F(left + i * step))


@kernel
def tilt_densities(values: Float32Array, grid: Grid, tilt: float, out: Float32Array) -> float:
    """Density at the points times exp(-tilt x); returns the largest."""
    left, step, points = _F(tilt * grid.first), _F(tilt * grid.step), grid.size + 1
    for i in range(points):
        out[i] = values[i] * exp32(-(left + _F(i) * step))
    return _largest(out[:points])


@kernel
def mark_narrow(
    small: Small, tilt: float, heights: Float32Array, grid: Grid, intervals: Intervals
) -> None:
    """What components too narrow for the grid may add to each interval, and their largest 1 / s."""
    _, m, inverse, s = small
    left, _, step, count = grid
    intervals.added[:count] = 0.0
    intervals.steepest[:count] = 0.0
    faint = _NARROW * heights.max()
    for c in range(heights.size):
        if inverse[c] * step <= 0.5 * (1.0 + 1e-6) or heights[c] < faint:
            continue
        centre, reach = m[c] - tilt * s[c] * s[c], 5.5 * s[c]
        first = int(min(max((centre - reach - left) / step, 0.0), float(count)))
        last = int(min(max((centre + reach - left) / step, -1.0), count - 1.0))
        for i in range(first, last + 1):
            intervals.added[i] += heights[c]
            intervals.steepest[i] = max(intervals.steepest[i], inverse[c])
