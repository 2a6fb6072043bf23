"""Gaussian mixtures of l = log10 of the target, one per row and network, in float64 NumPy.

The functionals of `functionals` are compiled; tests/reference/gaussian_mixture.py states their
definitions in the terms of this module.

Shapes: S networks (weight samples or members), N rows, K components.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, logsumexp

from pipeline.numerics.arrays import FloatArray, IntArray, RealArray


@dataclass(frozen=True, slots=True)
class Mixtures:
    """Per row the average over S networks of K Gaussians in l, cut to [lower, upper].

    The cut acts on the average, which is then renormalised.

    Attributes:
        log_weights: [S, N, K], normalised over K for each network and row.
        means: [S, N, K], in l.
        sigmas: [S, N, K], in l, positive.
        lower: [N], in l; -inf where nothing is cut off.
        upper: [N], in l; +inf where nothing is cut off.
    """

    log_weights: RealArray
    means: RealArray
    sigmas: RealArray
    lower: RealArray
    upper: RealArray

    @property
    def num_networks(self) -> int:
        """Number S of networks that are averaged."""
        return len(self.means)

    @property
    def num_components(self) -> int:
        """Number K of components of each network's mixture."""
        return int(self.means.shape[2])

    def of_rows(self, rows: IntArray) -> "Mixtures":
        """The mixtures of some rows, by their numbers."""
        return Mixtures(
            log_weights=self.log_weights[:, rows],
            means=self.means[:, rows],
            sigmas=self.sigmas[:, rows],
            lower=self.lower[rows],
            upper=self.upper[rows],
        )


def cdf(mixtures: Mixtures, points: RealArray) -> FloatArray:
    """Probability, [N], of an l below one point a row."""
    lower, upper = _bounds(mixtures)
    clipped = np.clip(np.asarray(points, np.float64), lower, upper)
    masses = _log_masses(_components(mixtures), lower, clipped)
    return np.minimum(np.exp(_sum_log(masses) - _log_total(mixtures)), 1.0)


def component_probabilities(mixtures: Mixtures) -> FloatArray:
    """Probability, [S, N, K], that an l within [lower, upper] is from a network's component."""
    masses = _log_masses(_components(mixtures), *_bounds(mixtures))
    return np.asarray(np.exp(masses - logsumexp(masses, axis=(0, 2), keepdims=True)), np.float64)


def _components(mixtures: Mixtures) -> tuple[FloatArray, FloatArray, FloatArray]:
    weights, means, sigmas = (
        np.asarray(a, np.float64) for a in (mixtures.log_weights, mixtures.means, mixtures.sigmas)
    )
    return weights, means, sigmas


def _bounds(mixtures: Mixtures) -> tuple[FloatArray, FloatArray]:
    return np.asarray(mixtures.lower, np.float64), np.asarray(mixtures.upper, np.float64)


def _log_total(mixtures: Mixtures) -> FloatArray:
    """Log of the mass that [lower, upper] keeps of the averaged mixture, [N]."""
    return _sum_log(_log_masses(_components(mixtures), *_bounds(mixtures)))


def _log_masses(
    components: tuple[FloatArray, FloatArray, FloatArray], low: FloatArray, high: FloatArray
) -> FloatArray:
    """Log of each component's mass within [low, high], [S, N, K].

    log(Phi(b) - Phi(a)); where both are in the upper tail, by symmetry, Phi(-a) - Phi(-b).
    """
    weights, means, sigmas = components
    a, b = (low[:, None] - means) / sigmas, (high[:, None] - means) / sigmas
    a, b = np.where(a > 0, -b, a), np.where(a > 0, -a, b)
    upper, lower = log_ndtr(b), log_ndtr(a)
    with np.errstate(divide="ignore", invalid="ignore"):
        masses = weights + upper + np.log1p(-np.exp(lower - upper))
    return np.where(b > a, masses, -np.inf)


def _sum_log(terms: FloatArray) -> FloatArray:
    """Log of the average over networks of the sum over components, [N]."""
    return np.asarray(logsumexp(terms, axis=(0, 2)) - np.log(terms.shape[0]), np.float64)
