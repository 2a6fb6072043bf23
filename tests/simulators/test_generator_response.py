"""The seven components against a scalar restatement, numerical integrals and their own draws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson
from scipy.stats import kstest, norm

from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.formats.seeds import generator
from pipeline.simulators.known_density.features import FEATURES
from pipeline.simulators.known_density.response import (
    COMPONENTS,
    SECOND_TIME_FLOOR,
    draw_with_component,
    response_mixture,
)
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings

WITH = GeneratorSettings()
WITHOUT = GeneratorSettings(resistant=False)

RANGES = {
    "clusterE": (0.2, 1500.0),
    "clusterEta": (-2.4, 2.4),
    "cluster_SIGNIFICANCE": (0.1, 2000.0),
    "cluster_SECOND_TIME": (0.0, 5000.0),
    "cluster_CENTER_LAMBDA": (0.1, 6000.0),
    "cluster_CENTER_MAG": (1400.0, 7500.0),
    "cluster_FIRST_ENG_DENS": (1e-12, 1e-2),
    "cluster_LONGITUDINAL": (0.0, 1.0),
    "cluster_LATERAL": (0.0, 1.0),
    "cluster_PTD": (0.0, 1.0),
    "cluster_ENG_FRAC_EM": (0.0, 1.0),
    "cluster_ISOLATION": (0.0, 1.0),
    "cluster_time": (-130.0, 130.0),
    "nPrimVtx": (1.0, 90.0),
    "avgMu": (0.0, 90.5),
}
anywhere = st.fixed_dictionaries({name: st.floats(*ends) for name, ends in RANGES.items()})


@pytest.fixture(scope="module")
def clusters():
    return draw_clusters(WITH, generator(11, "response"), 20_000)


def rows_of(clusters, num, seed=5):
    """Random rows, a third of them from the Tile gap or out of time."""
    rng = generator(seed, "rows")
    late = np.flatnonzero(np.abs(clusters["cluster_time"]) > 12.0)
    response = clusters["clusterE"] / clusters["cluster_ENG_CALIB_TOT"]
    gap = np.flatnonzero(response > 20.0)
    special = rng.choice(np.concatenate([late, gap]), num // 3, replace=False)
    rows = np.concatenate([special, rng.choice(len(response), num - num // 3, replace=False)])
    return {name: clusters[name][rows] for name in FEATURES}


def expit(value):
    return 1.0 / (1.0 + math.exp(-value)) if value > -700 else 0.0


def twin_shift(row):
    e, y, mu = row["clusterE"], abs(row["clusterEta"]), row["avgMu"]
    vertices = 0.49 * mu + 3.7
    extra = (row["nPrimVtx"] - vertices) / math.sqrt(vertices)
    shift = (0.085 * mu / 35 + 0.01 * extra) / (e**0.75 + 0.45)
    shift += 0.42 / (1 + e / 6) * expit((abs(row["cluster_time"]) - 12.5) / 0.5)
    shift -= 0.055 * math.exp(-(((y - 1.45) / 0.1) ** 2) / 2)
    shift -= 0.02 * math.exp(-(((y - 0.8) / 0.08) ** 2) / 2)
    return shift + 0.012 * math.log10(max(row["cluster_SECOND_TIME"], 1e-3))


def twin_em(row):
    log_e = math.log10(row["clusterE"])
    logit = -3 + 2.5 * (math.log10(row["cluster_FIRST_ENG_DENS"]) - log_e + 6.22 + 0.36 * log_e)
    logit -= 1.6 * max(math.log10(row["cluster_CENTER_LAMBDA"] / 190), -1.0)
    logit += 2 * (row["cluster_ENG_FRAC_EM"] - 0.5)
    logit += 3 * (row["cluster_ISOLATION"] - 0.5)
    logit += 1.5 * (row["cluster_PTD"] - 0.35)
    return expit(logit)


def twin_weights(row, resistant):
    e, y, mu = row["clusterE"], abs(row["clusterEta"]), row["avgMu"]
    f, em = row["cluster_ENG_FRAC_EM"], twin_em(row)
    z = row["cluster_CENTER_MAG"] * math.tanh(y)
    gap = 0.993 * expit((45 - abs(z - 3555)) / 5) * expit((0.35 - abs(y - 1.30)) / 0.02)
    gap *= expit((0.05 - f) / 0.006)
    pileup = 0.085 * (mu / 35 + 0.02) / (1 + e / 2)
    low = 0.015 / (1 + e / 3)
    tough = (0.007 + 0.36 * (mu / 90) ** 2) * (1.25 - 0.75 * f) if resistant else 0.0
    mip = 0.4 * (1.01 - f * f) * expit((0.35 - math.log10(e)) / 0.2)
    peaks = 1 - pileup - low - tough
    em_and_hadronic = [peaks * (1 - mip) * em, peaks * (1 - mip) * (1 - em)]
    outside = [(1 - gap) * w for w in (*em_and_hadronic, peaks * mip, pileup, low, tough)]
    return [*outside[:4], gap, *outside[4:]]


def twin_means(row):
    e, f = row["clusterE"], row["cluster_ENG_FRAC_EM"]
    shift = twin_shift(row)
    hadronic = (0.79 + 0.13 * f**1.5) * (1 + 0.035 * math.log10(e))
    return [
        math.log10(0.995) + shift,
        math.log10(hadronic) + shift - 0.03 * (row["cluster_LONGITUDINAL"] - 0.7),
        math.log10(1 + 0.38 * (1 - f)) + shift,
        math.log10(1.45 + 0.75 * row["avgMu"] / 35 / math.sqrt(e + 0.2)),
        math.log10(49),
        math.log10(0.5) + shift,
        math.log10(3.6) + shift,
    ]


def twin_sigmas(row):
    e = row["clusterE"]
    usual = 0.26 + 0.68 * math.log10(e) + 0.24 * row["cluster_ENG_FRAC_EM"]
    noise = 10 ** (-0.25 * (math.log10(row["cluster_SIGNIFICANCE"]) - usual))
    crowd = 0.02 * row["avgMu"] / 35 / e**0.9
    pairs = ((0.018, 0.056), (0.028, 0.076), (0.045, 0.070))
    peaks = [noise * math.hypot(a, b / math.sqrt(e), crowd) for a, b in pairs]
    return [*peaks, 0.17, 0.07, 0.15, 0.24]


@pytest.mark.parametrize("chosen", [WITH, WITHOUT])
def test_mixture_is_the_scalar_restatement(clusters, chosen):
    features = rows_of(clusters, 300)
    mixtures = response_mixture(features, chosen)
    num = 7 if chosen.resistant else 6
    for i in range(300):
        row = {name: float(features[name][i]) for name in FEATURES}
        weights = twin_weights(row, chosen.resistant)[:num]
        means, sigmas = twin_means(row)[:num], twin_sigmas(row)[:num]
        # A closed gate is 1e-7, not 0.
        np.testing.assert_allclose(np.exp(mixtures.log_weights[0, i]), weights, atol=1e-6)
        np.testing.assert_allclose(mixtures.means[0, i], means, atol=1e-6)
        np.testing.assert_allclose(mixtures.sigmas[0, i], sigmas, rtol=1e-6)
        assert mixtures.upper[i] == pytest.approx(math.log10(row["clusterE"] / 0.3))


def test_shapes_and_bounds(clusters):
    mixtures = response_mixture(clusters, WITH)
    assert mixtures.means.shape == (1, len(clusters["clusterE"]), len(COMPONENTS)) == (1, 20_000, 7)
    assert mixtures.means.shape == mixtures.sigmas.shape == mixtures.log_weights.shape
    assert np.all(mixtures.lower == -np.inf)
    assert response_mixture(clusters, WITHOUT).means.shape == (1, 20_000, 6)
    higher = response_mixture(clusters, GeneratorSettings(min_deposit_gev=3.0))
    np.testing.assert_allclose(mixtures.upper - higher.upper, 1.0)


@settings(max_examples=200, deadline=None)
@given(row=anywhere, resistant=st.booleans())
def test_weights_sum_to_one_and_all_is_finite_anywhere(row, resistant):
    features = {name: np.array([value]) for name, value in row.items()}
    mixtures = response_mixture(features, GeneratorSettings(resistant=resistant))
    assert np.exp(mixtures.log_weights).sum() == pytest.approx(1.0, abs=1e-12)
    for values in (mixtures.log_weights, mixtures.means, mixtures.sigmas, mixtures.upper):
        assert np.all(np.isfinite(values))
    assert np.all(mixtures.sigmas > 0.0)


def same(left, right):
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("log_weights", "means", "sigmas", "lower", "upper")
    )


def test_floored_variance_of_times_changes_nothing(clusters):
    floored = dict(clusters)
    floored["cluster_SECOND_TIME"] = np.maximum(
        clusters["cluster_SECOND_TIME"], np.float32(SECOND_TIME_FLOOR)
    )
    assert np.mean(floored["cluster_SECOND_TIME"] != clusters["cluster_SECOND_TIME"]) > 0.1
    left, right = response_mixture(clusters, WITH), response_mixture(floored, WITH)
    np.testing.assert_allclose(left.means, right.means, rtol=0, atol=1e-9)
    assert np.array_equal(left.log_weights, right.log_weights)
    assert np.array_equal(left.sigmas, right.sigmas)


def test_the_features_alone_matter_in_either_precision(clusters):
    doubled = {name: clusters[name].astype(np.float64) for name in reversed(FEATURES)}
    assert same(response_mixture(clusters, WITH), response_mixture(doubled, WITH))


def test_each_row_stands_for_itself(clusters):
    order = generator(2, "order").permutation(20_000)
    shuffled = {name: clusters[name][order] for name in FEATURES}
    whole, moved = response_mixture(clusters, WITH), response_mixture(shuffled, WITH)
    np.testing.assert_allclose(whole.means[:, order], moved.means, atol=1e-13)
    np.testing.assert_allclose(whole.log_weights[:, order], moved.log_weights, atol=1e-11)


def density(mixtures, row, log_r):
    """The cut mixture of one row on a grid."""
    weights = np.exp(mixtures.log_weights[0, row])
    means, sigmas = mixtures.means[0, row], mixtures.sigmas[0, row]
    accepted = np.sum(weights * norm.cdf((mixtures.upper[row] - means) / sigmas))
    return np.sum(weights * norm.pdf(log_r[:, None], means, sigmas), axis=1) / accepted


def grid(mixtures, row):
    means, sigmas = mixtures.means[0, row], mixtures.sigmas[0, row]
    top = min(mixtures.upper[row], np.max(means + 9.0 * sigmas))
    return np.linspace(np.min(means - 9.0 * sigmas), top, 8_001)


def test_densities_integrate_to_one(clusters):
    mixtures = response_mixture(rows_of(clusters, 60), WITH)
    for row in range(60):
        log_r = grid(mixtures, row)
        assert simpson(density(mixtures, row, log_r), x=log_r) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("power", [1, 2])
def test_moments_in_closed_form(clusters, power):
    """E[R^j] = sum_k w_k exp(j m L + (j s L)^2 / 2) Phi((upper - m - j s^2 L) / s) / S."""
    mixtures = response_mixture(rows_of(clusters, 60, seed=6), WITH)
    log10 = math.log(10.0)
    for row in range(60):
        weights = np.exp(mixtures.log_weights[0, row])
        m, s = mixtures.means[0, row], mixtures.sigmas[0, row]
        upper = mixtures.upper[row]
        moment = np.exp(power * m * log10 + (power * s * log10) ** 2 / 2)
        moment *= norm.cdf((upper - m - power * s**2 * log10) / s)
        closed = np.sum(weights * moment) / np.sum(weights * norm.cdf((upper - m) / s))
        log_r = grid(mixtures, row)
        numeric = simpson(density(mixtures, row, log_r) * 10.0 ** (power * log_r), x=log_r)
        assert numeric == pytest.approx(closed, rel=1e-3)


def many_of_one_row(num):
    """Two networks with three well separated components each, the same in all rows."""
    log_weights = np.log([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    means = np.array([[-1.0, 0.0, 1.0], [-0.5, 0.5, 2.0]])
    sigmas = np.array([[0.1, 0.05, 0.2], [0.1, 0.3, 0.02]])
    rows = [np.repeat(values[:, None, :], num, axis=1) for values in (log_weights, means, sigmas)]
    return Mixtures(*rows, lower=np.full(num, -np.inf), upper=np.full(num, 0.1))


def test_draws_follow_the_average_of_networks():
    mixtures = many_of_one_row(40_000)
    drawn, _ = draw_with_component(generator(3, "draw"), mixtures)
    weights = np.exp(mixtures.log_weights[:, 0]) / 2.0

    def cdf(log_r):
        parts = norm.cdf(log_r[:, None, None], mixtures.means[:, 0], mixtures.sigmas[:, 0])
        return np.sum(weights * parts, axis=(1, 2))

    assert kstest(drawn, cdf).statistic < 1.63 / 200.0
    assert drawn.dtype == np.float64
    assert drawn.max() > 1.9  # not cut at upper


def test_draws_of_different_rows_are_independent():
    drawn, _ = draw_with_component(generator(4, "draw"), many_of_one_row(40_000))
    for lag in (1, 7, 24):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 3.5 / 200.0
