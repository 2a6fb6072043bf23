"""The compiled twin against the definitions, closed forms and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.gaussian_mixture import linear_moments, log10_moments, log_density, quantile
from reference.mixture_cases import CASES, build
from scipy.special import erfcx
from scipy.stats import truncnorm

from pipeline.densities.gaussian_mixture.functionals import summarise
from pipeline.densities.gaussian_mixture.parameters import Mixtures, cdf
from pipeline.numerics import special as fastmath

LN10 = np.log(10.0)
LOW, HIGH = -1.3, 2.2
LEVELS = {"q025": 0.025, "q16": 0.16, "median": 0.5, "q84": 0.84, "q975": 0.975}
CENTRAL = ("mode_linear", "mode_log10", "median", "mean")
SIGMAS = ("sigma_syst", "sigma_stat", "sigma_tot")


def single(mean, sigma, lower=-np.inf, upper=np.inf):
    shape = (1, 1, 1)
    parameters = np.zeros(shape), np.full(shape, mean), np.full(shape, sigma)
    return Mixtures(*parameters, np.array([lower]), np.array([upper]))


def density_at(mixtures, points):
    columns = summarise(mixtures, LOW, HIGH, points=points)
    return columns["log_density"], columns["pit"]


def rows_of(mixtures, rows):
    parameters = (a[:, rows] for a in (mixtures.log_weights, mixtures.means, mixtures.sigmas))
    return Mixtures(*parameters, mixtures.lower[rows], mixtures.upper[rows])


@pytest.fixture(params=CASES)
def mixtures(request):
    return CASES[request.param](np.random.default_rng(11))


def test_density_and_pit_of_both_twins(mixtures):
    rng = np.random.default_rng(1)
    for x in (rng.normal(0, 0.3, len(mixtures.lower)), rng.uniform(-9, 9, len(mixtures.lower))):
        log_densities, pit = density_at(mixtures, x)
        np.testing.assert_allclose(log_densities, log_density(mixtures, x), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(pit, cdf(mixtures, x), atol=1e-9)


def test_points_add_two_columns_and_change_nothing(mixtures):
    points = np.random.default_rng(4).normal(0, 0.3, len(mixtures.lower))
    columns, plain = summarise(mixtures, LOW, HIGH, points=points), summarise(mixtures, LOW, HIGH)
    assert columns.keys() - plain.keys() == {"log_density", "pit"}
    for name, values in plain.items():
        np.testing.assert_array_equal(columns[name], values)


def test_quantiles_of_both_twins(mixtures):
    columns = summarise(mixtures, LOW, HIGH)
    for name, p in LEVELS.items():
        exact = quantile(mixtures, p)
        found = np.log10(columns[name])
        is_close = np.abs(found - exact) < 1e-5
        is_flat = log_density(mixtures, exact) < np.log(0.05)
        is_exact = np.abs(cdf(mixtures, found) - p) < 1e-6
        assert np.all(is_close | (is_flat & is_exact))


def test_quantiles_near_the_ends_of_the_grid():
    """Single wide components: the density changes a lot from one point of the grid to the next."""
    mixtures = build(np.random.default_rng(102), 3, 2000, 1, scatter=0.2, widths=(0.1, 1.0))
    columns = summarise(mixtures, LOW, HIGH)
    for name, p in LEVELS.items():
        np.testing.assert_allclose(np.log10(columns[name]), quantile(mixtures, p), atol=1e-5)


def test_a_quantile_in_a_valley():
    """Where one of Newton's steps leaves the largest error that was found."""
    parameters = (np.log([0.98766, 0.01234]), [0.47962, -0.72469], [0.16677, 0.17454])
    edge = np.full(1, np.inf)
    mixtures = Mixtures(*(np.reshape(values, (1, 1, 2)) for values in parameters), -edge, edge)
    columns = summarise(mixtures, LOW, HIGH)
    for name, p in LEVELS.items():
        np.testing.assert_allclose(np.log10(columns[name]), quantile(mixtures, p), atol=1e-5)


def test_moments_of_both_twins(mixtures):
    columns = summarise(mixtures, LOW, HIGH)
    linear, log10 = linear_moments(mixtures, LOW, HIGH), log10_moments(mixtures, LOW, HIGH)
    np.testing.assert_allclose(columns["mean"], linear.mean, rtol=1e-9)
    np.testing.assert_allclose(columns["mean_log10"], log10.mean, rtol=1e-9, atol=1e-9)
    for name in SIGMAS:
        np.testing.assert_allclose(columns[name], getattr(linear, name), rtol=1e-6, atol=1e-9)
        exact = getattr(log10, name)
        np.testing.assert_allclose(columns[f"{name}_log10"], exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.2])
