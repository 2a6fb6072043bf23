"""Quantiles of the mixtures of a block of rows; compiled."""

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import kernel
from pipeline.fastmath import (
    LOWEST32,
    SQRT_2PI,
    Parts,
    Parts32,
    Vector,
    Vector32,
    copy_into,
    key32,
    value32,
)
from pipeline.masses import cut_row, mass32, mass64, rough_moments, row_of

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
Curve = tuple[Parts32, tuple[Vector32, Vector32], float]  # components, offsets, total for mass32
Levels = tuple[Vector, Vector, NDArray[np.intp]]  # probabilities, their Gaussian quantiles, starts

_SAFE = 0.05  # probability within the bounds below which float32 is not trusted
_F = np.float32


@kernel
def quantile_rows(block: Vector, bounds: Bounds, levels: Levels, out: Vector) -> None:
    """Quantiles of l, [P, N] to out; rows that are NaN or without a range are left as they are.

    Args:
        block: as from fastmath.load_rows.
        bounds: lower [N] and upper [N], in l; infinite where nothing is cut.
        levels: P probabilities, their Gaussian quantiles, and for each the index of one found
            before it from which its search starts, or -1.
        out: [P, N].
    """
    num_rows, _, size = block.shape
    shifted, offsets = np.empty(size), (np.empty(size), np.empty(size))
    small = (np.empty(size, _F), np.empty(size, _F), np.empty(size, _F))
    small_offsets = (np.empty(size, _F), np.empty(size, _F))
    for i in range(num_rows):
        lower, upper = bounds[0][i], bounds[1][i]
        if np.isnan(block[i, 0, 0]) or not lower < upper:
            continue
        row = row_of(block, i)
        parts = (shifted, row[1], row[2])
        centre, spread, weight = rough_moments(row)
        lower, upper, total, shift = cut_row(row, lower, upper, shifted, offsets)
        reference = min(max(centre, lower), upper)
        narrowest = _shrink(parts, offsets, reference, small, small_offsets)
        bracket = (lower - reference, upper - reference)
        guess = (centre - reference, spread, 0.02 * narrowest)
        found = out[:, i]
        is_done = total * np.exp(shift) > _SAFE * weight and _solve_levels(
            (small, small_offsets, total), bracket, guess, levels, found
        )
        for j in range(len(found)):
            if is_done:
                found[j] += reference
            else:
                found[j] = _bisect(parts, offsets, total * levels[0][j], lower, upper)


@kernel
def _shrink(
    parts: Parts,
    offsets: tuple[Vector, Vector],
    reference: float,
    small: Parts32,
    small_offsets: tuple[Vector32, Vector32],
) -> float:
    """All in float32, means relative to a reference; returns the smallest width."""
    copy_into(parts[0], small[0])
    copy_into(parts[2], small[2])
    copy_into(offsets[0], small_offsets[0])
    copy_into(offsets[1], small_offsets[1])
    narrowest = LOWEST32
    for c in range(small[1].size):
        small[1][c] = parts[1][c] - reference
    for c in range(small[1].size):
        key = key32(small[2][c])
        narrowest = key if key > narrowest else narrowest
    return 1.0 / float(value32(narrowest))


@kernel
def _solve_levels(
    curve: Curve,
    bracket: tuple[float, float],
    guess: tuple[float, float, float],
    levels: Levels,
    found: Vector,
) -> bool:
    """Quantiles in float32, each from the one found before it. False if one did not converge."""
    probabilities, normals, starts = levels
    centre, spread, tolerance = guess
    slopes = np.empty(len(found))  # of l with the Gaussian quantile
    for i in range(len(found)):
        j = starts[i]
        left, right = bracket
        x = centre + spread * normals[i]
        if j >= 0:
            x = found[j] + slopes[j] * (normals[i] - normals[j])
            left = found[j] if probabilities[i] > probabilities[j] else left
            right = found[j] if probabilities[i] < probabilities[j] else right
        if not left < x < right:
            x = 0.5 * (left + right)
        x, density = _solve(curve, (left, right), x, probabilities[i], tolerance)
        if np.isnan(x):
            return False
        found[i] = x
        slopes[i] = np.exp(-0.5 * normals[i] ** 2) / (SQRT_2PI * density)
    return True


@kernel
def _solve(
    curve: Curve, bracket: tuple[float, float], x: float, level: float, tolerance: float
) -> tuple[float, float]:
    """Halley's iteration for logit F(x) = logit(level) within the bracket; x and the density.

    The logit is close to straight in the tails too. Convergence is cubic: the last move may be as
    large as a fiftieth of the smallest width, or of the distance to a bound that cuts the density.
    """
    parts, offsets, total = curve
    left, right = bracket
    wanted = np.log(level / (1.0 - level))
    for _ in range(60):
        mass, density, slope = mass32(parts, offsets, _F(x))
        f, p = mass / total, density / total
        if f < level:
            left = x
        else:
            right = x
        target = np.nan
        limit = tolerance
        if 0.0 < f < 1.0 and p > 0.0:
            rate = p / (f * (1.0 - f))
            limit = min(tolerance, 0.03 / rate)
            move = (wanted - np.log(f / (1.0 - f))) / rate
            bend = slope / density - rate * (1.0 - 2.0 * f)
            target = x + move / min(max(1.0 + 0.5 * move * bend, 0.5), 2.0)
        if not left <= target <= right:
            target = 0.5 * (left + right)
        move = abs(target - x)
        x = target
        if move < limit:
            return x, p
    return np.nan, 0.0


@kernel
def _bisect(
    parts: Parts, offsets: tuple[Vector, Vector], wanted: float, left: float, right: float
) -> float:
    for _ in range(100):
        x = 0.5 * (left + right)
        if mass64(parts, offsets, x)[0] < wanted:
            left = x
        else:
            right = x
        if right - left < 1e-9:
            break
    return 0.5 * (left + right)
