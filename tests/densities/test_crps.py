"""The continuous ranked probability score against its closed form and a fine sum."""

import numpy as np
import pytest
import scoringrules
from scipy.special import ndtr

from pipeline.densities.gaussian_mixture.crps import ERROR, crps_of
from pipeline.densities.gaussian_mixture.parameters import Mixtures


def mixtures_of(rng, networks, rows, components, *, upper=np.inf):
    weights = rng.dirichlet(np.ones(components), (networks, rows))
    means = rng.normal(0, 0.3, (networks, rows, components))
    sigmas = 10 ** rng.uniform(-2.5, -0.3, (networks, rows, components))
    edges = np.full(rows, -np.inf), np.full(rows, upper)
    return Mixtures(np.log(weights), means, sigmas, *edges)


def closed_form(mixtures, points):
    """By scoringrules, a library of scoring rules; one network after the other as components."""
    found = []
    for i, point in enumerate(points):
        w, m, s = (
            a[:, i].ravel() for a in (np.exp(mixtures.log_weights), mixtures.means, mixtures.sigmas)
        )
        found.append(scoringrules.crps_mixnorm(point, m, s, w / w.sum()))
    return np.array(found)


@pytest.mark.parametrize(("networks", "components"), [(5, 3), (1, 16), (1, 17), (10, 3)])
def test_within_the_stated_error_of_the_closed_form(networks, components):
    """Up to 16 components it is computed itself, of more the integral."""
    rng = np.random.default_rng(1)
    mixtures = mixtures_of(rng, networks, 300, components)
    points = np.concatenate([rng.normal(0, 0.4, 290), np.linspace(-4, 4, 10)])
    np.testing.assert_allclose(crps_of(mixtures, points), closed_form(mixtures, points), atol=ERROR)


def test_components_far_out_and_very_narrow():
    """One of weight 1e-3 and s = 2 beside one of s = 1e-3."""
    rows = 50
    shape = (1, rows, 2)
    weights = np.broadcast_to(np.log([0.999, 1e-3]), shape)
    sigmas = np.broadcast_to([1e-3, 2.0], shape)
    edge = np.full(rows, np.inf)
    mixtures = Mixtures(weights, np.zeros(shape), sigmas, -edge, edge)
    points = np.linspace(-0.01, 0.01, rows)
    np.testing.assert_allclose(crps_of(mixtures, points), closed_form(mixtures, points), atol=ERROR)


def test_few_components_are_as_good_as_the_closed_form():
    rng = np.random.default_rng(3)
    mixtures = mixtures_of(rng, 1, 200, 3)
    points = rng.normal(0, 0.4, 200)
    found, expected = crps_of(mixtures, points), closed_form(mixtures, points)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_bounds_far_out_change_nothing():
    rng = np.random.default_rng(4)
    free, bounded = (mixtures_of(np.random.default_rng(5), 1, 50, 3, upper=u) for u in (np.inf, 8))
    points = rng.normal(0, 0.4, 50)
    np.testing.assert_array_equal(crps_of(bounded, points), crps_of(free, points))


def test_a_cut_density():
    rng = np.random.default_rng(2)
    mixtures = mixtures_of(rng, 1, 40, 3, upper=0.1)
    points = rng.uniform(-0.8, 0.1, 40)
    x = np.linspace(-6, 0.1, 400_001)
    for i, found in enumerate(crps_of(mixtures, points)):
        w, m, s = np.exp(mixtures.log_weights[0, i]), mixtures.means[0, i], mixtures.sigmas[0, i]
        below = (w * ndtr((x[:, None] - m) / s)).sum(axis=1)
        gap = below / below[-1] - (x >= points[i])
        assert abs(found - np.trapezoid(gap**2, x)) < 2 * ERROR  # the sum has its own error


def test_a_cut_that_leaves_next_to_nothing():
    """Of a narrow component of weight 0.998 below the bound and a wide one about it."""
    parts = np.log([[[0.998, 0.002]]]), np.array([[[-0.22, 0.1]]]), np.array([[[0.01, 0.09]]])
    mixtures = Mixtures(*parts, np.array([-0.12]), np.array([np.inf]))
    x = np.linspace(-0.12, 1.2, 200_001)
    below = (np.exp(parts[0]) * ndtr((x[:, None, None] - parts[1]) / parts[2])).sum(axis=(1, 2))
    below = (below - below[0]) / (1.0 - below[0])
    for point in (-0.05, 0.1, 0.4):
        expected = np.trapezoid((below - (x >= point)) ** 2, x)
        assert crps_of(mixtures, np.array([point]))[0] == pytest.approx(expected, abs=ERROR)


def test_of_a_sure_density_it_is_the_absolute_error():
    shape = (1, 3, 1)
    edge = np.full(3, np.inf)
    sure = Mixtures(np.zeros(shape), np.zeros(shape), np.full(shape, 1e-5), -edge, edge)
    found = crps_of(sure, np.array([-0.3, 0.2, np.nan]))
    np.testing.assert_allclose(found[:2], [0.3, 0.2], atol=ERROR)
    assert np.isnan(found[2])


def test_a_spread_that_is_rounded_to_zero():
    shape = (1, 2, 1)
    edge = np.full(2, np.inf)
    means, sigmas = np.array([1.0, 1e8]).reshape(shape), np.array([1e-8, 0.3]).reshape(shape)
    points = np.array([1.25, 1e8 + 0.25])
    mixtures = Mixtures(np.zeros(shape), means, sigmas, -edge, edge)
    np.testing.assert_allclose(crps_of(mixtures, points), closed_form(mixtures, points), atol=ERROR)
