"""What follows from the mixtures of a block of rows, fast: central values, sigmas, density.

The definitions are those of pipeline/mixture.py, of which this is the compiled twin: quantiles to
1e-5 in l = log10 R, distribution function to 1e-6, moments to 1e-5 relative. Rows are independent
of each other; a row with a parameter that is not finite gives NaN.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.compiled import kernel, summing_kernel
from pipeline.fastmath import (
    LN10,
    SQRT_2PI,
    Parts,
    Parts32,
    Vector,
    Vector32,
    cut_row,
    exp64,
    load_rows,
    mass32,
    mass64,
    take_row,
)
from pipeline.mixture import Floats, Mixtures
from pipeline.mixture_moments import moment_rows, rough_moments
from pipeline.modes import find_modes

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
Central = Literal["mode_linear", "mode_log10", "median", "mean"]
Sigma = Literal["moments", "linearised"]

# Each quantile starts from one already found, outwards from the median.
_LEVELS = {"median": 0.5, "q16": 0.16, "q025": 0.025, "q84": 0.84, "q975": 0.975}
_STARTS = np.array([-1, 0, 1, 0, 3])
_SAFE = 0.05  # probability within the bounds below which float32 is not trusted
_BLOCK = 128  # rows whose parameters, in float64, stay in the second-level cache
_F = np.float32

Curve = tuple[Parts32, tuple[Vector32, Vector32], float]  # components, offsets, total for mass32
Levels = tuple[Vector, Vector, NDArray[np.intp]]  # probabilities, their Gaussian quantiles, starts


def summarise(
    mixtures: Mixtures,
    low: float | Floats,
    high: float | Floats,
    central: Central = "mode_linear",
    sigma: Sigma = "moments",
) -> dict[str, NDArray[np.float64] | NDArray[np.bool_]]:
    """Central values, quantiles and uncertainties of R, one array [N] each.

    Modes are searched and moments integrated within [low, high] only: far from the data one wide
    component of weight 1e-3 would otherwise decide both. Quantiles are those of the whole density.

    Args:
        mixtures: N rows.
        low: in l; scalar or [N].
        high: in l; scalar or [N].
        central: the central value at which "linearised" sigmas are taken.
        sigma: "moments" of R within the range, or "linearised": ln(10) R sigma of l.

    Returns:
        In R: mode_linear (most probable R), mode_log10 (R at the most probable l), median, mean
        (E[R] of the averaged density within the range), q025, q16, q84, q975; sigma_syst (root of
        the mean over networks of Var[R]), sigma_stat (standard deviation over networks, 1 / S, of
        E[R]), sigma_tot (their quadratic sum), arXiv 2412.04370, Eq. 40-42, of each network's
        density cut to the range. In l: sigma_syst_log10, sigma_stat_log10, sigma_tot_log10.
        mode_linear_at_bound and mode_log10_at_bound: whether the mode is a bound of the range.
        NaN where a parameter is not finite or the range does not meet [lower, upper].

    Raises:
        ValueError: if central or sigma is unknown.
    """
    for name, value, allowed in (("central", central, Central), ("sigma", sigma, Sigma)):
        if value not in get_args(allowed):
            raise ValueError(f"{name}: expected one of {get_args(allowed)}, got {value!r}")
    lower, upper = _bounds(mixtures)
    left, right = np.maximum(low, lower), np.minimum(high, upper)
    pieces = [
        _summarise_rows(block, (lower[rows], upper[rows]), (left[rows], right[rows]), networks)
        for rows, block, networks in _blocks(mixtures)
    ]
    columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    if sigma == "linearised":
        for name in ("sigma_syst", "sigma_stat", "sigma_tot"):
            columns[name] = LN10 * columns[central] * columns[f"{name}_log10"]
    return columns


def density_at(
    mixtures: Mixtures, points: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Natural log of the density of l = log10 R, and the distribution function, at one l per row.

    Args:
        mixtures: N rows.
        points: [N], in l; NaN gives NaN.

    Returns:
        log_density [N], -inf outside [lower, upper]; pit [N].
    """
    lower, upper = _bounds(mixtures)
    at = np.asarray(points, np.float64)
    out = np.full((2, len(at)), np.nan)
    for rows, block, _ in _blocks(mixtures):
        _density_rows(block, (lower[rows], upper[rows]), at[rows], out[:, rows])
    return out[0], out[1]


def _bounds(mixtures: Mixtures) -> Bounds:
    return np.asarray(mixtures.lower, np.float64), np.asarray(mixtures.upper, np.float64)


