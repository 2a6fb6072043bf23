"""Rows for the compiled kernels: mixtures, and outputs of networks before limits and norms."""

import numpy as np
import pytest
from scipy.special import log_softmax

from pipeline.densities.gaussian_mixture.crps import crps_of
from pipeline.densities.gaussian_mixture.functionals import summarise
from pipeline.densities.gaussian_mixture.network_outputs import NetworkOutputs, blocks_of
from pipeline.densities.gaussian_mixture.parameters import Mixtures

LIMITS = (-6.0, 1.0)


def outputs_of(rng, networks=5, rows=150, components=3):
    """Some logs of variances beyond the limits."""
    parts = [
        rng.normal(0, 0.3, (networks, components, rows)),
        rng.normal(-3.0, 3.0, (networks, components, rows)),
        rng.normal(0, 2.0, (networks, components, rows)),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def mixtures_of(outputs_SPN):
    means, log_variances, logits = np.split(np.moveaxis(outputs_SPN.astype(np.float64), 1, 2), 3, 2)
    edge = np.full(outputs_SPN.shape[2], np.inf)
    sigmas = np.exp(0.5 * np.clip(log_variances, *LIMITS))
    return Mixtures(log_softmax(logits, axis=2), means, sigmas, -edge, edge)


def whole(mixtures, size=64):
    return np.concatenate([block.copy() for _, block in blocks_of(mixtures, size)])


@pytest.mark.parametrize(("networks", "components"), [(1, 1), (5, 3), (50, 5), (17, 2)])
def test_outputs_of_networks_are_limited_and_normalised(networks, components):
    outputs = outputs_of(np.random.default_rng(1), networks, 150, components)
    found, expected = whole(NetworkOutputs(outputs, LIMITS)), whole(mixtures_of(outputs))
    used = networks * components
    np.testing.assert_allclose(found[:, :, :used], expected[:, :, :used], rtol=1e-11, atol=1e-11)
    assert (found[:, 4, used:] < 1e-300).all()


def test_they_have_the_summaries_and_scores_of_their_mixtures():
    outputs = outputs_of(np.random.default_rng(2))
    points = np.random.default_rng(3).normal(0, 0.3, 150)
    raw, mixtures = NetworkOutputs(outputs, LIMITS), mixtures_of(outputs)
    found = summarise(raw, -1.3, 2.2, points=points)
    for name, values in summarise(mixtures, -1.3, 2.2, points=points).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-9, err_msg=name)
    rows = np.array([149, 3, 70])
    np.testing.assert_allclose(
        crps_of(raw.of_rows(rows), points[rows]), crps_of(mixtures, points)[rows], atol=1e-6
    )


def test_logits_far_from_zero_and_from_each_other():
    logits = np.array([[1e6, 1e6 + 1.0], [-900.0, -900.0], [0.0, 2000.0], [0.0, -3e38]], np.float32)
    outputs = np.zeros((4, 6, 1), np.float32)
    outputs[:, 4:, 0] = logits
    found = whole(NetworkOutputs(outputs, LIMITS))[0]
    expected = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    np.testing.assert_allclose(found[4, :8].reshape(2, 4).T, expected, rtol=1e-12, atol=1e-300)
    log_weights = np.maximum(log_softmax(logits.astype(np.float64), axis=1), -1e4)
    np.testing.assert_allclose(found[0, :8].reshape(2, 4).T, log_weights, atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 2, 4])
def test_an_output_that_is_not_finite_makes_its_row_nan(bad, column):
    """But for a log of a variance, which has limits, and for the logit of no weight at all."""
    outputs = outputs_of(np.random.default_rng(4), 3, 10, 2)
    outputs[1, column, 7] = bad
    block = whole(NetworkOutputs(outputs, LIMITS))
    is_usable = (column == 2 and not np.isnan(bad)) or (column == 4 and bad == -np.inf)
    assert np.isnan(block[7]).all() == (not is_usable)
    assert np.isfinite(block[7]).all() == is_usable
    assert np.isfinite(np.delete(block, 7, axis=0)).all()


def test_rows_are_aligned_and_some_at_a_time():
    raw = NetworkOutputs(outputs_of(np.random.default_rng(5)), LIMITS)
    sizes = []
    for rows, block in blocks_of(raw, 64):
        sizes.append((rows.start, rows.stop, len(block)))
        assert block.ctypes.data % 64 == 0
    assert sizes == [(0, 64, 64), (64, 128, 64), (128, 150, 22)]
    np.testing.assert_array_equal(whole(raw, 64), whole(raw, 7))


def test_no_rows():
    raw = NetworkOutputs(np.empty((3, 6, 0), np.float32), LIMITS)
    assert [len(block) for _, block in blocks_of(raw, 64)] == [0]
    assert all(values.shape == (0,) for values in summarise(raw, -1.0, 1.0).values())
