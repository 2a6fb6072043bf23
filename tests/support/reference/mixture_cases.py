"""Gaussian mixtures of many kinds, on which two ways to the same numbers are compared."""

import numpy as np

from pipeline.densities.gaussian_mixture.parameters import Mixtures


def build(rng, networks, rows, components, *, scatter=0.02, widths=(0.02, 0.5), cut=None):
    """Networks that agree up to a scatter; cut is how many rows have bounds."""
    shape = (networks, rows, components)
    means = rng.normal(0, 0.2, shape[1:]) + rng.normal(0, scatter, shape)
    log_sigmas = rng.uniform(*np.log(widths), shape[1:]) + rng.normal(0, scatter, shape)
    weights = rng.normal(0, 1.5, shape[1:]) + rng.normal(0, scatter, shape)
    weights -= np.log(np.exp(weights).sum(axis=-1, keepdims=True))
    lower, upper = np.full(rows, -np.inf), np.full(rows, np.inf)
    if cut is not None:
        lower[:cut:2], upper[:cut:3] = rng.normal(-0.3, 0.2), rng.normal(0.3, 0.2)
    return Mixtures(weights, means, np.exp(log_sigmas), lower, upper)


CASES = {
    "posterior": lambda rng: build(rng, 50, 150, 3),
    "ensemble": lambda rng: build(rng, 50, 150, 3, scatter=0.3),
    "exact": lambda rng: build(rng, 1, 300, 7, cut=200),
    "cut": lambda rng: build(rng, 5, 200, 3, scatter=0.1, cut=200),
    "narrow": lambda rng: build(rng, 2, 300, 3, widths=(1e-3, 2.0), cut=100),
    "odd": lambda rng: build(rng, 3, 100, 1, scatter=0.2, widths=(0.1, 1.0)),
}
