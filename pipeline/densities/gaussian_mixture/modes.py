"""Global maximum of a Gaussian mixture within a range, found row by row; compiled.

Method: an even grid over the hull of the components that can hold the maximum, with the step half
the smallest width that counts; intervals in which still narrower components could beat the best
value are divided further; each grid maximum that could be the highest is refined by a bracketed
Halley iteration on the derivative of the logarithm. The grid is float32, the refinement float64.

Why the grid is enough: (log f)'' >= -1 / s^2 for a mixture whose smallest width is s, so that a
grid of step s / 2 has a point with f >= exp(-1/32) f_max = 0.969 f_max next to every maximum.

The search ends with the highest of the peaks that the grid has shown, refined in float64.
"""

import numpy as np

from pipeline.densities.gaussian_mixture.components import largest_inside
from pipeline.densities.gaussian_mixture.mode_grid import (
    INTERVALS,
    choose_grid,
    density,
    evaluate_densities,
    fill_densities,
    find_extent,
    find_heights,
    mark_narrow,
    shrink_row,
    tilt_densities,
)
from pipeline.densities.gaussian_mixture.records import (
    Components,
    Core,
    Frame,
    Gaussians,
    Grid,
    Intervals,
    Runs,
    Sketches,
    Small,
    Tilted,
    row_of,
)
from pipeline.numerics.arrays import BoolArray, Float32Array, FloatArray
from pipeline.numerics.compiled import kernel, summing_kernel
from pipeline.numerics.special import LN10, aligned, aligned32, exp64

KEPT = 0.94  # of the best value; below 0.969, see modes, by what float32 may lose

_BENT = 0.05  # second difference of a logarithm; a fifth of that of one Gaussian
_CLOSE = 3e-7  # error in l at which the refinement ends


@kernel
def best_of(parts: Gaussians, frame: Frame, tilt: float, found: FloatArray) -> float:
    """The highest refined maximum; the leftmost of equals, whatever the order of summation."""
    threshold = KEPT * found[:, 4].max()
    mode, highest = np.nan, 0.0
    for i in range(len(found)):
        if found[i, 4] < threshold:
            continue
        x = _refine(parts, frame, tilt, found[i])
        value = 1.0
        if len(found) > 1:
            value = _slopes(parts, x)[0] * np.exp(-tilt * (x - frame.middle))
        if value > highest * (1.0 + 1e-9):
            mode, highest = x, value
    return mode


@kernel
def _refine(parts: Gaussians, frame: Frame, tilt: float, peak: FloatArray) -> float:
    """The maximum about a peak of the grid, or an end of its bracket that is the maximum.

    Halley's iteration for the zero of (log f)' - tilt, within the bracket. It ends as soon as the
    next move would be small, judged by the size of this one and by how far it is from Newton's:
    where the top is flat convergence is slow.
    """
    left, x, right = _on_axis(peak[0], frame), _on_axis(peak[1], frame), _on_axis(peak[2], frame)
    is_end = x in (left, right)
    is_left = x == left
    width = right - left  # at most a standard deviation of the narrowest component
    if not is_end:
        x = _summit(peak, x, right - x)
    for _ in range(100):
        value, first, second, third = _slopes(parts, x)
        first, second, third = first / value, second / value, third / value
        slope = first - tilt
        if is_end and (slope <= 0.0 if is_left else slope >= 0.0):
            return x
        is_end = False
        if slope > 0.0:
            left = x
        else:
            right = x
        bend = second - first * first
        twist = third - 3.0 * second * first + 2.0 * first**3
        ratio = 0.5 * slope * twist / (bend * bend)
        target = x - slope / bend / (1.0 - ratio) if bend < 0.0 and ratio < 0.5 else np.nan
        error = ratio * ratio + ((target - x) / width) ** 2
        if not left <= target <= right:
            target, error = 0.5 * (left + right), 1.0
        move = abs(target - x)
        x = target
        if move * min(error, 1.0) < _CLOSE:
            break
    return x


@kernel
def _on_axis(x: float, frame: Frame) -> float:
    """A point of the grid in l; the bounds themselves exactly."""
    low, high, middle = frame
    half = 0.5 * (high - low)
    if x == -half:
        return low
    return high if x == half else min(max(middle + x, low), high)


