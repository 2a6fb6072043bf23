"""The definitions against closed forms, scipy's truncated normal and numerical integration."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.gaussian_mixture import linear_moments, log10_moments, log_density, quantile
from scipy.integrate import quad
from scipy.stats import norm, truncnorm

from pipeline.densities.gaussian_mixture.parameters import Mixtures, cdf

LN10 = np.log(10.0)


def single(mean, sigma, lower=-np.inf, upper=np.inf):
    shape = (1, 1, 1)
    parameters = np.zeros(shape), np.full(shape, mean), np.full(shape, sigma)
    return Mixtures(*parameters, np.array([lower]), np.array([upper]))


def random_mixtures(seed, networks=4, rows=3, components=3, *, is_cut=True):
    rng = np.random.default_rng(seed)
    shape = (networks, rows, components)
    weights = rng.normal(0, 1, shape)
    weights -= np.log(np.exp(weights).sum(axis=-1, keepdims=True))
    sigmas = np.exp(rng.uniform(np.log(0.05), np.log(0.8), shape))
    lower, upper = np.full(rows, -np.inf), np.full(rows, np.inf)
    if is_cut:
        lower[::2], upper[::3] = -0.4, 0.5
    return Mixtures(weights, rng.normal(0, 0.4, shape), sigmas, lower, upper)


def plain_density(mixtures, row, x):
    """The averaged mixture of a row without cuts, by the formula."""
    w, m, s = (a[:, row] for a in (mixtures.log_weights, mixtures.means, mixtures.sigmas))
    return float((np.exp(w) * norm.pdf(x, m, s)).sum() / len(w))


@given(
    mean=st.floats(-2, 2),
    sigma=st.floats(1e-3, 2),
    a=st.floats(-6, 5),
    width=st.floats(0.1, 10),
    p=st.floats(0.01, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_truncated_gaussian(mean, sigma, a, width, p):
    exact = truncnorm(a, a + width, mean, sigma)
    lower, upper = mean + a * sigma, mean + (a + width) * sigma
    mixtures = single(mean, sigma, lower, upper)
    x = np.clip(exact.ppf(p), lower, upper)
    points = np.array([x])
    np.testing.assert_allclose(log_density(mixtures, points), exact.logpdf(x), atol=1e-6)
    np.testing.assert_allclose(cdf(mixtures, points), exact.cdf(x), atol=1e-7)
    np.testing.assert_allclose(cdf(mixtures, quantile(mixtures, p)), p, atol=1e-6)
    moments = log10_moments(mixtures, -np.inf, np.inf)
    np.testing.assert_allclose(moments.mean, exact.mean(), atol=1e-6 * sigma + 1e-12)
    np.testing.assert_allclose(moments.sigma_syst, exact.std(), rtol=1e-5)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.6])
def test_log_normal_moments(sigma):
    moments = linear_moments(single(0.2, sigma), -np.inf, np.inf)
    mean = 10**0.2 * np.exp(0.5 * (LN10 * sigma) ** 2)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-12)
    expected = mean * np.sqrt(np.expm1((LN10 * sigma) ** 2))
    np.testing.assert_allclose(moments.sigma_syst, expected, rtol=1e-8)
    np.testing.assert_array_equal(moments.sigma_stat, 0.0)


def test_far_tail_of_a_cut_gaussian():
    mixtures = single(0.0, 0.01, lower=1.0)  # a hundred sigmas away
    points = np.array([1.0001])
    exact = truncnorm(100, np.inf, 0, 0.01)
    np.testing.assert_allclose(log_density(mixtures, points), exact.logpdf(1.0001), rtol=1e-9)
    np.testing.assert_allclose(cdf(mixtures, points), exact.cdf(1.0001), rtol=1e-6)
    np.testing.assert_allclose(quantile(mixtures, 0.5), exact.median(), atol=1e-9)


def test_outside_the_bounds():
    mixtures = single(0.0, 0.1, -0.1, 0.2)
    for x, probability in ((-0.2, 0.0), (0.3, 1.0), (-np.inf, 0.0), (np.inf, 1.0)):
        assert log_density(mixtures, np.array([x]))[0] == -np.inf
        assert cdf(mixtures, np.array([x]))[0] == probability


def test_density_integrates_to_one_and_cdf_is_its_integral():
    mixtures = random_mixtures(1)
    for row in range(3):
        one = Mixtures(
            *(a[:, row : row + 1] for a in (mixtures.log_weights, mixtures.means, mixtures.sigmas)),
            mixtures.lower[row : row + 1],
            mixtures.upper[row : row + 1],
        )
        lower, upper = max(mixtures.lower[row], -6.0), min(mixtures.upper[row], 6.0)
        density = partial(plain_density, mixtures, row)
        total = quad(density, lower, upper, limit=400)[0]
        part = quad(density, lower, 0.1, limit=400)[0]
        point = np.array([0.1])
        expected = plain_density(mixtures, row, 0.1) / total
        np.testing.assert_allclose(np.exp(log_density(one, point)), expected, rtol=1e-7)
        np.testing.assert_allclose(cdf(one, point), part / total, rtol=1e-7)


@pytest.mark.parametrize("is_linear", [True, False])
def test_moments_against_integration(is_linear):
    mixtures = random_mixtures(2)
    low, high = -0.7, 0.9
    moments = (linear_moments if is_linear else log10_moments)(mixtures, low, high)
    for row in range(3):
        left, right = max(low, mixtures.lower[row]), min(high, mixtures.upper[row])
        sums = np.zeros((4, 3))
        for s in range(4):
            w, m, sigma = (
                a[s, row] for a in (mixtures.log_weights, mixtures.means, mixtures.sigmas)
            )
            for power in range(3):
                sums[s, power] = quad(
                    lambda x, w=w, m=m, sigma=sigma, power=power: (
                        (np.exp(w) * norm.pdf(x, m, sigma)).sum()
                        * (10.0**x if is_linear else x) ** power
                    ),
                    left,
                    right,
                    epsabs=1e-12,
                )[0]
        means = sums[:, 1] / sums[:, 0]
        variances = sums[:, 2] / sums[:, 0] - means**2
        np.testing.assert_allclose(moments.network_means[:, row], means, rtol=1e-7)
        np.testing.assert_allclose(moments.network_variances[:, row], variances, rtol=1e-6)
        np.testing.assert_allclose(moments.mean[row], sums[:, 1].sum() / sums[:, 0].sum())
        syst, stat = variances.mean(), ((means - means.mean()) ** 2).mean()
        np.testing.assert_allclose(moments.sigma_syst[row], np.sqrt(syst), rtol=1e-6)
        np.testing.assert_allclose(moments.sigma_stat[row], np.sqrt(stat), rtol=1e-6)
        np.testing.assert_allclose(moments.sigma_tot[row], np.sqrt(syst + stat), rtol=1e-6)


def test_total_variance_is_that_of_the_averaged_density():
    mixtures = random_mixtures(3, is_cut=False)
    weights = np.exp(mixtures.log_weights) / 4
    mean = (weights * mixtures.means).sum(axis=(0, 2))
    square = (weights * (mixtures.means**2 + mixtures.sigmas**2)).sum(axis=(0, 2))
    moments = log10_moments(mixtures, -np.inf, np.inf)
    np.testing.assert_allclose(moments.sigma_tot**2, square - mean**2, rtol=1e-9)


@given(seed=st.integers(0, 1000), p=st.floats(1e-3, 1 - 1e-3))
@settings(max_examples=30, deadline=None)
def test_quantile_inverts_cdf(seed, p):
    mixtures = random_mixtures(seed)
    np.testing.assert_allclose(cdf(mixtures, quantile(mixtures, p)), p, atol=1e-8)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.5, np.nan])
def test_quantile_of_no_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile(single(0.0, 1.0), p)
