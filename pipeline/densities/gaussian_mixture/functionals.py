"""What follows from the mixtures of a block of rows, fast: central values, sigmas, density.

The definitions are those of parameters.py here, of which this is the compiled twin: quantiles to
1e-5 in l = log10 R, distribution function to 1e-6, moments to 1e-5 relative. Rows are independent
of each other; a row with a parameter that is not finite gives NaN.
"""

from typing import Literal, get_args

import numpy as np
from scipy.special import ndtri

from pipeline.densities.gaussian_mixture.components import cut_row, mass64, moments_of_rows
from pipeline.densities.gaussian_mixture.modes import mode_rows
from pipeline.densities.gaussian_mixture.moments import moment_rows
from pipeline.densities.gaussian_mixture.network_outputs import NetworkOutputs, blocks_of
from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.densities.gaussian_mixture.quantiles import quantile_rows
from pipeline.densities.gaussian_mixture.records import Gaussians, Levels, row_of
from pipeline.formats.calibrated_set import QUANTILES
from pipeline.numerics.arrays import BoolArray, FloatArray
from pipeline.numerics.compiled import kernel, summing_kernel
from pipeline.numerics.special import LN10, SQRT_2PI, aligned, exp64

Bounds = tuple[FloatArray, FloatArray]
Central = Literal["mode_linear", "mode_log10", "median", "mean"]
Sigma = Literal["moments", "linearised"]

_TINY = 1e-250  # a density below it may have lost components to underflow
_BLOCK = 64  # rows whose parameters, in float64, fill half of the second-level cache


def summarise(
    mixtures: Mixtures | NetworkOutputs,
    low: float | FloatArray,
    high: float | FloatArray,
    central: Central = "mode_linear",
    sigma: Sigma = "moments",
    points: FloatArray | None = None,
) -> dict[str, FloatArray | BoolArray]:
    """Central values, quantiles and uncertainties of R, one array [N] each.

    Modes are searched and moments integrated within [low, high] only: far from the data one wide
    component of weight 1e-3 would otherwise decide both. Quantiles are those of the whole density.

    Args:
        mixtures: N rows.
        low: in l; scalar or [N].
        high: in l; scalar or [N].
        central: the central value at which "linearised" sigmas are taken.
        sigma: "moments" of R within the range, or "linearised": ln(10) R sigma of l.
        points: [N], in l; adds log_density and pit there; NaN gives NaN.

    Returns:
        In R: mode_linear (most probable R), mode_log10 (R at the most probable l), median, mean
        (E[R] of the averaged density within the range), q025, q16, q84, q975; sigma_syst (root of
        the mean over networks of Var[R]), sigma_stat (standard deviation over networks, 1 / S, of
        E[R]), sigma_tot (their quadratic sum), arXiv 2412.04370, Eq. 40-42, of each network's
        density cut to the range. In l: mean_log10 (E[l] of the averaged density within the range),
        sigma_syst_log10, sigma_stat_log10, sigma_tot_log10.
        mode_linear_at_bound and mode_log10_at_bound: whether the mode is a bound of the range.
        NaN where a parameter is not finite or the range does not meet [lower, upper]. With points:
        log_density and pit there.

    Raises:
        ValueError: if central or sigma is unknown.
    """
    for name, value, allowed in (("central", central, Central), ("sigma", sigma, Sigma)):
        if value not in get_args(allowed):
            raise ValueError(f"{name}: expected one of {get_args(allowed)}, got {value!r}")
    num_rows = len(mixtures.lower)
    lower, upper = _bounds(mixtures)
    search = np.maximum(low, lower), np.minimum(high, upper)
    probabilities = np.array(list(QUANTILES.values()))
    levels = Levels(probabilities, ndtri(probabilities))
    # One more than there are rows: a block of all rows, which few rows are, would have another
    # layout in memory than others have, and everything would be compiled again for it.
    room = num_rows + 1
    modes, at_bound = np.full((2, room), np.nan), np.zeros((2, room), bool)
    quantiles = np.full((len(probabilities), room), np.nan)
    moments = np.full((6, room), np.nan)
    densities = np.full((2, room), np.nan)
    at = np.full(num_rows, np.nan) if points is None else np.asarray(points, np.float64)
    for rows, block in blocks_of(mixtures, _BLOCK):
        bounds, range_ = (lower[rows], upper[rows]), (search[0][rows], search[1][rows])
        out = modes[:, rows], at_bound[:, rows], quantiles[:, rows], moments[:, rows]
        every = (*bounds, *range_)
        _summarise_rows(
            (block, mixtures.num_networks), every, at[rows], levels, (*out, densities[:, rows])
        )
    columns = _columns_of(
        modes[:, :num_rows], at_bound[:, :num_rows], quantiles[:, :num_rows], moments[:, :num_rows]
    )
    if sigma == "linearised":
        for name in ("sigma_syst", "sigma_stat", "sigma_tot"):
            columns[name] = LN10 * columns[central] * columns[f"{name}_log10"]
    if points is not None:
        columns["log_density"], columns["pit"] = densities[:, :num_rows]
    return columns