@kernel
def _summit(peak: FloatArray, x: float, step: float) -> float:
    """Summit of the parabola through the logarithms at three points an even step apart.

    The middle point itself where the top is so flat that the summit may be a dip between two peaks.
    """
    before, after = np.log(peak[4] / peak[3]), np.log(peak[4] / peak[5])
    if not _BENT < before + after < np.inf:
        return x
    return float(x + 0.5 * step * (before - after) / (before + after))


@summing_kernel
def _slopes(parts: Gaussians, x: float) -> tuple[float, float, float, float]:
    """Sum of exp(a - z^2 / 2) / s in float64 with its first three derivatives."""
    a, m, inverse = parts
    value, first, second, third = 0.0, 0.0, 0.0, 0.0
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        square = z * z
        term = inverse[c] * exp64(a[c] - 0.5 * square)
        value += term
        term *= inverse[c]
        first -= z * term
        term *= inverse[c]
        second += (square - 1.0) * term
        third -= z * (square - 3.0) * inverse[c] * term
    return value, first, second, third


TILTS = (0.0, LN10)  # of the density of l and of that of R = 10^l, see mode_grid

# Standard deviations about the mean that the grid covers, for the sake of the quantiles: the outer
# ones, 0.025 and 0.975, are at 1.96 of a Gaussian and farther out of what has tails.
_REACH = 2.6
_SKEWED = 1.4  # above the mean more: the response has its long tail there
_SHARED = 24.0  # length of the range in l up to which float32 holds the densities of l and of R
# Log of the largest value within the range, below which float32 no longer tells values apart. All
# components are then a thousand sigmas away, and so is the maximum from being inside.
_FARTHEST = -1e6
_F = np.float32

Found = tuple[FloatArray, BoolArray]


@kernel
def mode_rows(
    block: FloatArray, moments: FloatArray, bounds: tuple[FloatArray, FloatArray], out: Found
) -> Sketches:
    """Most probable l = log10 R of each row within its bounds, of the densities of l and of R.

    The density of R has its maximum where p(l) 10^-l has.

    Args:
        block: of blocks.blocks_of.
        moments: [N, 3], of moments_of_rows.
        bounds: low [N] and high [N], in l.
        out: l [2, N], and whether it is one of the bounds [2, N]; left as they are in rows that
            are NaN or whose range is empty.

    Returns:
        What the grids have seen of the densities of l, for the search of quantiles.
    """
    sketches = Sketches(np.zeros((len(block), 4)), np.empty((len(block), INTERVALS + 8), _F))
    rows = (block, moments, bounds)
    _search_rows(rows, (0.0, _SHARED), (0, 2), out, sketches)
    if np.any(bounds[1] - bounds[0] > _SHARED):
        _search_rows(rows, (_SHARED, np.inf), (1, 2), out, sketches)
        _search_rows(rows, (_SHARED, np.inf), (0, 1), out, sketches)
    return sketches


