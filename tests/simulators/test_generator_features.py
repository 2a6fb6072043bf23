"""Marginals of events and features: closed forms where there are any, typical values else."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from pipeline.formats.seeds import generator
from pipeline.simulators.known_density.events import draw_events, mean_vertices
from pipeline.simulators.known_density.features import FEATURES, draw_features
from pipeline.simulators.known_density.geometry import cartesian
from pipeline.simulators.known_density.latents import (
    Origin,
    Part,
    draw_em_deposit_share,
    draw_latents,
    expit,
)
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings


@pytest.fixture(scope="module")
def events():
    return draw_events(generator(31, "events"), 40_000, 2.0)


@pytest.fixture(scope="module")
def latents(events):
    return draw_latents(generator(32, "latents"), events)


@pytest.fixture(scope="module")
def features(events, latents):
    return draw_features(generator(33, "features"), events, latents)


@pytest.fixture(scope="module")
def accepted():
    return draw_clusters(GeneratorSettings(), generator(34, "accepted"), 100_000)


def test_pileup_is_on_the_half_integer_grid(events):
    assert np.all(events.mu % 1.0 == 0.5)
    assert events.mu.min() == 0.5
    assert events.mu.max() <= 90.5
    mean = 0.30 * 23 + 0.40 * 36 + 0.26 * 55 + 0.04 * 45
    assert events.mu.mean() == pytest.approx(mean, abs=0.4)


def test_vertices_follow_pileup(events):
    mean = mean_vertices(events.mu)
    pull = (events.num_vertices - mean) / (0.9 * np.sqrt(mean))
    assert events.num_vertices.min() >= 1
    assert pull.mean() == pytest.approx(0.0, abs=0.02)
    assert pull.std() == pytest.approx(1.0, abs=0.03)
    assert np.corrcoef(events.mu, events.num_vertices)[0, 1] == pytest.approx(0.84, abs=0.06)


def test_jets_have_the_stated_density(events):
    def cdf(y):
        return 0.5 + (y - 0.02 * y**3) / (2.0 * (2.0 - 0.02 * 8.0))

    y = events.jet_rapidity.ravel().astype(np.float64)
    assert np.abs(y).max() <= 2.0
    assert kstest(y, cdf).statistic < 1.63 / np.sqrt(len(y))
    assert kstest(events.jet_phi, "uniform", (-np.pi, 2 * np.pi)).statistic < 1.63 / 200.0


def test_multiplicity_is_poisson(events):
    assert events.num_clusters.mean() == pytest.approx(2.0, abs=0.04)
    assert events.num_clusters.var() == pytest.approx(2.0, abs=0.1)


def test_clusters_are_near_a_jet(events, latents):
    jets_y = events.jet_rapidity[latents.event].astype(np.float64)
    jets_phi = events.jet_phi[latents.event, None] + np.array([0.0, np.pi])
    distance = np.hypot(
        latents.rapidity[:, None] - jets_y,
        np.angle(np.exp(1j * (latents.phi[:, None] - jets_phi))),
    ).min(axis=1)
    assert distance.max() < 0.4 + 1e-5
    assert np.all(np.diff(latents.event) >= 0)
    assert np.array_equal(np.bincount(latents.event, minlength=40_000), events.num_clusters)


def test_all_features_are_single_precision_and_finite(features):
    assert tuple(sorted(features)) == tuple(sorted(FEATURES))
    for name, column in features.items():
        assert column.dtype == (np.int32 if name == "nPrimVtx" else np.float32), name
        assert np.all(np.isfinite(column)), name


def test_features_stay_in_their_domains(features):
    positive = (
        "clusterE",
        "cluster_SIGNIFICANCE",
        "cluster_SECOND_TIME",
        "cluster_CENTER_LAMBDA",
        "cluster_FIRST_ENG_DENS",
        "cluster_PTD",
    )
    for name in positive:
        assert features[name].min() > 0.0, name
    for name in ("LONGITUDINAL", "LATERAL", "PTD", "ENG_FRAC_EM", "ISOLATION"):
        column = features[f"cluster_{name}"]
        assert column.min() >= 0.0, name
        assert column.max() <= 1.0, name
    assert np.abs(features["clusterEta"]).max() < 2.4 + 1e-5


def test_gap_clusters_lie_in_the_scintillators(features, latents):
    gap = latents.part == Part.GAP
    rapidity = np.abs(latents.rapidity[gap])
    z = features["cluster_CENTER_MAG"][gap] * np.tanh(rapidity)
    assert 0.005 < gap.mean() < 0.03
    assert rapidity.min() > 0.95
    assert rapidity.max() < 1.65
    assert z.mean() == pytest.approx(3555.0, abs=2.0)
    assert z.std() == pytest.approx(12.0, abs=1.5)
    assert np.all(features["cluster_ENG_FRAC_EM"][gap] == 0.0)
    assert latents.log_energy[gap].min() > 1.05


def test_hadronic_clusters_lie_in_layers_and_not_in_the_crack(features, latents):
    rows = latents.part == Part.HADRONIC_ONLY
    rapidity = np.abs(latents.rapidity[rows])
    distance = features["cluster_CENTER_MAG"][rows]
    z, radius = distance * np.tanh(rapidity), distance / np.cosh(rapidity)
    tile = rapidity < 1.6
    assert not np.any(tile & (z > 2831.0) & (z < 3489.0))
    assert z[tile].max() < 6051.0
    assert np.mean(radius[rapidity < 0.5] > 2200.0) > 0.999
    assert z[~tile].min() > 4100.0
    assert features["cluster_ENG_FRAC_EM"][rows].max() <= 0.12


def test_em_clusters_begin_at_the_front(features, latents):
    rows = latents.part == Part.EM_ONLY
    rapidity = np.abs(latents.rapidity[rows]).astype(np.float64)
    front = np.where(
        rapidity < 1.45,
        1500.0 * np.cosh(rapidity),
        3755.0 / np.tanh(np.maximum(rapidity, 1.0)),
    )
    depth = features["cluster_CENTER_LAMBDA"][rows]
    np.testing.assert_allclose(features["cluster_CENTER_MAG"][rows] - front, depth, atol=0.02)


def test_cartesian_by_hand():
    one = np.array([1000.0], np.float32)
    zero, quarter = np.zeros(1, np.float32), np.array([np.pi / 2], np.float32)
    np.testing.assert_allclose(np.ravel(cartesian(one, zero, zero)), [1000, 0, 0], atol=1e-3)
    np.testing.assert_allclose(np.ravel(cartesian(one, zero, quarter)), [0, 1000, 0], atol=1e-3)
    np.testing.assert_allclose(
        np.ravel(cartesian(one, np.array([20.0], np.float32), zero)), [0, 0, 1000], atol=1e-3
    )


def test_deposit_shares_respect_the_borders():
    origin = np.repeat(np.array(list(Origin), np.int8), 10_000)
    share = draw_em_deposit_share(generator(35, "share"), origin).astype(np.float64)
    assert share[origin == Origin.EM].min() >= 0.9
    assert share[origin == Origin.HADRONIC].max() < 0.1
    composite = share[origin == Origin.COMPOSITE]
    assert 0.1 <= composite.min() < composite.max() < 0.9


def test_times_repeat_with_the_bunches(features):
    time = features["cluster_time"]
    hard = features["clusterE"] > 3.0
    late = time[hard & (np.abs(time) > 12.5)]
    phase = late - 25.0 * np.rint(late / 25.0)
    assert np.abs(late).max() < 120.0
    assert np.median(np.abs(phase)) < 2.0
    core = time[(features["clusterE"] > 0.95) & (features["clusterE"] < 1.05)]
    core = core[np.abs(core) < 12.5]
    assert core.std() == pytest.approx(np.hypot(0.6, 2.7), rel=0.06)


def test_expit_is_the_logistic_function():
    value = np.linspace(-1000.0, 1000.0, 4001, dtype=np.float32)
    expected = norm.cdf(0.0) * (1.0 + np.tanh(value.astype(np.float64) / 2.0))
    np.testing.assert_allclose(expit(value), expected, atol=1e-6)


# Medians of simulated clusters of 0.3-1 GeV and above 5 GeV; that selection favours R near 1.
TYPICAL = {
    "cluster_SIGNIFICANCE": (2.4, 14.0, 0.4),
    "cluster_FIRST_ENG_DENS": (4.3e-7, 1.6e-6, 0.8),
    "cluster_LONGITUDINAL": (0.61, 0.82, 0.1),
    "cluster_LATERAL": (0.69, 0.89, 0.1),
    "cluster_PTD": (0.42, 0.27, 0.15),
    "cluster_ENG_FRAC_EM": (0.94, 0.91, 0.15),
    "cluster_ISOLATION": (0.79, 0.50, 0.15),
    "nPrimVtx": (20.0, 21.0, 0.15),
    "avgMu": (33.0, 35.0, 0.15),
}


@pytest.mark.parametrize("name", TYPICAL)
def test_typical_values(accepted, name):
    low, high, tolerance = TYPICAL[name]
    energy = accepted["clusterE"]
    soft, hard = (energy > 0.3) & (energy < 1.0), energy > 5.0
    assert np.median(accepted[name][soft]) == pytest.approx(low, rel=tolerance)
    assert np.median(accepted[name][hard]) == pytest.approx(high, rel=tolerance)


def test_shape_moments_are_correlated(accepted):
    energy = accepted["clusterE"]
    soft = (energy > 0.3) & (energy < 1.0)
    ptd, lateral = accepted["cluster_PTD"][soft], accepted["cluster_LATERAL"][soft]
    density = np.log10(accepted["cluster_FIRST_ENG_DENS"][soft])
    depth = np.log10(accepted["cluster_CENTER_LAMBDA"][soft])
    assert -0.8 < np.corrcoef(ptd, lateral)[0, 1] < -0.4
    assert np.corrcoef(density, accepted["cluster_ENG_FRAC_EM"][soft])[0, 1] > 0.4
    assert np.corrcoef(density, depth)[0, 1] < -0.4


def test_spikes(accepted):
    energy, fraction = accepted["clusterE"], accepted["cluster_ENG_FRAC_EM"]
    soft = (energy > 0.3) & (energy < 1.0)
    assert np.mean(fraction[soft] == 1.0) == pytest.approx(0.38, abs=0.06)
    assert np.mean(fraction[energy > 5.0] == 1.0) == pytest.approx(0.09, abs=0.04)
    assert np.mean(fraction[soft] == 0.0) == pytest.approx(0.04, abs=0.02)
    assert np.mean(accepted["cluster_ISOLATION"][soft] == 1.0) == pytest.approx(0.14, abs=0.04)
    assert 0.15 < np.mean(accepted["cluster_SECOND_TIME"] < 1e-3) < 0.4
