"""Quantiles of the mixtures of a block of rows, first guessed on a grid, then solved; compiled."""

import numpy as np

from pipeline.densities.gaussian_mixture.components import (
    centred_mass32,
    centred_masses32,
    cut_row,
    finite_bounds,
    mass32,
    mass64,
)
from pipeline.densities.gaussian_mixture.records import (
    Components,
    Cubic,
    CutRow,
    Gaussians,
    Gaussians32,
    Levels,
    Offsets,
    Offsets32,
    Sketches,
    row_of,
    small_of,
)
from pipeline.numerics.arrays import Float32Array, FloatArray
from pipeline.numerics.compiled import kernel
from pipeline.numerics.special import SQRT_2PI, aligned, aligned32, copy_into


@kernel
def guess_quantiles(
    grid: tuple[float, float, float, float],
    values: Float32Array,
    probabilities: FloatArray,
    found: FloatArray,
    rates: FloatArray,
) -> None:
    """Adds up the density from the first point on.

    Args:
        grid: first point, step, the distribution function at the first point, and what makes
            probabilities of a step of the values.
        values: densities at the points, but for a factor.
        probabilities: ascending.
        found: gets the guesses; the first point for quantiles outside.
        rates: gets the densities there; zero for quantiles outside.
    """
    left, step, low, scale = grid
    last = len(values) - 1
    found[:], rates[:] = left, 0.0
    j = 0
    while j < len(found) and probabilities[j] <= low:
        j += 1
    for i in range(last):
        high = low + scale * _whole(_cubic(values, i))
        while j < len(found) and probabilities[j] <= high:
            found[j], rates[j] = i, (probabilities[j] - low) / scale
            j += 1
        if j == len(found):
            break
        low = high
    for j in range(len(found)):
        if rates[j] > 0.0:
            interval = int(found[j])
            u, rate = _invert(_cubic(values, interval), rates[j])
            found[j] = left + step * (interval + u)
            rates[j] = rate * scale / step


@kernel
def _cubic(values: Float32Array, i: int) -> Cubic:
    """The cubic of the density between two points: values and slopes by central differences."""
    f0, f1 = float(values[i]), float(values[i + 1])
    before = values[i - 1] if i > 0 else 2.0 * f0 - f1
    after = values[i + 2] if i + 2 < len(values) else 2.0 * f1 - f0
    return Cubic(f0, 0.5 * (f1 - before), f1, 0.5 * (after - f0))


@kernel
def _density(cubic: Cubic, u: float) -> float:
    f0, d0, f1, d1 = cubic
    v = 1.0 - u
    return (
        (1.0 + 2.0 * u) * v * v * f0
        + u * v * v * d0
        + u * u * (3.0 - 2.0 * u) * f1
        - u * u * v * d1
    )


@kernel
def _integral(cubic: Cubic, u: float) -> float:
    """Of the density, from the first point on."""
    f0, d0, f1, d1 = cubic
    square = u * u
    rise = square * u * (1.0 - 0.5 * u)
    return float(
        (u - rise) * f0
        + square * (0.5 - u * (2.0 / 3.0 - 0.25 * u)) * d0
        + rise * f1
        - square * u * (1.0 / 3.0 - 0.25 * u) * d1
    )


@kernel
def _whole(cubic: Cubic) -> float:
    """The integral from point to point."""
    f0, d0, f1, d1 = cubic
    return 0.5 * (f0 + f1) + (d0 - d1) / 12.0


@kernel
def _invert(cubic: Cubic, wanted: float) -> tuple[float, float]:
    """Where the integral is as wanted, by Newton steps, and the density there."""
    u = wanted / _whole(cubic)
    rate = 0.0
    for _ in range(2):
        rate = _density(cubic, u)
        u = min(max(u + (wanted - _integral(cubic, u)) / rate, 0.0), 1.0)
    return u, rate


Bounds = tuple[FloatArray, FloatArray]