def test_single_gaussian(sigma):
    m = 0.15
    columns = {name: values[0] for name, values in summarise(single(m, sigma), LOW, HIGH).items()}
    mean = 10.0**m * np.exp(0.5 * (LN10 * sigma) ** 2)
    expected = {
        "mode_linear": 10.0 ** (m - LN10 * sigma**2),
        "mode_log10": 10.0**m,
        "median": 10.0**m,
        "q16": 10.0 ** (m - 0.9944578832097535 * sigma),
        "q975": 10.0 ** (m + 1.959963984540054 * sigma),
        "mean": mean,
        "sigma_syst": mean * np.sqrt(np.expm1((LN10 * sigma) ** 2)),
        "sigma_tot": mean * np.sqrt(np.expm1((LN10 * sigma) ** 2)),
        "sigma_syst_log10": sigma,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(columns[name], value, rtol=1e-5, err_msg=name)
    for name in ("sigma_stat", "sigma_stat_log10", "mode_linear_at_bound", "mode_log10_at_bound"):
        assert columns[name] == 0


@given(
    mean=st.floats(-1, 1),
    sigma=st.floats(1e-2, 1.0),
    a=st.floats(-4, 4),
    width=st.floats(0.2, 8),
)
@settings(max_examples=60, deadline=None)
def test_truncated_gaussian(mean, sigma, a, width):
    lower, upper = mean + a * sigma, mean + (a + width) * sigma
    exact = truncnorm(a, a + width, mean, sigma)
    columns = summarise(single(mean, sigma, lower, upper), -50.0, 50.0)
    for name, p in LEVELS.items():
        np.testing.assert_allclose(np.log10(columns[name]), exact.ppf(p), atol=1e-5)
    np.testing.assert_allclose(columns["sigma_tot_log10"], exact.std(), rtol=1e-5)
    mode = np.clip([mean, mean - LN10 * sigma**2], lower, upper)
    np.testing.assert_allclose(np.log10(columns["mode_log10"]), mode[0], atol=1e-5)
    np.testing.assert_allclose(np.log10(columns["mode_linear"]), mode[1], atol=1e-5)
    if abs(a) > 1e-3:
        assert columns["mode_log10_at_bound"][0] == (not lower < mean < upper)
    x = np.array([exact.ppf(0.3)])
    log_densities, pit = density_at(single(mean, sigma, lower, upper), x)
    np.testing.assert_allclose(log_densities, exact.logpdf(x), atol=1e-6)
    np.testing.assert_allclose(pit, 0.3, atol=1e-6)


@pytest.mark.parametrize("distance", [2.0, 8.0, 30.0, 300.0])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_all_mass_far_from_the_range(distance, side):
    """What is left within the range is close to an exponential at the bound, of length s / z."""
    sigma = 0.5
    edge = LOW if side < 0 else HIGH
    columns = summarise(single(edge + side * distance * sigma, sigma), LOW, HIGH)
    depth = np.linspace(0.0, min((HIGH - LOW) / sigma, 40.0 / distance), 1_000_001)
    x = edge - side * depth * sigma
    weight = np.exp(-depth * (distance + 0.5 * depth))
    for values, suffix in ((10.0**x, ""), (x, "_log10")):
        mean = np.average(values, weights=weight)
        sigma_l = np.sqrt(np.average((values - mean) ** 2, weights=weight))
        tolerance = 1e-4 if distance < 100 else 1e-2
        np.testing.assert_allclose(columns[f"sigma_syst{suffix}"], sigma_l, rtol=tolerance)
        if not suffix:
            np.testing.assert_allclose(columns["mean"], mean, rtol=1e-5)


def test_wide_component_with_little_mass_inside():
    weights = np.log(np.full((2, 1, 2), [1e-3, 1 - 1e-3]))
    means = np.full((2, 1, 2), [-9.0, 0.1])
    mixtures = Mixtures(
        weights, means, np.full((2, 1, 2), [2.0, 0.1]), np.array([-np.inf]), np.array([np.inf])
    )
    columns = summarise(mixtures, LOW, HIGH)
    linear, log10 = linear_moments(mixtures, LOW, HIGH), log10_moments(mixtures, LOW, HIGH)
    np.testing.assert_allclose(columns["sigma_syst"], linear.sigma_syst, rtol=1e-9)
    np.testing.assert_allclose(columns["sigma_syst_log10"], log10.sigma_syst, rtol=1e-9)
    np.testing.assert_allclose(columns["mode_linear"], 10 ** (0.1 - LN10 * 0.01), rtol=1e-4)


def test_network_without_mass_in_the_range_counts_like_the_others():
    means = np.array([[[0.0]], [[-40.0]]])
    mixtures = Mixtures(
        np.zeros((2, 1, 1)), means, np.full((2, 1, 1), 0.1), np.full(1, -np.inf), np.full(1, np.inf)
    )
    columns = summarise(mixtures, -1.0, 1.0)
    np.testing.assert_allclose(columns["sigma_stat_log10"], 0.5, rtol=1e-3)
    np.testing.assert_allclose(columns["sigma_syst_log10"], np.sqrt(0.5) * 0.1, rtol=1e-3)
    np.testing.assert_allclose(columns["mean"], np.exp(0.5 * (LN10 * 0.1) ** 2), rtol=1e-9)


@pytest.mark.parametrize("edges", [(-0.2, 0.1), (-0.2, 9.0), (-9.0, 0.1), (-9.0, 9.0)])
@pytest.mark.parametrize("widest", [0.6, 3.0])
def test_moments_where_edges_touch_some_components(edges, widest):
    """Of a wide component times R^2 the centre may be beyond both edges, far from the lower."""
    mixtures = build(np.random.default_rng(9), 20, 60, 3, scatter=0.1, widths=(0.01, widest))
    columns = summarise(mixtures, *edges)
    linear, log10 = linear_moments(mixtures, *edges), log10_moments(mixtures, *edges)
    np.testing.assert_allclose(columns["mean"], linear.mean, rtol=1e-9)
    np.testing.assert_allclose(columns["mean_log10"], log10.mean, rtol=1e-9, atol=1e-9)
    for name in SIGMAS:
        np.testing.assert_allclose(columns[name], getattr(linear, name), rtol=1e-7)
        np.testing.assert_allclose(columns[f"{name}_log10"], getattr(log10, name), rtol=1e-7)


def test_cut_deep_in_the_tail():
    exact = truncnorm(30, np.inf, 0, 0.05)
    mixtures = single(0.0, 0.05, lower=1.5)
    columns = summarise(mixtures, -50.0, 50.0)
    for name, p in LEVELS.items():
        np.testing.assert_allclose(np.log10(columns[name]), exact.ppf(p), atol=1e-8)
    assert columns["mode_log10_at_bound"][0]


def test_gap_between_two_peaks():
    shape = (1, 1, 2)
    mixtures = Mixtures(
        np.full(shape, np.log(0.5)),
        np.array([[[-0.5, 0.5]]]),
        np.full(shape, 0.01),
        np.full(1, -np.inf),
        np.full(1, np.inf),
    )
    columns = {name: np.log10(summarise(mixtures, LOW, HIGH)[name][0]) for name in LEVELS}
    assert -0.45 < columns["median"] < 0.45
    np.testing.assert_allclose(columns["q16"], quantile(mixtures, 0.16)[0], atol=1e-5)
    np.testing.assert_allclose(columns["q84"], quantile(mixtures, 0.84)[0], atol=1e-5)


@pytest.mark.parametrize("central", CENTRAL)
def test_linearised_sigmas(central):
    mixtures = CASES["ensemble"](np.random.default_rng(2))
    moments = summarise(mixtures, LOW, HIGH)
    columns = summarise(mixtures, LOW, HIGH, central, "linearised")
    for name in SIGMAS:
        expected = LN10 * moments[central] * moments[f"{name}_log10"]
        np.testing.assert_array_equal(columns[name], expected)
    assert columns.keys() == moments.keys()


def test_order_of_networks_and_components_does_not_matter(mixtures):
    columns = summarise(mixtures, LOW, HIGH)
    reversed_parameters = (
        a[::-1, :, ::-1] for a in (mixtures.log_weights, mixtures.means, mixtures.sigmas)
    )
    again = summarise(Mixtures(*reversed_parameters, mixtures.lower, mixtures.upper), LOW, HIGH)
    for name, values in columns.items():
        np.testing.assert_allclose(again[name], values, rtol=5e-5, atol=1e-10, err_msg=name)


@given(shift=st.floats(-1.5, 1.5))
@settings(max_examples=10, deadline=None)
def test_shift_of_l_scales_r(shift):
    mixtures = build(np.random.default_rng(3), 5, 40, 3, cut=20)
    moved = Mixtures(
        mixtures.log_weights,
        mixtures.means + shift,
        mixtures.sigmas,
        mixtures.lower + shift,
        mixtures.upper + shift,
    )
    columns, again = summarise(mixtures, LOW, HIGH), summarise(moved, LOW + shift, HIGH + shift)
    for name, values in columns.items():
        factor = 1.0 if name.endswith(("_log10", "_at_bound")) else 10.0**shift
        factor = 10.0**shift if name == "mode_log10" else factor
        expected = values + shift if name == "mean_log10" else factor * values
        np.testing.assert_allclose(again[name], expected, rtol=5e-5, atol=1e-9, err_msg=name)


def test_row_does_not_depend_on_its_block(mixtures):
    columns = summarise(mixtures, LOW, HIGH)
    rows = np.array([3, 57, 90])
    for name, values in summarise(rows_of(mixtures, rows), LOW, HIGH).items():
        np.testing.assert_array_equal(values, columns[name][rows], err_msg=name)


def test_range_per_row_and_float32():
    mixtures = CASES["posterior"](np.random.default_rng(5))
    low, high = np.full(150, LOW), np.full(150, HIGH)
    narrow = Mixtures(
        *(a.astype(np.float32) for a in (mixtures.log_weights, mixtures.means, mixtures.sigmas)),
        mixtures.lower.astype(np.float32),
        mixtures.upper,
    )
    columns = summarise(mixtures, LOW, HIGH)
    for name, values in summarise(narrow, low, high).items():
        np.testing.assert_allclose(values, columns[name], rtol=1e-3, atol=1e-6, err_msg=name)
        assert values.dtype in (np.float64, np.bool_)


def test_bad_rows_are_nan_and_leave_the_others_alone():
    mixtures = CASES["cut"](np.random.default_rng(6))
    good = summarise(mixtures, LOW, HIGH)
    mixtures.means[2, 4, 1] = np.nan
    mixtures.sigmas[0, 9, 0] = 0.0
    columns = summarise(mixtures, LOW, HIGH)
    is_bad = np.isin(np.arange(200), [4, 9])
    for name, values in columns.items():
        np.testing.assert_array_equal(values[~is_bad], good[name][~is_bad])
        assert name.endswith("_at_bound") or np.isnan(values[is_bad]).all()
    log_densities, pit = density_at(mixtures, np.zeros(200))
    np.testing.assert_array_equal(np.isnan(log_densities), is_bad)
    np.testing.assert_array_equal(np.isnan(pit), is_bad)


def test_range_that_misses_the_bounds_gives_nan_but_quantiles():
    columns = summarise(single(0.0, 0.1, upper=-0.05), 0.0, 1.0)
    assert all(np.isnan(columns[name][0]) for name in ("mode_linear", "mean", *SIGMAS))
    assert columns["median"][0] < 10**-0.05


def test_points_outside_the_bounds():
    mixtures = single(0.0, 0.1, -0.1, 0.2)
    for x, probability in ((-0.2, 0.0), (0.3, 1.0), (-np.inf, 0.0), (np.inf, 1.0)):
        log_densities, pit = density_at(mixtures, np.array([x]))
        assert log_densities[0] == -np.inf
        assert pit[0] == probability
    assert np.isnan(density_at(mixtures, np.array([np.nan]))).all()


def test_no_rows():
    empty = np.empty((2, 0, 3))
    nothing = Mixtures(empty, empty, empty, np.empty(0), np.empty(0))
    assert all(values.shape == (0,) for values in summarise(nothing, LOW, HIGH).values())
    assert density_at(nothing, np.empty(0))[0].shape == (0,)


def test_unknown_names():
    with pytest.raises(ValueError, match="central: expected one of"):
        summarise(single(0.0, 0.1), LOW, HIGH, central="mode")
    with pytest.raises(ValueError, match="sigma: expected one of"):
        summarise(single(0.0, 0.1), LOW, HIGH, sigma="exact")


def test_polynomials():
    x = np.random.default_rng(7).uniform(-700, 700, 2000)
    np.testing.assert_allclose([fastmath.exp64(v) for v in x], np.exp(x), rtol=1e-15 * 4)
    x = np.random.default_rng(8).uniform(-80, 80, 2000).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    np.testing.assert_allclose([fastmath.exp32(v) for v in x], exact, rtol=2e-7)
    z = np.concatenate([np.linspace(0, 50, 2000), [1e3, 1e6]])
    exact = 0.5 * erfcx(z / np.sqrt(2))
    np.testing.assert_allclose([fastmath.tail64(v) for v in z], exact, rtol=2e-12)
    tails = np.array([fastmath.tail32(np.float32(v)) for v in z])
    np.testing.assert_allclose(tails, exact, rtol=2e-3)
    np.testing.assert_allclose(tails * np.exp(-(z**2) / 2), exact * np.exp(-(z**2) / 2), atol=2e-7)
