"""Every functional of any family of densities, from its log density on a grid in l = log10 R.

What a new family works with from its first day, and the slow twin of the compiled kernels of
Gaussian mixtures: some thousand evaluations a network and row. The grid of a row gets its points
where the density lies: at first even ones and the knots that the family names, then, twice, equal
steps of probability and length together, with the knots in between. Mass is that of exponentials
between the points. That is right to about 1e-4 of a width, and in tails that fall by a small power
(a Student t of 2.4 degrees of freedom) to 2e-4 of log densities and 5e-3 of widths in quantiles.

Shape letters: S networks, N rows, G points.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np

from pipeline.formats.calibrated_set import QUANTILES
from pipeline.numerics.arrays import BoolArray, Float32Array, FloatArray, IntArray, RealArray

Central = Literal["mode_linear", "mode_log10", "median", "mean"]
Sigma = Literal["moments", "linearised"]

LN10 = np.log(10.0)
EVEN = 1025  # first points of a row beside the knots, of a range that holds all mass
POINTS = 2049
ROUNDS = 2
LENGTH = 0.3  # share of the points that are even in l, the others in probability
ZOOMS, ZOOM_POINTS = 6, 9  # about the highest point; each narrows the mode's place fourfold
FLAT = 1e-3  # difference of log densities below which a trapezoid is as good
BLOCK = 512  # networks' densities at a time: their values on the grid fill some 8 MB


class Densities(Protocol):
    """Per row the average over S networks of a density of l, cut to [lower, upper]."""

    @property
    def num_networks(self) -> int:
        """Number S of networks that are averaged."""
        ...

    @property
    def lower(self) -> FloatArray:
        """[N], in l; -inf where nothing is cut off."""
        ...

    @property
    def upper(self) -> FloatArray:
        """[N], in l; +inf where nothing is cut off."""
        ...

    def of_rows(self, rows: IntArray) -> Self:
        """The densities of some rows, by their numbers."""
        ...

    def log_density(self, points_NG: FloatArray) -> FloatArray:
        """Natural log of each network's whole density of l, [S, N, G]."""
        ...

    def knots(self) -> FloatArray:
        """Values of l, [N, any number], that show where each network's density lies.

        Every peak with points a width apart about it; less than 1e-9 of the mass lies outside.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class NetworkDensities:
    """Densities as networks give them, uncut; a family adds `log_density` and `knots`.

    Attributes:
        outputs_SPN: [S, P, N], float32: the family's parameters.
        log_variance_bounds: What the logs of variances are limited to.
    """

    outputs_SPN: Float32Array
    log_variance_bounds: tuple[float, float]

    @property
    def num_networks(self) -> int:
        """Number S of networks that are averaged."""
        return len(self.outputs_SPN)

    @property
    def lower(self) -> FloatArray:
        """[N], in l; nothing is cut off."""
        return np.full(self.outputs_SPN.shape[2], -np.inf)

    @property
    def upper(self) -> FloatArray:
        """[N], in l; nothing is cut off."""
        return np.full(self.outputs_SPN.shape[2], np.inf)

    def of_rows(self, rows: IntArray) -> Self:
        """The densities of some rows, by their numbers."""
        return type(self)(self.outputs_SPN[:, :, rows], self.log_variance_bounds)


def summarise(
    densities: Densities,
    low: float | FloatArray,
    high: float | FloatArray,
    central: Central = "mode_linear",
    sigma: Sigma = "moments",
    points: FloatArray | None = None,
) -> dict[str, FloatArray | BoolArray]:
    """As `gaussian_mixture.functionals.summarise`, which says what each column is.

    Args:
        densities: N rows.
        low: In l; scalar or [N].
        high: In l; scalar or [N].
        central: The central value at which "linearised" sigmas are taken.
        sigma: "moments" of R within the range, or "linearised": ln(10) R sigma of l.
        points: [N], in l; adds log_density and pit there; NaN gives NaN.
    """
    num_rows = len(densities.lower)
    at = np.full(num_rows, np.nan) if points is None else np.asarray(points, np.float64)
    low_N, high_N = (
        np.broadcast_to(np.asarray(each, np.float64), num_rows) for each in (low, high)
    )
    blocks = [
        _summarise_block(densities.of_rows(rows), low_N[rows], high_N[rows], at[rows])
        for rows in _blocks(densities)
    ]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    if sigma == "linearised":
        for name in ("sigma_syst", "sigma_stat", "sigma_tot"):
            columns[name] = LN10 * columns[central] * columns[f"{name}_log10"]
    if points is None:
        del columns["log_density"], columns["pit"]
    return columns


def crps_of(densities: Densities, points: RealArray) -> FloatArray:
    """The continuous ranked probability score of the averaged densities, [N], in l.

    The integral of F^2 below a row's point plus that of (1 - F)^2 above it (Matheson and Winkler,
    Management Science 22 (1976) 1087).

    Args:
        densities: N rows.
        points: One value of l a row.
    """
    at_N = np.asarray(points, np.float64)
    scores = [_crps_block(densities.of_rows(rows), at_N[rows, None]) for rows in _blocks(densities)]
    return np.concatenate(scores)


def _crps_block(densities: Densities, at_N1: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        grid = Grid.of(densities, at_N1)
    step_NG = np.diff(grid.l_NG)
    below_NG, above_NG = (
        0.5 * step_NG * (side_NG[:, 1:] ** 2 + side_NG[:, :-1] ** 2)
        for side_NG in (grid.cdf_NG, 1.0 - grid.cdf_NG)
    )
    inside_N1 = np.clip(at_N1, densities.lower[:, None], densities.upper[:, None])
    within_N = np.where(grid.l_NG[:, 1:] <= inside_N1, below_NG, above_NG).sum(axis=1)
    # Between a cut and a point beyond it F is 0 or 1, and always on the wrong side.
    return np.asarray(within_N + np.abs(at_N1 - inside_N1)[:, 0])


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The densities of N rows on points of their own, which hold all mass within the cuts.

    Attributes:
        l_NG: The points, rising.
        log_SNG: Natural log of each network's density, not cut.
        cdf_NG: Distribution function of the averaged density, from 0 to 1.
        log_total_N: Natural log of the mass that the cut leaves of the averaged density.
    """

    l_NG: FloatArray
    log_SNG: FloatArray
    cdf_NG: FloatArray
    log_total_N: FloatArray

    @classmethod
    def of(cls, densities: Densities, *extra: FloatArray) -> Self:
        """Points where the densities lie, and some more [N, X], which may lie anywhere."""
        lower_N, upper_N = densities.lower, densities.upper
        knots_NX = np.clip(densities.knots(), lower_N[:, None], upper_N[:, None])
        first_N, last_N = knots_NX.min(axis=1), knots_NX.max(axis=1)
        # Cut to where next to nothing lies: all of the cut range.
        is_far_N = ~(first_N < last_N) & np.isfinite(lower_N) & np.isfinite(upper_N)
        first_N, last_N = np.where(is_far_N, lower_N, first_N), np.where(is_far_N, upper_N, last_N)
        share_G = np.linspace(0.0, 1.0, EVEN)
        l_NG = first_N[:, None] + (last_N - first_N)[:, None] * share_G
        l_NG = np.sort(np.concatenate([l_NG, knots_NX], axis=1))
        for _ in range(ROUNDS):
            log_SNG = densities.log_density(l_NG)
            l_NG = _spread(l_NG, _cdf(l_NG, _average(log_SNG))[0])
        within = [np.clip(each, lower_N[:, None], upper_N[:, None]) for each in extra]
        l_NG = np.sort(np.concatenate([l_NG, knots_NX, *within], axis=1))
        log_SNG = densities.log_density(l_NG)
        cdf_NG, log_total_N = _cdf(l_NG, _average(log_SNG))
        return cls(l_NG, log_SNG, cdf_NG, log_total_N)

    def at(self, values_NG: FloatArray, points_NX: FloatArray) -> FloatArray:
        """What rises or falls along the points, between them: [N, X]."""
        rows = zip(points_NX, self.l_NG, values_NG, strict=True)
        return np.array([np.interp(points, l_G, values) for points, l_G, values in rows])

    def quantiles(self, levels: FloatArray) -> FloatArray:
        """The l of some probabilities, [levels, N]."""
        rows = zip(self.cdf_NG, self.l_NG, strict=True)
        return (
            np
            .array([np.interp(levels, cdf_G, l_G) for cdf_G, l_G in rows])
            .reshape(-1, len(levels))
            .T
        )


