"""What follows from the mixtures of a block of rows, fast: central values, quantiles, sigmas, density.

The definitions are those of pipeline/mixture.py, of which this is the compiled twin: quantiles to
1e-5 in l = log10 R, distribution function to 1e-6, moments to 1e-5 relative. Rows are independent
of each other; a row with a parameter that is not finite gives NaN.
"""

from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.fastmath import (
    LN10,
    SQRT_2PI,
    SUMS,
    cut_row,
    exp64,
    exponent_inside,
    finite_bounds,
    load_row,
    mass32,
    mass64,
    tail64,
)
from pipeline.mixture import Floats, Mixtures
from pipeline.modes import find_modes

Central = Literal["mode_linear", "mode_log10", "median", "mean"]
Sigma = Literal["moments", "linearised"]

# Each quantile starts from one already found, outwards from the median.
_LEVELS = {"median": 0.5, "q16": 0.16, "q025": 0.025, "q84": 0.84, "q975": 0.975}
_STARTS = np.array([-1, 0, 1, 0, 3])
_SAFE = 0.05  # probability within the bounds below which float32 is not trusted
_F = np.float32


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
        mixtures: at most some thousand rows, so that the columns stay in cache.
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
    source, (lower, upper) = _arrays(mixtures)
    left, right = np.maximum(low, lower), np.minimum(high, upper)
    columns: dict[str, NDArray[np.float64] | NDArray[np.bool_]] = {}
    for kind in ("linear", "log10"):
        mode, at_bound = find_modes(source, left, right, linear=kind == "linear")
        columns[f"mode_{kind}"] = 10.0**mode
        columns[f"mode_{kind}_at_bound"] = at_bound
    columns |= _quantiles(source, lower, upper)
    columns |= _sigmas(source, left, right)
    if sigma == "linearised":
        for name in ("sigma_syst", "sigma_stat", "sigma_tot"):
            columns[name] = LN10 * columns[central] * columns[f"{name}_log10"]
    return columns


