"""The functionals of a Gaussian mixture in float64 NumPy, as their definitions state them.

Shapes: S networks (weight samples or members), N rows, K components.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.densities.gaussian_mixture.parameters import (
    Mixtures,
    _bounds,
    _components,
    _log_masses,
    _log_total,
    _sum_log,
    cdf,
)
from pipeline.numerics.arrays import FloatArray, RealArray

_LN10 = np.log(10.0)
_FAR = 40.0  # sigmas from the centre at which a Gaussian is zero in float64


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the densities within a range, in R or in l.

    Attributes:
        mean: [N], of the averaged density.
        network_means: [S, N], of each network's density.
        network_variances: [S, N].
    """

    mean: FloatArray
    network_means: FloatArray
    network_variances: FloatArray

    @property
    def sigma_syst(self) -> FloatArray:
        """[N], root of the mean variance of a network (arXiv 2412.04370, Eq. 41)."""
        return np.asarray(np.sqrt(self.network_variances.mean(axis=0)), np.float64)

    @property
    def sigma_stat(self) -> FloatArray:
        """[N], standard deviation, 1 / S, of the means (arXiv 2412.04370, Eq. 42)."""
        return np.asarray(self.network_means.std(axis=0), np.float64)

    @property
    def sigma_tot(self) -> FloatArray:
        """[N], quadratic sum of the two (arXiv 2412.04370, Eq. 40)."""
        return np.hypot(self.sigma_syst, self.sigma_stat)


def log_density(mixtures: Mixtures, points: RealArray) -> FloatArray:
    """Natural log of the density of l, [N], at one point a row; -inf outside [lower, upper]."""
    points = np.asarray(points, np.float64)
    weights, means, sigmas = _components(mixtures)
    z = (points[:, None] - means) / sigmas
    terms = weights - 0.5 * z**2 - np.log(sigmas) - 0.5 * np.log(2 * np.pi)
    inside = (points >= mixtures.lower) & (points <= mixtures.upper)
    return np.where(inside, _sum_log(terms) - _log_total(mixtures), -np.inf)


def quantile(mixtures: Mixtures, p: float) -> FloatArray:
    """The l, [N], below which lies the probability p, by bisection to 1e-10.

    Raises:
        ValueError: if p is not between 0 and 1.
    """
    if not 0.0 < p < 1.0:
        raise ValueError(f"p: expected a probability between 0 and 1, got {p!r}")
    low, high = _finite_bounds(mixtures, *_bounds(mixtures))
    while np.any(high - low > 1e-10 * np.maximum(1.0, np.abs(low))):
        middle = 0.5 * (low + high)
        is_below = cdf(mixtures, middle) < p
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return 0.5 * (low + high)


def linear_moments(mixtures: Mixtures, low: float | RealArray, high: float | RealArray) -> Moments:
    """Mean and variance of R = 10^l within [low, high] in l, cut to [lower, upper] as well.

    For a component (m, s) and L = ln 10, R^j p(l) is a Gaussian of the same width about
    m + j L s^2 with log weight raised by j L m + (j L s)^2 / 2.
    """
    weights, means, sigmas = _components(mixtures)

    def log_integral(power: int, left: FloatArray, right: FloatArray) -> FloatArray:
        shift = power * _LN10 * sigmas
        tilted = (weights + power * _LN10 * means + 0.5 * shift**2, means + shift * sigmas, sigmas)
        return _log_masses(tilted, left, right)

    left, right = _intersection(mixtures, low, high)
    return _moments(lambda power: np.exp(log_integral(power, left, right)))


def log10_moments(mixtures: Mixtures, low: float | RealArray, high: float | RealArray) -> Moments:
    """Mean and variance of l within [low, high], cut to [lower, upper] as well.

    With z the edges in sigmas: the integral of (l - m) is -s [phi], that of (l - m)^2 is
    s^2 (mass - [z phi]).
    """
    left, right = _finite_bounds(mixtures, *_intersection(mixtures, low, high))
    weights, means, sigmas = _components(mixtures)
    mass = np.exp(_log_masses((weights, means, sigmas), left, right))
    edges = [(edge[:, None] - means) / sigmas for edge in (left, right)]
    low_phi, high_phi = (np.exp(weights - 0.5 * z**2) / np.sqrt(2 * np.pi) for z in edges)
    first = sigmas * (low_phi - high_phi)
    second = sigmas**2 * (mass - edges[1] * high_phi + edges[0] * low_phi)
    powers = (mass, means * mass + first, means * (means * mass + 2 * first) + second)
    return _moments(powers.__getitem__)


def _moments(integral: Callable[[int], FloatArray]) -> Moments:
    """From the integrals of x^0, x^1, x^2 per component, [S, N, K]."""
    zeroth, first, second = (integral(power).sum(axis=-1) for power in (0, 1, 2))
    means = first / zeroth
    variances = np.maximum(second / zeroth - means**2, 0.0)
    return Moments(first.sum(axis=0) / zeroth.sum(axis=0), means, variances)


def _intersection(
    mixtures: Mixtures, low: float | RealArray, high: float | RealArray
) -> tuple[FloatArray, FloatArray]:
    lower, upper = _bounds(mixtures)
    return np.maximum(low, lower), np.minimum(high, upper)


def _finite_bounds(
    mixtures: Mixtures, lower: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Infinite bounds replaced by points beyond which no component has any mass."""
    _, means, sigmas = _components(mixtures)
    far_left = np.minimum((means - _FAR * sigmas).min(axis=(0, 2)), upper - 1.0)
    far_right = np.maximum((means + _FAR * sigmas).max(axis=(0, 2)), lower + 1.0)
    return (
        np.where(np.isinf(lower), far_left, lower),
        np.where(np.isinf(upper), far_right, upper),
    )
