"""What a sample is made of: events, positions, acceptance, reproducibility."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm

from pipeline.formats.seeds import generator
from pipeline.simulators.known_density.events import draw_events
from pipeline.simulators.known_density.features import FEATURES, draw_features
from pipeline.simulators.known_density.latents import draw_latents
from pipeline.simulators.known_density.response import response_mixture
from pipeline.simulators.known_density.sample import RUN_NUMBER, draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings

NUM = 40_000
INTEGERS = {
    "nPrimVtx": np.int32,
    "runNumber": np.int32,
    "eventNumber": np.int64,
    "clusterIndex": np.int32,
    "nCluster": np.int32,
    "cluster_RESPONSE_COMPONENT": np.int32,
}
OTHERS = {
    "clusterPhi",
    "clusterPt",
    "cluster_CENTER_X",
    "cluster_CENTER_Y",
    "cluster_CENTER_Z",
    "cluster_ENG_CALIB_TOT",
    "cluster_ENG_CALIB_FRAC_EM",
    "cluster_EM_PROBABILITY",
    "cluster_HAD_WEIGHT",
}


def draw(num=NUM, seed=1, first_event=1, **chosen):
    rng = generator(seed, "sample")
    return draw_clusters(GeneratorSettings(**chosen), rng, num, first_event)


@pytest.fixture(scope="module")
def sample():
    return draw()


def test_columns_types_and_lengths(sample):
    assert set(sample) == {*FEATURES, *INTEGERS, *OTHERS}
    for name, column in sample.items():
        assert column.shape == (NUM,), name
        assert column.dtype == INTEGERS.get(name, np.float32), name
        assert np.all(np.isfinite(column)), name


def test_same_seed_same_content_and_other_seed_other_content(sample):
    again, other = draw(), draw(seed=2)
    assert all(np.array_equal(sample[name], again[name]) for name in sample)
    assert not np.array_equal(sample["clusterE"], other["clusterE"])


def test_a_longer_sample_begins_with_the_shorter(sample):
    longer = draw(2 * NUM)
    whole = sample["eventNumber"] != sample["eventNumber"][-1]
    for name, column in sample.items():
        rows = whole if name == "nCluster" else slice(None)
        assert np.array_equal(column[rows], longer[name][:NUM][rows]), name


def test_numbers_given_by_the_caller(sample):
    moved = draw(first_event=1001)
    assert np.array_equal(moved["eventNumber"], sample["eventNumber"] + 1000)
    assert np.array_equal(moved["clusterE"], sample["clusterE"])
    assert set(sample["runNumber"]) == {RUN_NUMBER}
    rng = generator(1, "sample")
    other = draw_clusters(GeneratorSettings(), rng, 10, run_number=7)
    assert set(other["runNumber"]) == {7}


@pytest.mark.parametrize("mean", [1.0, 24.0, 500.0])
@pytest.mark.parametrize("num", [0, 1, 333, 20_000])
def test_events_are_whole_and_share_their_columns(num, mean):
    sample = draw(num, mean_clusters_per_event=mean)
    events = sample["eventNumber"]
    numbers, starts, counts = np.unique(events, return_index=True, return_counts=True)
    assert len(events) == num
    assert np.array_equal(numbers, np.arange(1, len(numbers) + 1))
    assert np.all(np.diff(events) >= 0)
    for name in ("avgMu", "nPrimVtx", "runNumber"):
        assert np.array_equal(sample[name], np.repeat(sample[name][starts], counts)), name
    assert np.array_equal(sample["nCluster"], np.repeat(counts, counts))
    index = np.concatenate([np.arange(0), *(np.arange(count) for count in counts)])
    assert np.array_equal(sample["clusterIndex"], index)


def test_multiplicity_before_the_cut(sample):
    counts = np.bincount(sample["eventNumber"])[1:-1]
    assert 0.88 * 24.0 < counts.mean() < 0.91 * 24.0


def test_negative_number_is_refused():
    with pytest.raises(ValueError, match="num_clusters must not be negative, got -1"):
        draw(-1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_deposit_gev": 0.0},
        {"min_deposit_gev": float("nan")},
        {"mean_clusters_per_event": 0.5},
        {"resitant": False},
    ],
)
def test_settings_refuse(wrong):
    with pytest.raises(ValidationError):
        GeneratorSettings(**wrong)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        GeneratorSettings().resistant = False


@pytest.mark.parametrize("minimum", [0.1, 0.3, 0.7, 5.0])
def test_deposits_are_strictly_above_the_minimum(minimum):
    deposit = draw(5_000, min_deposit_gev=minimum)["cluster_ENG_CALIB_TOT"]
    assert np.all(deposit > minimum)  # compared in float32
    assert np.all(deposit.astype(np.float64) > minimum)


def test_acceptance_is_the_integral_of_the_mixture():
    chosen = GeneratorSettings(min_deposit_gev=1.0)
    rng = generator(5, "proposals")
    events = draw_events(rng, 2_000, 24.0)
    mixtures = response_mixture(draw_features(rng, events, draw_latents(rng, events)), chosen)
    inside = norm.cdf((mixtures.upper[:, None] - mixtures.means[0]) / mixtures.sigmas[0])
    expected = np.mean(np.sum(np.exp(mixtures.log_weights[0]) * inside, axis=1))
    counts = np.bincount(draw(60_000, min_deposit_gev=1.0)["eventNumber"])[1:-1]
    assert counts.mean() / 24.0 == pytest.approx(expected, abs=0.01)


def test_positions_agree(sample):
    x, y, z = (sample[f"cluster_CENTER_{axis}"].astype(np.float64) for axis in "XYZ")
    distance = sample["cluster_CENTER_MAG"].astype(np.float64)
    np.testing.assert_allclose(np.sqrt(x**2 + y**2 + z**2), distance, rtol=2e-6)
    np.testing.assert_allclose(np.arctanh(z / distance), sample["clusterEta"], atol=2e-5)
    phi = sample["clusterPhi"].astype(np.float64)
    np.testing.assert_allclose(np.cos(np.arctan2(y, x) - phi), 1.0, atol=1e-10)
    assert np.all(np.abs(phi) <= np.float32(np.pi))
    assert distance.min() > 1450.0
    assert distance.max() < 7200.0


def test_transverse_momentum(sample):
    expected = sample["clusterE"] / np.cosh(sample["clusterEta"].astype(np.float64))
    np.testing.assert_allclose(sample["clusterPt"], expected, rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    num=st.integers(0, 2_000),
    mean=st.floats(1.0, 1000.0),
    minimum=st.floats(0.01, 3.0),
    resistant=st.booleans(),
)
def test_any_settings_give_the_number_asked_for(num, mean, minimum, resistant):
    sample = draw(num, mean_clusters_per_event=mean, min_deposit_gev=minimum, resistant=resistant)
    assert {len(column) for column in sample.values()} == {num}
    assert np.all(sample["cluster_ENG_CALIB_TOT"] > minimum)