def _average(log_SNG: FloatArray) -> FloatArray:
    """Log of the average over the networks, [N, G]."""
    if len(log_SNG) == 1:
        return np.asarray(log_SNG[0])
    highest_NG = log_SNG.max(axis=0)
    sum_NG = np.exp(log_SNG - highest_NG).sum(axis=0)
    return np.asarray(highest_NG + np.log(sum_NG) - math.log(len(log_SNG)))


def _cdf(l_NG: FloatArray, log_NG: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distribution function at the points, and log of the mass between first and last [N]."""
    highest_N1 = log_NG.max(axis=1, keepdims=True)
    p_NG = np.exp(log_NG - highest_N1)
    rise_NG, bend_NG = np.diff(p_NG, axis=1), np.diff(log_NG, axis=1)
    # An exponential between two points has the mean dp / d(log p); flat ones the mean of both ends.
    is_steep_NG = np.isfinite(bend_NG) & (np.abs(bend_NG) > FLAT)
    mean_NG = np.where(
        is_steep_NG,
        rise_NG / np.where(is_steep_NG, bend_NG, 1.0),
        0.5 * (p_NG[:, 1:] + p_NG[:, :-1]),
    )
    parts_NG = np.cumsum(mean_NG * np.diff(l_NG, axis=1), axis=1)
    mass_NG = np.concatenate([np.zeros_like(highest_N1), parts_NG], axis=1)
    total_N1 = mass_NG[:, -1:]
    return mass_NG / total_N1, np.log(total_N1)[:, 0] + highest_N1[:, 0]


def _spread(l_NG: FloatArray, cdf_NG: FloatArray) -> FloatArray:
    """Points at equal steps of a share of the length and of the probability, [N, POINTS]."""
    length_NG = (l_NG - l_NG[:, :1]) / (l_NG[:, -1:] - l_NG[:, :1])
    both_NG = LENGTH * length_NG + (1.0 - LENGTH) * cdf_NG
    even_G = np.linspace(0.0, 1.0, POINTS)
    rows = zip(both_NG, l_NG, strict=True)
    return np.array([np.interp(even_G, both_G, l_G) for both_G, l_G in rows])


def _summarise_block(
    densities: Densities, low_N: FloatArray, high_N: FloatArray, at_N: FloatArray
) -> dict[str, FloatArray | BoolArray]:
    low_N, high_N = np.maximum(low_N, densities.lower), np.minimum(high_N, densities.upper)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        grid = Grid.of(densities)
        quantiles = grid.quantiles(np.array(list(QUANTILES.values())))
        columns: dict[str, FloatArray | BoolArray] = {
            name: np.exp(LN10 * quantile_N)
            for name, quantile_N in zip(QUANTILES, quantiles, strict=True)
        }
        within = Grid.of(_Cut(densities, low_N, high_N), low_N[:, None], high_N[:, None])
        for name, tilt in (("log10", 0.0), ("linear", LN10)):
            mode_N = _mode(densities, within, tilt)
            columns[f"mode_{name}"] = np.exp(LN10 * mode_N)
            columns[f"mode_{name}_at_bound"] = (mode_N == low_N) | (mode_N == high_N)
        columns |= _moments(within)
        is_inside_N = (at_N >= densities.lower) & (at_N <= densities.upper)
        log_N = _average(densities.log_density(at_N[:, None]))[:, 0]
        log_N = np.where(is_inside_N, log_N - grid.log_total_N, -np.inf)
        columns["log_density"] = np.where(np.isnan(at_N), np.nan, log_N)
        columns["pit"] = np.where(np.isnan(at_N), np.nan, grid.at(grid.cdf_NG, at_N[:, None])[:, 0])
    is_empty_N = ~(low_N < high_N) | ~np.isfinite(grid.log_total_N)
    for values in columns.values():
        if values.dtype == bool:
            values[is_empty_N] = False
        else:
            values[is_empty_N] = np.nan
    return columns


def _mode(densities: Densities, grid: Grid, tilt: float) -> FloatArray:
    """The l of a grid's range at which p(l) exp(-tilt l) is highest, [N].

    Sought among the points of the grid, then closer about the highest of them.
    """
    l_NG, log_NG = grid.l_NG, _average(grid.log_SNG)
    for _ in range(ZOOMS):
        best_N1 = _highest(log_NG - tilt * l_NG)
        last = l_NG.shape[1] - 1
        left_N1 = np.take_along_axis(l_NG, np.maximum(best_N1 - 1, 0), 1)
        right_N1 = np.take_along_axis(l_NG, np.minimum(best_N1 + 1, last), 1)
        l_NG = left_N1 + (right_N1 - left_N1) * np.linspace(0.0, 1.0, ZOOM_POINTS)
        log_NG = _average(densities.log_density(l_NG))
    return np.take_along_axis(l_NG, _highest(log_NG - tilt * l_NG), 1)[:, 0]


def _highest(value_NG: FloatArray) -> IntArray:
    """The place of the highest value of each row, [N, 1]; of a row of NaN any."""
    return np.asarray(np.argmax(np.where(np.isnan(value_NG), -np.inf, value_NG), axis=1)[:, None])


def _moments(grid: Grid) -> dict[str, FloatArray | BoolArray]:
    """Means and sigmas of R and of l within a grid's range (arXiv 2412.04370, Eqs. 40 to 42)."""
    log_NG = _average(grid.log_SNG)
    p_SNG, p_NG = (
        np.exp(each - each.max(axis=-1, keepdims=True)) for each in (grid.log_SNG, log_NG)
    )
    columns: dict[str, FloatArray | BoolArray] = {}
    for suffix, value_NG in (("", np.exp(LN10 * grid.l_NG)), ("_log10", grid.l_NG)):
        columns[f"mean{suffix}"] = _integral(p_NG * value_NG, grid) / _integral(p_NG, grid)
        mass_SN = _integral(p_SNG, grid)
        mean_SN = _integral(p_SNG * value_NG, grid) / mass_SN
        offset_SNG = value_NG - mean_SN[:, :, None]
        variance_N = (_integral(p_SNG * offset_SNG**2, grid) / mass_SN).mean(axis=0)
        columns[f"sigma_syst{suffix}"] = np.sqrt(variance_N)
        columns[f"sigma_stat{suffix}"] = mean_SN.std(axis=0)
        columns[f"sigma_tot{suffix}"] = np.sqrt(variance_N + mean_SN.var(axis=0))
    return columns


def _integral(values: FloatArray, grid: Grid) -> FloatArray:
    return np.asarray(np.trapezoid(values, grid.l_NG, axis=-1))


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """The same densities, cut elsewhere."""

    densities: Densities
    lower: FloatArray
    upper: FloatArray

    @property
    def num_networks(self) -> int:
        return self.densities.num_networks

    def of_rows(self, rows: IntArray) -> "_Cut":
        return _Cut(self.densities.of_rows(rows), self.lower[rows], self.upper[rows])

    def log_density(self, points_NG: FloatArray) -> FloatArray:
        return self.densities.log_density(points_NG)

    def knots(self) -> FloatArray:
        return self.densities.knots()


def _blocks(densities: Densities) -> list[IntArray]:
    num_rows, size = len(densities.lower), max(BLOCK // densities.num_networks, 1)
    return np.split(np.arange(num_rows), range(size, max(num_rows, 1), size))