def density_at(mixtures: Mixtures, l: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Natural log of the density of l = log10 R, and the distribution function, at one l per row.

    Args:
        mixtures: N rows.
        l: [N]; NaN gives NaN.

    Returns:
        log_density [N], -inf outside [lower, upper]; pit [N].
    """
    source, bounds = _arrays(mixtures)
    points = np.asarray(l, np.float64)
    out = np.full((2, len(points)), np.nan)
    _density_rows(source, bounds, points, out)
    return out[0], out[1]


def _arrays(
    mixtures: Mixtures,
) -> tuple[tuple[Floats, Floats, Floats], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    source = (mixtures.log_weights, mixtures.means, mixtures.sigmas)
    lower, upper = (np.asarray(a, np.float64) for a in (mixtures.lower, mixtures.upper))
    return source, (lower, upper)


def _quantiles(
    source: tuple[Floats, Floats, Floats],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    levels = np.array(list(_LEVELS.values()))
    out = np.full((len(levels), len(lower)), np.nan)
    _quantile_rows(source, (lower, upper), (levels, ndtri(levels), _STARTS), out)
    return {name: 10.0 ** out[i] for i, name in enumerate(_LEVELS)}


def _sigmas(
    source: tuple[Floats, Floats, Floats],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    out = np.full((6, len(low)), np.nan)
    _moment_rows(source, (low, high), out)
    columns = {"mean": out[0]}
    for first, suffix in ((1, ""), (4, "_log10")):
        columns[f"sigma_syst{suffix}"] = np.sqrt(out[first])
        columns[f"sigma_stat{suffix}"] = np.sqrt(out[first + 1])
        columns[f"sigma_tot{suffix}"] = np.sqrt(out[first] + out[first + 1])
    return columns


@njit(cache=True, nogil=True, error_model="numpy")
def _density_rows(source, bounds, points, out):  # type: ignore[no-untyped-def]  # numba infers them
    networks, num_rows, components = source[0].shape
    size = networks * components
    parts = (np.empty(size), np.empty(size), np.empty(size))
    offsets = (np.empty(size), np.empty(size))
    for row in range(num_rows):
        lower, upper, point = bounds[0][row], bounds[1][row], points[row]
        if np.isnan(point) or not (load_row(source, row, parts) and lower < upper):
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


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _log_density(parts, x):  # type: ignore[no-untyped-def]
    """Log of the sum of exp(a - z^2 / 2) / s, taken relative to the largest exponent."""
    a, m, inverse = parts
    top = -np.inf
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        exponent = a[c] - 0.5 * z * z
        top = exponent if exponent > top else top
    total = 0.0
    for c in range(a.size):
        z = (x - m[c]) * inverse[c]
        total += inverse[c] * exp64(a[c] - 0.5 * z * z - top)
    return top + np.log(total)


@njit(cache=True, nogil=True, error_model="numpy")
def _quantile_rows(source, bounds, levels, out):  # type: ignore[no-untyped-def]
    networks, num_rows, components = source[0].shape
    size = networks * components
    parts = (np.empty(size), np.empty(size), np.empty(size))
    offsets = (np.empty(size), np.empty(size))
    small = (np.empty(size, _F), np.empty(size, _F), np.empty(size, _F))
    small_offsets = (np.empty(size, _F), np.empty(size, _F))
    for row in range(num_rows):
        lower, upper = bounds[0][row], bounds[1][row]
        if not (load_row(source, row, parts) and lower < upper):
            continue
        centre, spread, narrowest, weight = _rough(parts)
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
        guess = (centre - reference, spread, 0.02 * narrowest)
        found = out[:, row]
        is_done = inside > _SAFE and _solve_levels(
            small, small_offsets, total, bracket, guess, levels, found
        )
        for i in range(len(found)):
            if is_done:
                found[i] += reference
            else:
                found[i] = _bisect(parts, offsets, total * levels[0][i], lower, upper)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS)
def _rough(parts):  # type: ignore[no-untyped-def]
    """Mean and standard deviation without cuts, the smallest width, and the sum of weights."""
    a, m, inverse = parts
    weight, first, second, steepest = 0.0, 0.0, 0.0, 0.0
    for c in range(a.size):
        w, s = exp64(a[c]), 1.0 / inverse[c]
        weight += w
        first += w * m[c]
        second += w * (m[c] * m[c] + s * s)
        steepest = inverse[c] if inverse[c] > steepest else steepest
    mean = first / weight
    return mean, np.sqrt(max(second / weight - mean * mean, 0.0)), 1.0 / steepest, weight


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_levels(parts, offsets, total, bracket, guess, levels, found):  # type: ignore[no-untyped-def]
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
        x, density = _solve(parts, offsets, total, (left, right), x, probabilities[i], tolerance)
        if not x == x:
            return False
        found[i] = x
        slopes[i] = np.exp(-0.5 * normals[i] ** 2) / (SQRT_2PI * density)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _solve(parts, offsets, total, bracket, x, level, tolerance):  # type: ignore[no-untyped-def]
    """Halley's iteration for logit F(x) = logit(level) within the bracket; x and the density.

    The logit is close to straight in the tails too. Convergence is cubic: the last move may be as
    large as a fiftieth of the smallest width.
    """
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
        if 0.0 < f < 1.0 and p > 0.0:
            rate = p / (f * (1.0 - f))
            move = (wanted - np.log(f / (1.0 - f))) / rate
            bend = slope / density - rate * (1.0 - 2.0 * f)
            target = x + move / min(max(1.0 + 0.5 * move * bend, 0.5), 2.0)
        if not left <= target <= right:
            target = 0.5 * (left + right)
        move = abs(target - x)
        x = target
        if move < tolerance:
            return x, p
    return np.nan, 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _bisect(parts, offsets, wanted, left, right):  # type: ignore[no-untyped-def]
    for _ in range(100):
        x = 0.5 * (left + right)
        if mass64(parts, offsets, x)[0] < wanted:
            left = x
        else:
            right = x
        if right - left < 1e-9:
            break
    return 0.5 * (left + right)


@njit(cache=True, nogil=True, error_model="numpy")
def _moment_rows(source, bounds, out):  # type: ignore[no-untyped-def]
    networks, num_rows, components = source[0].shape
    size = networks * components
    parts = (np.empty(size), np.empty(size), np.empty(size))
    sums = (np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size))
    tops, means = np.empty(networks), np.empty((2, networks))
    for row in range(num_rows):
        low, high = bounds[0][row], bounds[1][row]
        if not (load_row(source, row, parts) and low < high):
            continue
        low, high = finite_bounds(parts, low, high)
        reference = min(max(_rough(parts)[0], low), high)
        _shift_networks(parts, low, high, tops)
        low, high = low - reference, high - reference
        for c in range(size):
            parts[1][c] -= reference
        for power in range(3):
            _powers(parts, low, high, float(power), sums[power])
        _logs(parts, low, high, sums[0], sums[3], sums[4])
        found = out[:, row]
        _average(sums, tops, means, found)
        scale = 10.0**reference
        found[0] *= scale
        found[1:3] *= scale * scale


@njit(cache=True, nogil=True, error_model="numpy")
def _shift_networks(parts, low, high, tops):  # type: ignore[no-untyped-def]
    """Shifts the log weights of each network so that its largest value within the range is one.

    A network all of whose mass is far outside would else underflow. The shifts, relative to the
    largest of the row, go to tops.
    """
    a, m, inverse = parts
    components = a.size // tops.size
    for s in range(tops.size):
        top = -np.inf
        for c in range(s * components, (s + 1) * components):
            exponent = exponent_inside(a[c], m[c], inverse[c], low, high)
            top = exponent if exponent > top else top
        tops[s] = top
        for c in range(s * components, (s + 1) * components):
            a[c] -= top
    tops -= tops.max()


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _powers(parts, low, high, power, out):  # type: ignore[no-untyped-def]
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
        mass = middle * full + sign0 * t0 + sign1 * t1
        out[c] = mass if mass > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _logs(parts, low, high, mass, first, second):  # type: ignore[no-untyped-def]
    """Per component, the integrals of l and l^2 over the range; mass is that of 1.

    With z the edges in sigmas, the integral of l - m is -s [phi], that of its square
    s^2 (mass - [z phi]).
    """
    a, m, inverse = parts
    for c in range(a.size):
        z0, z1 = (low - m[c]) * inverse[c], (high - m[c]) * inverse[c]
        e0, e1 = exp64(a[c] - 0.5 * z0 * z0), exp64(a[c] - 0.5 * z1 * z1)
        s = 1.0 / inverse[c]
        edge = s * (e0 - e1) / SQRT_2PI
        spread = s * s * (mass[c] + (z0 * e0 - z1 * e1) / SQRT_2PI)
        first[c] = m[c] * mass[c] + edge
        second[c] = m[c] * (m[c] * mass[c] + 2.0 * edge) + spread


@njit(cache=True, nogil=True, error_model="numpy")
def _average(sums, tops, means, found):  # type: ignore[no-untyped-def]
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
