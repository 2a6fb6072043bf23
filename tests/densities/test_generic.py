"""The functionals of any family against the compiled ones of Gaussian mixtures."""

import numpy as np
import pytest
from reference.mixture_cases import CASES
from reference.mixture_densities import MixtureDensities

from pipeline.densities.gaussian_mixture import crps as kernels
from pipeline.densities.gaussian_mixture.functionals import summarise as compiled
from pipeline.densities.generic import crps_of, summarise

LOW, HIGH = -1.3, 2.2
ROWS = {"posterior": 2, "ensemble": 2}  # of fifty networks, which take a second a row
NARROW = {"narrow": 0.02}  # widths of 1e-3 beside 2, of which a cut leaves the last millionth
USUAL = 2e-3


def some(case):
    mixtures = CASES[case](np.random.default_rng(11))
    rows = np.arange(ROWS.get(case, 10))
    return mixtures.of_rows(rows), np.random.default_rng(1).normal(0, 0.3, len(rows))


@pytest.mark.parametrize(
    ("case", "sigma"), [*((case, "moments") for case in CASES), ("odd", "linearised")]
)
def test_all_columns_are_those_of_the_kernels(case, sigma):
    mixtures, points = some(case)
    options = {"central": "median", "sigma": sigma, "points": points}
    found = summarise(MixtureDensities(mixtures), LOW, HIGH, **options)
    expected = compiled(mixtures, LOW, HIGH, **options)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype == bool:
            np.testing.assert_array_equal(found[name], values)
        else:
            allowed = NARROW.get(case, USUAL)
            np.testing.assert_allclose(
                found[name], values, rtol=allowed, atol=0.5 * allowed, err_msg=name
            )
    for name in ("mode_linear", "mode_log10"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_score_is_that_of_the_kernels(case):
    mixtures, points = some(case)
    found = crps_of(MixtureDensities(mixtures), points)
    np.testing.assert_allclose(found, kernels.crps_of(mixtures, points), atol=3e-4)


def test_without_points_there_is_no_density_at_them():
    mixtures, _ = some("odd")
    columns = summarise(MixtureDensities(mixtures), LOW, HIGH)
    assert columns.keys() == compiled(mixtures, LOW, HIGH).keys()