@kernel
def _search_rows(
    rows: tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray]],
    lengths: tuple[float, float],
    which: tuple[int, int],
    out: Found,
    sketches: Sketches,
) -> None:
    """The modes of the densities of some tilts from one grid a row.

    Args:
        rows: block, moments and bounds.
        lengths: of the ranges of rows that are looked at: above the first, up to the second.
        which: first of TILTS, and one past the last.
        out: see mode_rows.
        sketches: see there.
    """
    block, moments, bounds = rows
    num_rows, _, size = block.shape
    tilts = np.array(TILTS)[which[0] : which[1]]
    wide, short = aligned(2, size), aligned32(8 + tilts.size, size)
    small = Small(short[0], short[1], short[2], short[3])
    runs = Runs(short[4], short[5], short[6])
    a, centres, peaks, heights = wide[0], wide[1], np.empty(tilts.size), short[8:]
    intervals = Intervals(
        np.empty(INTERVALS + 1, _F), np.empty(INTERVALS, _F), np.empty(INTERVALS, _F)
    )
    found = np.empty((2 * size + 8, 6))
    for i in range(num_rows):
        low, high = float(bounds[0][i]), float(bounds[1][i])
        if np.isnan(block[i, 0, 0]) or not lengths[0] < high - low <= lengths[1]:
            continue
        row, values = row_of(block, i), sketches.values[i]
        top, m = _tilt(row, tilts[0], (low, high), (a, centres))
        if not top > _FARTHEST:
            mode = _nearer_bound(row, moments[i, 0], (low, high))
            out[0][which[0] : which[1], i], out[1][which[0] : which[1], i] = mode, True
            continue
        frame = Frame(low, high, 0.5 * (low + high))
        shrink_row(Components(a, m, row.inverse, row.sigmas, row.weights), frame.middle, small)
        core = _core((moments[i, 0], moments[i, 1]), frame)
        grid, is_fine = _place_grid(small, core, tilts, heights, peaks)
        _draw((small, runs), (grid, is_fine), (frame.middle, top), (sketches.grids[i], values))
        for j in range(tilts.size):
            tilt = tilts[j] - tilts[0]
            view = (grid, is_fine, tilt, peaks[j], 0.5 * (high - low))
            count = _find_peaks(small, view, heights[j], values, intervals, found)
            mode = best_of(Gaussians(a, m, row.inverse), frame, tilt, found[:count])
            out[0][which[0] + j, i] = mode
            out[1][which[0] + j, i] = mode in (low, high)


@kernel
def _nearer_bound(row: Components, centre: float, bounds: tuple[float, float]) -> float:
    """The one with the higher density; if they are too far away to tell, the mean's side."""
    low, high = bounds
    at_low, at_high = largest_inside(row, low, low), largest_inside(row, high, high)
    is_low = at_low > at_high or (at_low == at_high and centre < low)
    return low if is_low else high


@kernel
def _find_peaks(
    small: Small,
    view: tuple[Grid, bool, float, float, float],
    heights: Float32Array,
    values: Float32Array,
    intervals: Intervals,
    found: FloatArray,
) -> int:
    """Notes what may be the highest peak of the tilted density; how many rows of found are filled.

    Args:
        small: the components.
        view: the grid, whether it is fine, the tilt, the highest height, half the range's length.
        heights: of the components, tilted.
        values: densities at the points of the grid.
        intervals: room.
        found: see _scan.
    """
    grid, is_fine, tilt, peak, half = view
    best = max(peak, tilt_densities(values, grid, tilt, intervals.values))
    if is_fine and _find_one(grid, intervals.values, best, found):
        return 1
    intervals.added[: grid.size] = 0.0
    if not is_fine:
        mark_narrow(small, tilt, heights, grid, intervals)
    _mark_bounds(grid, intervals, best, half)
    return _scan(small, tilt, grid, intervals, best, found)


@kernel
def _tilt(
    row: Components, tilt: float, bounds: tuple[float, float], out: tuple[FloatArray, FloatArray]
) -> tuple[float, FloatArray]:
    """Log weights and means of p(l) exp(-tilt l), the largest value within the bounds being one.

    Returns:
        The log of that value before, and the means.
    """
    a, m, inverse, s, weights = row
    if tilt == 0.0:
        top = largest_inside(row, *bounds)
        for c in range(a.size):
            out[0][c] = a[c] - top
        return top, m
    for c in range(a.size):
        out[0][c] = a[c] - tilt * m[c] + 0.5 * (tilt * s[c]) * (tilt * s[c])
    for c in range(a.size):
        out[1][c] = m[c] - tilt * s[c] * s[c]
    top = largest_inside(Components(out[0], out[1], inverse, s, weights), *bounds)
    for c in range(a.size):
        out[0][c] -= top
    return top, out[1]


@kernel
def _core(moments: tuple[float, float], frame: Frame) -> Core:
    """Where most of the mass is, from the mean and standard deviation of l."""
    low, high, middle = frame
    centre, spread = moments
    half, reach = 0.5 * (high - low), _REACH * spread
    left = min(max(centre - reach - middle, -half), half)
    return Core(half, left, max(min(centre + _SKEWED * reach - middle, half), left))