def _bounds(mixtures: Mixtures | NetworkOutputs) -> Bounds:
    return np.asarray(mixtures.lower, np.float64), np.asarray(mixtures.upper, np.float64)


def _columns_of(
    modes: FloatArray, at_bound: BoolArray, quantiles: FloatArray, moments: FloatArray
) -> dict[str, FloatArray | BoolArray]:
    columns: dict[str, FloatArray | BoolArray] = {}
    for i, kind in enumerate(("log10", "linear")):
        columns[f"mode_{kind}"] = np.exp(LN10 * modes[i])
        columns[f"mode_{kind}_at_bound"] = at_bound[i]
    columns |= {name: np.exp(LN10 * quantiles[i]) for i, name in enumerate(QUANTILES)}
    columns["mean"] = moments[0]
    columns["mean_log10"] = moments[5]
    for first, suffix in ((1, ""), (3, "_log10")):
        columns[f"sigma_syst{suffix}"] = np.sqrt(moments[first])
        columns[f"sigma_stat{suffix}"] = np.sqrt(moments[first + 1])
        columns[f"sigma_tot{suffix}"] = np.sqrt(moments[first] + moments[first + 1])
    return columns


@kernel
def _summarise_rows(
    rows: tuple[FloatArray, int],
    bounds: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    points: FloatArray,
    levels: Levels,
    out: tuple[FloatArray, BoolArray, FloatArray, FloatArray, FloatArray],
) -> None:
    """Each step for all rows, and not row by row: so the code of one stays in the caches."""
    block, networks = rows
    lower, upper, low, high = bounds
    modes, at_bound, quantiles, moments, densities = out
    rough = moments_of_rows(block)
    sketches = mode_rows(block, rough, (low, high), (modes, at_bound))
    quantile_rows(block, rough, (lower, upper), levels, sketches, quantiles)
    moment_rows(block, rough, (low, high), networks, moments)
    _density_rows(block, (lower, upper), points, densities)


@kernel
def _density_rows(block: FloatArray, bounds: Bounds, points: FloatArray, out: FloatArray) -> None:
    num_rows, _, size = block.shape
    wide = aligned(3, size)
    room = wide[0], wide[1], wide[2]
    for i in range(num_rows):
        lower, upper, point = bounds[0][i], bounds[1][i], points[i]
        if np.isnan(point) or np.isnan(block[i, 0, 0]) or not lower < upper:
            continue
        cut = cut_row(row_of(block, i), (lower, upper), room)
        mass, density = 0.0, 0.0
        if np.isfinite(point):
            mass, density, _ = mass64(cut.gaussians, cut.offsets, point)
        out[0, i] = -np.inf
        if np.isfinite(point) and lower <= point <= upper:
            log = np.log(density) if density > _TINY else _log_density(cut.gaussians, point)
            out[0, i] = log - np.log(cut.total)
        out[1, i] = 1.0 if point >= cut.upper else 0.0
        if cut.lower < point < cut.upper:
            out[1, i] = min(max(mass / cut.total, 0.0), 1.0)


@summing_kernel
def _log_density(parts: Gaussians, x: float) -> float:
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
    return float(top + np.log(total / SQRT_2PI))