_SAFE = 0.05  # probability within the bounds below which float32 is not trusted
_SHORTEST = 3e-4  # and in l, where all components are wide
_SHORT = 2e-3  # length of a single Newton step, in the smallest width
_CLOSE = 1e-6  # error in l
_SLOW = 0.3  # ratio of a step to the one before from which on the rate is taken to be bad
_STEPS = 3
_F = np.float32


@kernel
def quantile_rows(
    block: FloatArray,
    moments: FloatArray,
    bounds: Bounds,
    levels: Levels,
    sketches: Sketches,
    out: FloatArray,
) -> None:
    """Quantiles of l, [P, N] to out; rows that are NaN or without a range are left as they are.

    Args:
        block: of blocks.blocks_of.
        moments: [N, 3], of moments_of_rows.
        bounds: lower [N] and upper [N], in l; infinite where nothing is cut.
        levels: P probabilities, ascending, and their Gaussian quantiles.
        sketches: of the densities, as from modes.mode_rows.
        out: [P, N].
    """
    num_rows, _, size = block.shape
    wide, short = aligned(3, size), aligned32(5, size)
    room = wide[0], wide[1], wide[2]
    small, small_offsets = small_of(short)
    count = len(levels.probabilities)
    found, rates, below = np.empty(count), np.empty(count), np.empty(count)
    for i in range(num_rows):
        lower, upper = bounds[0][i], bounds[1][i]
        if np.isnan(block[i, 0, 0]) or not lower < upper:
            continue
        row, rough = row_of(block, i), (moments[i, 0], moments[i, 1], moments[i, 2])
        found[:] = np.nan
        if lower == -np.inf and upper == np.inf and sketches.grids[i, 2] > 0.0:
            curve = (small, small_offsets.above, rough[2])
            _from_sketch(
                row,
                curve,
                rough[0],
                (sketches.grids[i], sketches.values[i]),
                levels.probabilities,
                (found, rates, below),
            )
        if not _all_found(found):
            cut = cut_row(row, (lower, upper), room)
            _solve_levels(row, cut, rough, levels, (small, small_offsets), found)
        for j in range(len(found)):
            out[j, i] = found[j]


@kernel
def _all_found(found: FloatArray) -> bool:
    count = 0
    for j in range(len(found)):
        count += int(np.isnan(found[j]))
    return count == 0


@kernel
def shrink(
    parts: Gaussians,
    offsets: Offsets,
    reference: float,
    small: Gaussians32,
    small_offsets: Offsets32,
) -> float:
    """All in float32, means relative to a reference; returns the smallest width."""
    copy_into(parts.log_weights, small.log_weights)
    copy_into(offsets.below, small_offsets.below)
    return _shrink_centred(parts, offsets.above, reference, small, small_offsets.above)


@kernel
def _shrink_centred(
    parts: Gaussians,
    weights: FloatArray,
    reference: float,
    small: Gaussians32,
    small_weights: Float32Array,
) -> float:
    """What centred_mass32 needs of it."""
    copy_into(parts.inverse, small.inverse)
    copy_into(weights, small_weights)
    narrowest = np.float32(-np.inf)
    for c in range(small.means.size):
        small.means[c] = parts.means[c] - reference
    for c in range(small.means.size):
        narrowest = max(narrowest, small.inverse[c])
    return 1.0 / float(narrowest)


