"""Gaussian mixtures as the generic functionals take a density."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from pipeline.densities.gaussian_mixture.parameters import Mixtures


@dataclass(frozen=True)
class MixtureDensities:
    mixtures: Mixtures

    @property
    def num_networks(self):
        return self.mixtures.num_networks

    @property
    def lower(self):
        return self.mixtures.lower

    @property
    def upper(self):
        return self.mixtures.upper

    def of_rows(self, rows):
        return MixtureDensities(self.mixtures.of_rows(rows))

    def log_density(self, points_NG):
        weights, means, sigmas = self._components()
        z = (points_NG[None, :, :, None] - means[:, :, None]) / sigmas[:, :, None]
        terms = (weights - np.log(sigmas))[:, :, None] - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
        return logsumexp(terms, axis=-1)

    def knots(self):
        _, means, sigmas = self._components()
        steps = (-6.5, -3.0, -1.5, -0.7, 0.0, 0.7, 1.5, 3.0, 6.5)
        knots = np.concatenate([means + step * sigmas for step in steps], axis=2)
        return knots.transpose(1, 0, 2).reshape(len(self.lower), -1)

    def _components(self):
        m = self.mixtures
        return (np.asarray(a, np.float64) for a in (m.log_weights, m.means, m.sigmas))
