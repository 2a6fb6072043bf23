"""Global maximum of a Gaussian mixture within a range, found row by row; compiled.

Method: an even grid over the hull of the components that can hold the maximum, with the step half
the smallest width that counts; cells in which still narrower components could beat the best value
are divided further; each grid maximum that could be the highest is refined by bracketed Newton on
the derivative. The grid is float32, the refinement float64.

Why the grid is enough: (log f)'' >= -1 / s^2 for a mixture whose smallest width is s, so that a
grid of step s / 2 has a point with f >= exp(-1/32) f_max = 0.969 f_max next to every maximum.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import kernel, summing_kernel
from pipeline.fastmath import (
    LN10,
    Parts,
    Parts32,
    Vector,
    exp32,
    exp64,
    exponent_inside,
    take_row,
)

Floats = NDArray[np.floating]

_HULL = 1e-6  # peaks below this fraction of the highest cannot move the maximum out of the hull
_WIDTH = 1e-2  # peaks above this fraction set the grid step
_NARROW = 1e-7  # narrower ones above this fraction are looked at cell by cell
_DROPPED = 1e-10  # below it a component cannot be seen in the density
_CELLS = 96
_KEPT = 0.94  # of the best value; below 0.969 by what float32 may lose
_F = np.float32

Grid = tuple[float, float, int]  # first point, last point, number of cells
Cells = tuple[Vector, Vector, Vector]  # density at the points; per cell see _mark_narrow


def find_modes(
    block: NDArray[np.float64], low: Floats, high: Floats, *, linear: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Most probable l = log10 R of each row within [low, high].

    Args:
        block: log weight, mean and 1 / sigma, [N, 3, S * K], as from fastmath.load_rows.
        low: [N], in l.
        high: [N], in l.
        linear: search the maximum of the density of R, which is that of p(l) 10^-l, instead of
            that of p(l).

    Returns:
        l [N], and [N] whether it is one of the bounds. NaN and False where the row is NaN or the
        range is empty.
    """
    modes = np.full(low.shape, np.nan)
    at_bound = np.zeros(low.shape, dtype=np.bool_)
    _search_rows(block, (low, high), LN10 if linear else 0.0, (modes, at_bound))
    return modes, at_bound


@kernel
def _search_rows(
    block: Vector, bounds: tuple[Floats, Floats], tilt: float, out: tuple[Vector, NDArray[np.bool_]]
) -> None:
    num_rows, _, size = block.shape
    parts = (np.empty(size), np.empty(size), np.empty(size))
    coarse = (np.empty(size, _F), np.empty(size, _F), np.empty(size, _F))
    heights = np.empty(size)
    cells = (np.empty(_CELLS + 1), np.empty(_CELLS), np.empty(_CELLS))
    found = np.empty((2 * size + 8, 4))
    for row in range(num_rows):
        low, high = bounds[0][row], bounds[1][row]
        if not (take_row(block, row, parts) and low < high):
            continue
        if tilt != 0.0:
            _tilt(parts, tilt)
        count, peak = _prune(parts, heights, low, high)
        kept = (parts[0][:count], parts[1][:count], parts[2][:count])
        grid = _grid(kept, heights[:count], peak, low, high)
        reference = 0.5 * (grid[0] + grid[1])  # float32 has its best resolution near zero
        for c in range(count):
            coarse[0][c] = kept[0][c]
            coarse[1][c] = kept[1][c] - reference
            coarse[2][c] = kept[2][c]
        small = (coarse[0][:count], coarse[1][:count], coarse[2][:count])
        best = _fill_cells(small, reference, grid, cells)
        best = max(best, peak)
        _mark_narrow(kept, heights[:count], peak, grid, cells)
        _mark_bounds(grid, cells, best, low, high)
        num_found = _scan(small, reference, grid, cells, best, found)
        mode = _best_of(kept, found[:num_found])
        out[0][row] = mode
        out[1][row] = mode in (low, high)


