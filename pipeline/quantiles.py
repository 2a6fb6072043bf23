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
from pipeline.masses import centred_mass32, cut_row, mass32, mass64, rough_moments, row_of
from pipeline.modes import Sketches
from pipeline.quantile_guess import guess_quantiles

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
Curve = tuple[Parts32, tuple[Vector32, Vector32], float]  # components, offsets, total for mass32
Levels = tuple[Vector, Vector]  # probabilities, their Gaussian quantiles

_SAFE = 0.05  # probability within the bounds below which float32 is not trusted
_SHORTEST = 5e-4  # and in l, where all components are wide
_SHORT = 0.15  # length of a last Newton step, relative to that of a last one of Halley's
_F = np.float32


@kernel
def quantile_rows(
    block: Vector, bounds: Bounds, levels: Levels, sketches: Sketches, out: Vector
) -> None:
    """Quantiles of l, [P, N] to out; rows that are NaN or without a range are left as they are.

    Args:
        block: as from fastmath.load_rows.
        bounds: lower [N] and upper [N], in l; infinite where nothing is cut.
        levels: P probabilities, ascending, and their Gaussian quantiles.
        sketches: of the densities, as from modes.find_both_modes.
        out: [P, N].
    """
    num_rows, _, size = block.shape
    room = np.empty(size), np.empty(size), np.empty(size)
    small = (np.empty(size, _F), np.empty(size, _F), np.empty(size, _F))
    small_offsets = (np.empty(size, _F), np.empty(size, _F))
    rates = np.empty(len(levels[0]))
    for i in range(num_rows):
        lower, upper = bounds[0][i], bounds[1][i]
        if np.isnan(block[i, 0, 0]) or not lower < upper:
            continue
        is_whole = lower == -np.inf and upper == np.inf
        row = row_of(block, i)
        centre, spread, weight = rough_moments(row)
        parts, offsets, cut = cut_row(row, (lower, upper), room)
        lower, upper, total, shift = cut
        reference = min(max(centre, lower), upper)
        narrowest = shrink(parts, offsets, reference, small, small_offsets)
        found = out[:, i]
        guesses = (found, rates)
        is_safe = total * np.exp(shift) > _SAFE * weight
        if is_safe:
            for j in range(len(found)):
                found[j], rates[j] = centre - reference + spread * levels[1][j], 0.0
            curve = (small, small_offsets, total)
            if is_whole and sketches[0][i, 2] > 0.0:
                _guess(curve, reference, (sketches[0][i], sketches[1][i]), levels[0], guesses)
            bracket = (lower - reference, upper - reference)
            is_safe = _solve_levels(curve, bracket, 0.02 * narrowest, levels[0], guesses)
        for j in range(len(found)):
            if is_safe:
                found[j] += reference
            else:
                found[j] = _bisect(parts, offsets, total * levels[0][j], lower, upper)


@kernel
def shrink(
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
        narrowest = max(narrowest, key)
    return 1.0 / float(value32(narrowest))


@kernel
def _guess(
    curve: Curve,
    reference: float,
    sketch: tuple[Vector, Vector32],
    probabilities: Vector,
    guesses: tuple[Vector, Vector],
) -> None:
    """Quantiles, relative to the reference, and densities there from the sketch of an uncut row."""
    parts, offsets, total = curve
    grid, values = sketch
    left, step, cells, scale = grid
    left -= reference
    low = 0.5 + centred_mass32(parts, offsets[0], _F(left)) / total
    of_grid = (left, step, low, step * scale / (SQRT_2PI * total))
    guess_quantiles(of_grid, values[: int(cells) + 1], probabilities, *guesses)


@kernel
def _solve_levels(
    curve: Curve,
    bracket: tuple[float, float],
    tolerance: float,
    probabilities: Vector,
    guesses: tuple[Vector, Vector],
) -> bool:
    """Quantiles in float32 from guesses, in place. False if one did not converge.

    Where the density at a guess is known one Newton step will do, if it turns out to be short:
    its error is that of the density times its length.
    """
    parts, offsets, total = curve
    found, rates = guesses
    for j in range(len(found)):
        if rates[j] > 0.0:
            below = 0.5 + centred_mass32(parts, offsets[0], _F(found[j])) / total
            move = (probabilities[j] - below) / rates[j]
            found[j] += move
            if abs(move) < min(_SHORT * tolerance, _SHORTEST):
                continue
        found[j] = _solve(curve, bracket, found[j], probabilities[j], tolerance)
        if np.isnan(found[j]):
            return False
    return True


@kernel
def _solve(
    curve: Curve, bracket: tuple[float, float], x: float, level: float, tolerance: float
) -> float:
    """Halley's iteration for logit F(x) = logit(level) within the bracket; NaN if it goes on.

    The logit is close to straight in the tails too. Convergence is cubic: the last move may be as
    large as a fiftieth of the smallest width, or of the distance to a bound that cuts the density.
    """
    parts, offsets, total = curve
    left, right = bracket
    if not left < x < right:
        x = 0.5 * (left + right)
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
            return x
    return np.nan


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