def _blocks(mixtures: Mixtures) -> Iterator[tuple[slice, NDArray[np.float64], int]]:
    """Rows, their parameters and the number of networks; one empty block if there are no rows."""
    parameters = (mixtures.log_weights, mixtures.means, mixtures.sigmas)
    networks, num_rows, _ = mixtures.means.shape
    for first in range(0, max(num_rows, 1), _BLOCK):
        rows = slice(first, first + _BLOCK)
        yield rows, load_rows(parameters, first, first + _BLOCK), networks


def _summarise_rows(
    block: NDArray[np.float64], bounds: Bounds, search: Bounds, networks: int
) -> dict[str, NDArray[np.float64] | NDArray[np.bool_]]:
    columns: dict[str, NDArray[np.float64] | NDArray[np.bool_]] = {}
    for kind in ("linear", "log10"):
        mode, at_bound = find_modes(block, *search, linear=kind == "linear")
        columns[f"mode_{kind}"] = 10.0**mode
        columns[f"mode_{kind}_at_bound"] = at_bound
    levels = np.array(list(_LEVELS.values()))
    quantiles = np.full((len(levels), len(block)), np.nan)
    _quantile_rows(block, bounds, (levels, ndtri(levels), _STARTS), quantiles)
    columns |= {name: 10.0 ** quantiles[i] for i, name in enumerate(_LEVELS)}
    moments = np.full((6, len(block)), np.nan)
    moment_rows(block, search, np.empty(networks), moments)
    columns["mean"] = moments[0]
    for first, suffix in ((1, ""), (4, "_log10")):
        columns[f"sigma_syst{suffix}"] = np.sqrt(moments[first])
        columns[f"sigma_stat{suffix}"] = np.sqrt(moments[first + 1])
        columns[f"sigma_tot{suffix}"] = np.sqrt(moments[first] + moments[first + 1])
    return columns


@kernel
def _density_rows(block: Vector, bounds: Bounds, points: Vector, out: Vector) -> None:
    num_rows, _, size = block.shape
    parts = (np.empty(size), np.empty(size), np.empty(size))
    offsets = (np.empty(size), np.empty(size))
    for row in range(num_rows):
        lower, upper, point = bounds[0][row], bounds[1][row], points[row]
        if np.isnan(point) or not (take_row(block, row, parts) and lower < upper):
            continue
        start, end, total = cut_row(parts, offsets, lower, upper)
        out[0, row] = -np.inf
        if np.isfinite(point) and lower <= point <= upper:
            out[0, row] = _log_density(parts, point) - np.log(SQRT_2PI * total)
        out[1, row] = 0.0
        if point >= end:
            out[1, row] = 1.0
        elif point > start:
            out[1, row] = min(max(mass64(parts, offsets, point)[0] / total, 0.0), 1.0)


@summing_kernel
def _log_density(parts: Parts, x: float) -> float:
    """Log of the sum of exp(a - z^2 / 2) / s, taken relative to the largest exponent."""
    a, m, inverse = parts
    top = -np.inf
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        top = max(top, a[c] - 0.5 * z * z)
    total = 0.0
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        total += inverse[c] * exp64(a[c] - 0.5 * z * z - top)
    return float(top + np.log(total))


@kernel
def _quantile_rows(block: Vector, bounds: Bounds, levels: Levels, out: Vector) -> None:
    num_rows, _, size = block.shape
    parts = (np.empty(size), np.empty(size), np.empty(size))
    offsets = (np.empty(size), np.empty(size))
    small = (np.empty(size, _F), np.empty(size, _F), np.empty(size, _F))
    small_offsets = (np.empty(size, _F), np.empty(size, _F))
    for row in range(num_rows):
        lower, upper = bounds[0][row], bounds[1][row]
        if not (take_row(block, row, parts) and lower < upper):
            continue
        centre, spread, weight = rough_moments(parts)
        top = parts[0][0]
        lower, upper, total = cut_row(parts, offsets, lower, upper)
        inside = total * np.exp(top - parts[0][0]) / weight  # cut_row has shifted the log weights
        reference = min(max(centre, lower), upper)
        for c in range(size):
            small[0][c] = parts[0][c]
            small[1][c] = parts[1][c] - reference
            small[2][c] = parts[2][c]
            small_offsets[0][c] = offsets[0][c]
            small_offsets[1][c] = offsets[1][c]
        bracket = (lower - reference, upper - reference)
        guess = (centre - reference, spread, 0.02 / parts[2].max())
        found = out[:, row]
        is_done = inside > _SAFE and _solve_levels(
            (small, small_offsets, total), bracket, guess, levels, found
        )
        for i in range(len(found)):
            if is_done:
                found[i] += reference
            else:
                found[i] = _bisect(parts, offsets, total * levels[0][i], lower, upper)


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