@kernel
def _tilt(parts: Parts, tilt: float) -> None:
    """Turns the components of p(l) into those of p(l) exp(-tilt l), same widths."""
    a, m, inverse = parts
    for c in range(a.size):
        shift = tilt / inverse[c]
        a[c] += -tilt * m[c] + 0.5 * shift * shift
        m[c] -= shift / inverse[c]


@kernel
def _prune(parts: Parts, heights: Vector, low: float, high: float) -> tuple[int, float]:
    """Keeps, at the front of the buffers, the components that can be seen within the range.

    Log weights are shifted by a constant; heights become each component's largest value within
    the range, in the units of _density. What lies outside must not hide what lies inside, hence
    values within the range and not the peaks themselves.

    Returns:
        How many are kept, and the highest single value, a lower bound of the maximum.
    """
    a, m, inverse = parts
    top = -np.inf
    for c in range(a.size):
        heights[c] = exponent_inside(a[c], m[c], inverse[c], low, high)
        top = max(top, heights[c])
    for c in range(a.size):
        heights[c] = inverse[c] * exp64(heights[c] - top)
    peak = heights.max()
    count = 0
    for c in range(a.size):
        if heights[c] > _DROPPED * peak:
            a[count], m[count], inverse[count] = a[c] - top, m[c], inverse[c]
            heights[count] = heights[c]
            count += 1
    return count, peak


@kernel
def _grid(parts: Parts, heights: Vector, peak: float, low: float, high: float) -> Grid:
    """First point, last point and number of cells of the even grid."""
    _, m, inverse = parts
    left, right, steepest = high, low, 0.0
    for c in range(heights.size):
        if heights[c] > _HULL * peak:
            left = min(left, m[c])
            right = max(right, m[c])
        if heights[c] > _WIDTH * peak:
            steepest = max(steepest, inverse[c])
    margin = 0.25 / steepest  # components left out of the hull may pull a little
    left = min(max(left - margin, low), high)
    right = max(min(right + margin, high), low)
    if right <= left:  # all centres beyond one bound
        left, right = max(left - margin, low), min(right + margin, high)
    cells = min(max(np.ceil((right - left) * 2.0 * steepest), 2.0), float(_CELLS))
    return left, right, int(cells)


@summing_kernel
def _density(parts: Parts32, x: np.float32) -> np.float32:
    """Sum over components of exp(a - z^2 / 2) / s in float32, without 1 / sqrt(2 pi)."""
    a, m, inverse = parts
    total = _F(0.0)
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        total += inverse[c] * exp32(a[c] - _F(0.5) * z * z)
    return total


@summing_kernel
def _slopes(parts: Parts, x: float) -> tuple[float, float, float]:
    """The same sum in float64 with its first and second derivative."""
    a, m, inverse = parts
    value, first, second = 0.0, 0.0, 0.0
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        term = inverse[c] * exp64(a[c] - 0.5 * z * z)
        slope = z * inverse[c]
        value += term
        first -= slope * term
        second += (slope * slope - inverse[c] * inverse[c]) * term
    return value, first, second


@kernel
def _fill_cells(parts: Parts32, reference: float, grid: Grid, cells: Cells) -> float:
    """Density at the grid points into cells[0]; the rest is cleared. Returns the largest."""
    left, right, num_cells = grid
    step = (right - left) / num_cells
    best = 0.0
    for i in range(num_cells + 1):
        cells[0][i] = _density(parts, _F(left + i * step - reference))
        best = max(best, cells[0][i])
    cells[1][:num_cells] = 0.0
    cells[2][:num_cells] = 0.0
    return best