@kernel
def _draw(
    rows: tuple[Small, Runs],
    placed: tuple[Grid, bool],
    of_row: tuple[float, float],
    sketch: tuple[FloatArray, Float32Array],
) -> None:
    """The densities at the points, and what makes densities of l of them.

    Args:
        rows: the components, and room.
        placed: the grid, and whether it is fine.
        of_row: middle of the range, and the log of what the densities were divided by.
        sketch: see Sketches.
    """
    (small, runs), (grid, is_fine), (middle, top), (scale, values) = rows, placed, of_row, sketch
    left, _, step, size = grid
    if is_fine:
        fill_densities(small, grid, runs, values)
        scale[0], scale[1], scale[2], scale[3] = middle + left, step, size, np.exp(top)
    else:
        evaluate_densities(small, grid, values)
        scale[2] = 0.0


@kernel
def _place_grid(
    small: Small,
    core: Core,
    tilts: FloatArray,
    heights: Float32Array,
    peaks: FloatArray,
) -> tuple[Grid, bool]:
    """One grid for all tilts; heights of the components and their maxima go to the last two."""
    half, last = core.half, tilts.size - 1
    for j in range(tilts.size):
        peaks[j] = find_heights(small, half, tilts[j] - tilts[0], heights[j])
    first_and_last = (
        Tilted(0.0, heights[0], peaks[0]),
        Tilted(tilts[last] - tilts[0], heights[last], peaks[last]),
    )
    return choose_grid(find_extent(small, half, first_and_last), core)


@kernel
def _mark_bounds(grid: Grid, intervals: Intervals, best: float, half: float) -> None:
    """Has the first or last interval divided where a bound itself may be the maximum.

    Between a bound from which the density falls and a maximum inside there need not be a step.
    """
    left, right, step, count = grid
    values, added, steepest = intervals
    for is_bound, point, at in ((left == -half, 0, 0), (right == half, count, count - 1)):
        if is_bound and values[point] > KEPT * best:
            steepest[at] = max(steepest[at], 8.0 / step) if added[at] > 0.0 else 8.0 / step
            added[at] += best


@kernel
def _find_one(grid: Grid, values: Float32Array, best: float, found: FloatArray) -> bool:
    """Notes the peak if the points show but one that counts, well inside: the common case."""
    left, _, step, size = grid
    limit = _F(KEPT * best)
    count, where = 0, 0
    for i in range(1, size):
        is_peak = (values[i] >= values[i - 1]) & (values[i] > values[i + 1]) & (values[i] > limit)
        count += int(is_peak)
        where += i * int(is_peak)
    if count != 1 or values[0] > limit or values[size] > limit:
        return False
    for i in range(3):
        found[0, i] = left + (where + i - 1) * step
        found[0, i + 3] = values[where + i - 1]
    return True


@kernel
def _scan(
    small: Small, tilt: float, grid: Grid, intervals: Intervals, best: float, found: FloatArray
) -> int:
    """Walks over the grid, in finer steps where a narrow peak could win, and notes the maxima.

    Returns:
        How many rows of found are filled: neighbour before, point, neighbour after, and the values
        there. A mixture has no more maxima than components, so that found is never too short.
    """
    left, right, step, num_intervals = grid
    values, added, steepest = intervals
    x0, x1, f0, f1 = left, left, -1.0, float(values[0])
    count = 0
    for i in range(num_intervals + 1):
        steps = 1
        if i < num_intervals and added[i] > 0.0:
            bound = 1.04 * max(values[i], values[i + 1]) + added[i]
            if bound > KEPT * best:
                steps = int(min(np.ceil(2.0 * step * steepest[i]), 4096.0))
        for j in range(1, steps + 1):
            x2, f2 = right, -1.0  # one point past the last closes the walk
            if j < steps:
                x2 = left + (i + j / steps) * step
                f2 = density(small, _F(x2)) * np.exp(-tilt * x2)
            elif i < num_intervals:
                x2 = right if i + 1 == num_intervals else left + (i + 1) * step
                f2 = float(values[i + 1])
            best = max(best, f2)
            if f1 >= f0 and f1 > f2 and count < len(found):
                found[count, :3] = x0, x1, x2
                found[count, 3:] = f0, f1, f2
                count += 1
            x0, x1, f0, f1 = x1, x2, f1, f2
    return count