@kernel
def _from_sketch(
    row: Components,
    curve: tuple[Gaussians32, Float32Array, float],
    reference: float,
    sketch: tuple[FloatArray, Float32Array],
    probabilities: FloatArray,
    guesses: tuple[FloatArray, FloatArray, FloatArray],
) -> None:
    """Quantiles of an uncut row from guesses; NaN where that is not enough.

    One Newton step will do if it turns out to be short: its error is that of the density times its
    length. In the first and the last interval of the sketch the density is not known so well.
    """
    small, weights, total = curve
    found, rates, below = guesses
    parts = Gaussians(row.log_weights, row.means, row.inverse)
    narrowest = _shrink_centred(parts, row.weights, reference, small, weights)
    grid, values = sketch
    left, step, size, scale = grid
    left -= reference
    low = 0.5 + centred_mass32(small, weights, _F(left)) / total
    of_grid = (left, step, low, step * scale / (SQRT_2PI * total))
    guess_quantiles(of_grid, values[: int(size) + 1], probabilities, found, rates)
    limit = min(_SHORT * narrowest, _SHORTEST)
    centred_masses32(small, weights, found, below)
    for j in range(len(found)):
        start = (found[j], 0.5 + below[j] / total, rates[j])
        is_inner = left + step < found[j] < left + (size - 1.0) * step
        x = _step(curve, start, probabilities[j], limit if is_inner else 0.0)
        found[j] = reference + x


@kernel
def _step(
    curve: tuple[Gaussians32, Float32Array, float],
    start: tuple[float, float, float],
    level: float,
    limit: float,
) -> float:
    """By Newton's steps with one rate until they are short; NaN if they do not become so fast.

    From one step to the next the length falls by the error of the rate, so the error that is left
    is that of the next one.

    Args:
        curve: components, weights and their sum.
        start: point, probability below it and density there.
        level: the probability.
        limit: length of a first step that is short enough.
    """
    small, weights, total = curve
    x, share, rate = start
    if not rate > 0.0:
        return np.nan
    move = (level - share) / rate
    x += move
    if abs(move) < limit:
        return x
    for _ in range(_STEPS):
        share = 0.5 + centred_mass32(small, weights, _F(x)) / total
        before, move = abs(move), (level - share) / rate
        x += move
        if abs(move) > _SLOW * before:
            break
        if move * move <= _CLOSE * before:
            return x
    return np.nan


@kernel
def _solve_levels(
    row: Components,
    cut: CutRow,
    rough: tuple[float, float, float],
    levels: Levels,
    room: tuple[Gaussians32, Offsets32],
    found: FloatArray,
) -> None:
    """The quantiles that are NaN, in float32 or, where that is not to be trusted, by bisection."""
    parts, offsets, start, end, total, shift = cut
    centre, spread, weight = rough
    lower, upper = finite_bounds(row, start, end)
    reference = min(max(centre, lower), upper)
    narrowest = shrink(parts, offsets, reference, *room)
    is_safe = total * np.exp(shift) > _SAFE * weight
    curve, bracket = (*room, total), (lower - reference, upper - reference)
    for j in range(len(found)):
        if not np.isnan(found[j]):
            continue
        level = levels.probabilities[j]
        if is_safe:
            x = centre - reference + spread * levels.gaussian[j]
            found[j] = reference + _solve(curve, bracket, x, level, 0.02 * narrowest)
        if np.isnan(found[j]):
            found[j] = _bisect(parts, offsets, total * level, lower, upper)


@kernel
def _solve(
    curve: tuple[Gaussians32, Offsets32, float],
    bracket: tuple[float, float],
    x: float,
    level: float,
    tolerance: float,
) -> float:
    """Halley's iteration for logit F(x) = logit(level) within the bracket; NaN if it goes on.

    The logit is close to straight in the tails too. Convergence is cubic: the last move may be as
    large as a fiftieth of the smallest width (the tolerance), or three hundredths of the scale on
    which the logit changes, F (1 - F) / p, which near a bound that cuts is the distance to it.

    With L = logit F, L' = p / (F (1 - F)) and L'' / L' = p' / p - L' (1 - 2 F), Halley's move is
    Newton's, d = (logit(level) - L) / L', divided by 1 + d L'' / (2 L'). The divisor is held
    between a half and two: beyond, the expansion says nothing, and the bracket is there.
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
def _bisect(parts: Gaussians, offsets: Offsets, wanted: float, left: float, right: float) -> float:
    for _ in range(100):
        x = 0.5 * (left + right)
        if mass64(parts, offsets, x)[0] < wanted:
            left = x
        else:
            right = x
        if right - left < 1e-9:
            break
    return 0.5 * (left + right)
