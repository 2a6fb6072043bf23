"""The highest of the peaks that the grid of a row has shown, refined; compiled, float64."""

import numpy as np

from pipeline.numerics.compiled import kernel, summing_kernel
from pipeline.numerics.special import Parts, Vector, exp64

KEPT = 0.94  # of the best value; below 0.969, see modes, by what float32 may lose

_BENT = 0.05  # second difference of a logarithm; a fifth of that of one Gaussian
_CLOSE = 3e-7  # error in l at which the refinement ends

Frame = tuple[float, float, float]  # low, high and the middle, of which the grid counts


@kernel
def best_of(parts: Parts, frame: Frame, tilt: float, found: Vector) -> float:
    """The highest refined maximum; the leftmost of equals, whatever the order of summation."""
    threshold = KEPT * found[:, 4].max()
    mode, highest = np.nan, 0.0
    for i in range(len(found)):
        if found[i, 4] < threshold:
            continue
        x = _refine(parts, frame, tilt, found[i])
        value = 1.0
        if len(found) > 1:
            value = _slopes(parts, x)[0] * np.exp(-tilt * (x - frame[2]))
        if value > highest * (1.0 + 1e-9):
            mode, highest = x, value
    return mode


@kernel
def _refine(parts: Parts, frame: Frame, tilt: float, peak: Vector) -> float:
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
def _summit(peak: Vector, x: float, step: float) -> float:
    """Summit of the parabola through the logarithms at three points an even step apart.

    The middle point itself where the top is so flat that the summit may be a dip between two peaks.
    """
    before, after = np.log(peak[4] / peak[3]), np.log(peak[4] / peak[5])
    if not _BENT < before + after < np.inf:
        return x
    return float(x + 0.5 * step * (before - after) / (before + after))


@summing_kernel
def _slopes(parts: Parts, x: float) -> tuple[float, float, float, float]:
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
