"""The two-sided Gaussian against samples whose widths are known."""

import numpy as np
import pytest

from pipeline.statistics.binning import Spacing
from pipeline.statistics.gaussian_fit import fit_core
from pipeline.statistics.histogram import FineHistogram

PULL = Spacing(scale="linear", low=-20.0, high=20.0, cells=8_000)


def two_sided(random, rows, mean, left, right):
    """A sample of a Gaussian with two widths."""
    below = random.random(rows) < left / (left + right)
    size = np.abs(random.normal(0, 1, rows))
    return mean + np.where(below, -left, right) * size


@pytest.mark.parametrize(
    ("mean", "left", "right"), [(0.0, 1.0, 1.0), (0.3, 0.5, 0.8), (-1.0, 0.3, 0.25), (0.1, 3, 2)]
)
def test_widths_are_found(mean, left, right):
    values = two_sided(np.random.default_rng(1), 200_000, mean, left, right)
    fit = fit_core(FineHistogram.of(values, PULL))
    assert fit is not None
    assert abs(fit.mean - mean) < 5 * fit.mean_error
    assert abs(fit.left - left) < 5 * fit.left_error
    assert abs(fit.right - right) < 5 * fit.right_error
    assert fit.left_error < 0.02 * left
    assert fit.height == pytest.approx(2 / (left + right) / np.sqrt(2 * np.pi), rel=0.02)


def test_errors_are_the_spread_of_fits():
    random = np.random.default_rng(2)
    fits = [fit_core(FineHistogram.of(random.normal(0, 1, 3_000), PULL)) for _ in range(60)]
    spread = np.std([fit.left for fit in fits])
    assert np.mean([fit.left_error for fit in fits]) == pytest.approx(spread, rel=0.3)
    assert np.mean([fit.width for fit in fits]) == pytest.approx(1, abs=0.02)


def test_tails_do_not_widen_the_core():
    random = np.random.default_rng(3)
    core, tails = random.normal(0, 0.5, 80_000), random.standard_t(1.5, 10_000) * 2
    fit = fit_core(FineHistogram.of(np.concatenate([core, tails]), PULL))
    assert fit is not None
    assert fit.width == pytest.approx(0.5, abs=0.03)


def test_weights_change_neither_widths_nor_errors_when_scaled():
    random = np.random.default_rng(4)
    values, weights = random.normal(0, 1, 20_000), random.uniform(0.5, 1.5, 20_000)
    one = fit_core(FineHistogram.of(values, PULL, weights=weights))
    two = fit_core(FineHistogram.of(values, PULL, weights=1e4 * weights))
    assert one is not None
    assert two is not None
    assert two.width == pytest.approx(one.width, rel=1e-5)
    assert two.left_error == pytest.approx(one.left_error, rel=1e-3)
    assert two.height == pytest.approx(one.height, rel=1e-5)


@pytest.mark.parametrize(
    "values",
    [np.zeros(0), np.zeros(5_000), np.linspace(-1, 1, 100), np.full(3_000, np.nan)],
    ids=["no rows", "one value", "few rows", "no numbers"],
)
def test_no_core_no_fit(values):
    assert fit_core(FineHistogram.of(values, PULL)) is None