@kernel
def _mark_narrow(parts: Parts, heights: Vector, peak: float, grid: Grid, cells: Cells) -> None:
    """Per cell, what components too narrow for the grid may add, and the largest 1 / s of them."""
    _, m, inverse = parts
    left, right, num_cells = grid
    step = (right - left) / num_cells
    for c in range(heights.size):
        if inverse[c] * step <= 0.5 * (1.0 + 1e-9) or heights[c] < _NARROW * peak:
            continue
        reach = 5.5 / inverse[c]
        first = int(min(max((m[c] - reach - left) / step, 0.0), float(num_cells)))
        last = int(min(max((m[c] + reach - left) / step, -1.0), num_cells - 1.0))
        for i in range(first, last + 1):
            cells[1][i] += heights[c]
            cells[2][i] = max(cells[2][i], inverse[c])


@kernel
def _mark_bounds(grid: Grid, cells: Cells, best: float, low: float, high: float) -> None:
    """Has the first or last cell divided where a bound itself may be the maximum.

    Between a bound from which the density falls and a maximum inside there need not be a step.
    """
    left, right, num_cells = grid
    step = (right - left) / num_cells
    for is_bound, point, cell in ((left == low, 0, 0), (right == high, num_cells, num_cells - 1)):
        if is_bound and cells[0][point] > _KEPT * best:
            cells[1][cell] += best
            cells[2][cell] = max(cells[2][cell], 8.0 / step)


@kernel
def _scan(
    parts: Parts32, reference: float, grid: Grid, cells: Cells, best: float, found: Vector
) -> int:
    """Walks over the grid, in finer steps where a narrow peak could win, and notes the maxima.

    Returns:
        How many rows of found are filled: neighbour before, point, neighbour after, value. A
        mixture has no more maxima than components, so that found is never too short.
    """
    left, right, num_cells = grid
    step = (right - left) / num_cells
    x0, x1, f0, f1 = left, left, -1.0, cells[0][0]
    count = 0
    for i in range(num_cells + 1):
        parts_of_cell = 1
        if i < num_cells and cells[1][i] > 0.0:
            bound = 1.04 * max(cells[0][i], cells[0][i + 1]) + cells[1][i]
            if bound > _KEPT * best:
                parts_of_cell = int(min(np.ceil(2.0 * step * cells[2][i]), 4096.0))
        for j in range(1, parts_of_cell + 1):
            x2, f2 = right, -1.0  # one point past the last closes the walk
            if j < parts_of_cell:
                x2 = left + (i + j / parts_of_cell) * step
                f2 = float(_density(parts, _F(x2 - reference)))
            elif i < num_cells:
                x2 = right if i + 1 == num_cells else left + (i + 1) * step
                f2 = cells[0][i + 1]
            best = max(best, f2)
            if f1 >= f0 and f1 > f2 and count < len(found):
                found[count, 0], found[count, 1], found[count, 2], found[count, 3] = x0, x1, x2, f1
                count += 1
            x0, x1, f0, f1 = x1, x2, f1, f2
    return count


@kernel
def _best_of(parts: Parts, found: Vector) -> float:
    """The highest refined maximum; the leftmost of equals, whatever the order of summation."""
    threshold = _KEPT * found[:, 3].max()
    mode, highest = np.nan, 0.0
    for i in range(len(found)):
        if found[i, 3] < threshold:
            continue
        x = _refine(parts, found[i, 0], found[i, 1], found[i, 2])
        value = _slopes(parts, x)[0] if len(found) > 1 else 1.0
        if value > highest * (1.0 + 1e-9):
            mode, highest = x, value
    return mode


@kernel
def _refine(parts: Parts, left: float, x: float, right: float) -> float:
    """Zero of the derivative in [left, right] from x on, or an end that is the maximum."""
    is_end = x in (left, right)
    is_left = x == left
    for _ in range(100):
        _, first, second = _slopes(parts, x)
        if is_end and (first <= 0.0 if is_left else first >= 0.0):
            return x
        is_end = False
        if first > 0.0:
            left = x
        else:
            right = x
        target = x - first / second if second < 0.0 else np.nan
        if not left <= target <= right:
            target = 0.5 * (left + right)
        move = abs(target - x)
        x = target
        if move < 1e-6:
            break
    return x
