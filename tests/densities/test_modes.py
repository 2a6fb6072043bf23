"""The mode finder against brute force, and its behaviour at bounds and on bad input."""

import numpy as np
import pytest

from pipeline.densities.gaussian_mixture import mode_grid
from pipeline.densities.gaussian_mixture import modes as finder
from pipeline.densities.gaussian_mixture.components import moments_of_rows
from pipeline.densities.gaussian_mixture.network_outputs import blocks_of
from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.densities.gaussian_mixture.records import Components, Grid, Runs, Sketches, Small

LN10 = np.log(10.0)
LOW, HIGH = -1.3, 2.2


def block_of(parameters):
    edge = np.full(parameters[0].shape[1], np.inf)
    ((_, block),) = blocks_of(Mixtures(*parameters, -edge, edge), 2000)
    return block


def find_both_modes(parameters, low, high):
    block = block_of(parameters)
    modes, at_bound = np.full((2, len(low)), np.nan), np.zeros((2, len(low)), bool)
    finder.mode_rows(block, moments_of_rows(block), (low, high), (modes, at_bound))
    return modes, at_bound


def find_modes(parameters, low, high, *, linear):
    modes, at_bound = find_both_modes(parameters, low, high)
    return modes[int(linear)], at_bound[int(linear)]


def normalised(log_weights):
    return log_weights - np.log(np.exp(log_weights).sum(axis=-1, keepdims=True))


def posterior_like(rng, rows):
    """50 networks that agree up to a small scatter of the parameters."""
    shape = (50, rows, 3)
    means = rng.normal(0, 0.2, shape[1:]) + rng.normal(0, 0.02, shape)
    sigmas = np.exp(rng.uniform(np.log(0.02), np.log(0.5), shape[1:]) + rng.normal(0, 0.1, shape))
    weights = normalised(rng.normal(0, 1.5, shape[1:]) + rng.normal(0, 0.2, shape))
    return (weights, means, sigmas), np.full(rows, LOW), np.full(rows, HIGH)


def ensemble_like(rng, rows):
    """Members whose components are permuted and scatter more."""
    (weights, means, sigmas), low, high = posterior_like(rng, rows)
    order = rng.permuted(np.broadcast_to(np.arange(3), means.shape), axis=-1)
    permuted = tuple(np.take_along_axis(a, order, axis=-1) for a in (weights, means, sigmas))
    means = permuted[1] + rng.normal(0, 0.1, means.shape)
    return (permuted[0], means, permuted[2]), low, high


def adversarial(rng, rows, networks=1, components=6):
    """Widths from 1e-3 to 2, centres in and out of ranges of all sizes."""
    shape = (networks, rows, components)
    means = rng.uniform(-3, 4, shape)
    close = rng.random(rows) < 0.4
    means[:, close] = rng.normal(0.2, 0.05, (networks, int(close.sum()), components))
    sigmas = np.exp(rng.uniform(np.log(1e-3), np.log(2.0), shape))
    weights = normalised(rng.normal(0, 4.0, shape))
    low = np.where(rng.random(rows) < 0.5, LOW, rng.uniform(-1.3, 0.3, rows))
    high = np.where(rng.random(rows) < 0.5, HIGH, rng.uniform(0.3, 2.2, rows))
    return (weights, means, sigmas), low, high


def twins(rng, rows):
    """Pairs of equal components from one sigma apart (flat tops) to many."""
    distance = rng.uniform(1.0, 6.0, (rows, 1))
    distance[: rows // 4] = 2.0
    sigmas = np.exp(rng.uniform(np.log(1e-3), np.log(0.5), (rows, 1)))
    means = rng.normal(0, 0.3, (rows, 1)) + 0.5 * distance * sigmas * np.array([-1.0, 1.0])
    parameters = np.full((1, rows, 2), np.log(0.5)), means[None], np.repeat(sigmas, 2, 1)[None]
    return parameters, np.full(rows, LOW), np.full(rows, HIGH)


def with_wide_component(rng, rows):
    """A component of weight 1e-3 and width 2, which owns the linear mode beyond the range."""
    (weights, means, sigmas), low, high = posterior_like(rng, rows)
    weights[..., 0], sigmas[..., 0] = np.log(1e-3), 2.0
    weights[..., 1:] = normalised(weights[..., 1:]) + np.log1p(-1e-3)
    return (weights, means, sigmas), low, high


def cut_through_the_peak(rng, rows):
    parameters, low, high = posterior_like(rng, rows)
    bound = rng.normal(0, 0.2, rows)
    is_upper = rng.random(rows) < 0.5
    return parameters, np.where(is_upper, low, bound), np.where(is_upper, bound, high)


def brute_force(parameters, low, high, tilt):
    """l and log density of the maximum of one row: fine grid, centres, every maximum refined."""
    weights, means, sigmas = (np.asarray(a, np.float64).ravel() for a in parameters)
    weights = weights - tilt * means + 0.5 * (tilt * sigmas) ** 2 - np.log(sigmas)
    means = means - tilt * sigmas**2

    def value(x):
        exponents = weights - 0.5 * ((x[:, None] - means) / sigmas) ** 2
        top = exponents.max(axis=1)
        return top + np.log(np.exp(exponents - top[:, None]).sum(axis=1))

    near = means[:, None] + sigmas[:, None] * np.array([-1.0, 0.0, 1.0])
    x = np.unique(np.clip(np.concatenate([np.linspace(low, high, 1201), near.ravel()]), low, high))
    f = value(x)
    padded = np.concatenate([[-np.inf], f, [-np.inf]])
    is_peak = (f >= padded[:-2]) & (f >= padded[2:]) & (f > f.max() - 0.3)
    best_x, best_f = x[np.argmax(f)], f.max()
    for i in np.flatnonzero(is_peak):
        left, right = x[max(i - 1, 0)], x[min(i + 1, len(x) - 1)]
        while right - left > 1e-7:
            fine = np.linspace(left, right, 21)
            j = int(np.argmax(fine_f := value(fine)))
            left, right = fine[max(j - 1, 0)], fine[min(j + 1, 20)]
            if fine_f[j] > best_f:
                best_x, best_f = fine[j], fine_f[j]
    return best_x, best_f, value


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize(
    ("case", "rows", "options"),
    [
        (posterior_like, 300, {}),
        (ensemble_like, 300, {}),
        (with_wide_component, 200, {}),
        (cut_through_the_peak, 200, {}),
        (twins, 800, {}),
        (adversarial, 1500, {}),
        (adversarial, 300, {"networks": 3, "components": 2}),
        (adversarial, 100, {"networks": 50, "components": 3}),
        (adversarial, 300, {"components": 1}),
    ],
)
def test_same_maximum_as_brute_force(case, rows, options, linear):
    rng = np.random.default_rng(20)
    parameters, low, high = case(rng, rows, **options)
    modes, at_bound = find_modes(parameters, low, high, linear=linear)
    assert np.all((modes >= low) & (modes <= high))
    np.testing.assert_array_equal(at_bound, (modes == low) | (modes == high))
    wrong = []
    for row in range(rows):
        one = [a[:, row] for a in parameters]
        x, f, value = brute_force(one, low[row], high[row], LN10 if linear else 0.0)
        if abs(modes[row] - x) > 1e-4 and value(modes[row : row + 1])[0] < f - 1e-6:
            wrong.append((row, modes[row], x, value(modes[row : row + 1])[0] - f))
    assert not wrong


def single(mean, sigma, low=LOW, high=HIGH, rows=1):
    shape = (1, rows, 1)
    parameters = np.zeros(shape), np.full(shape, mean), np.full(shape, sigma)
    return parameters, np.full(rows, low), np.full(rows, high)


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.3])
def test_single_gaussian(sigma):
    for linear, expected in ((False, 0.1), (True, 0.1 - LN10 * sigma**2)):
        modes, at_bound = find_modes(*single(0.1, sigma), linear=linear)
        np.testing.assert_allclose(modes, expected, atol=1e-8)
        assert not at_bound.any()


@pytest.mark.parametrize(("mean", "expected"), [(-5.0, LOW), (5.0, HIGH), (-60.0, LOW)])
@pytest.mark.parametrize("sigma", [0.01, 0.5])
def test_all_mass_beyond_a_bound(mean, expected, sigma):
    modes, at_bound = find_modes(*single(mean, sigma), linear=False)
    assert modes[0] == expected
    assert at_bound[0]


def test_wide_component_does_not_take_the_mode_away():
    weights = np.log([[[1e-3, 1 - 1e-3]]])
    means, sigmas = np.zeros((1, 1, 2)), np.array([[[2.0, 0.1]]])
    parameters = weights, means, sigmas
    near, far = np.array([[-1.3], [2.2]]), np.array([[-20.0], [20.0]])
    mode, at_bound = find_modes(parameters, *near, linear=True)
    np.testing.assert_allclose(mode, -LN10 * 0.01, atol=1e-3)
    assert not at_bound[0]
    mode, _ = find_modes(parameters, *far, linear=True)
    np.testing.assert_allclose(mode, -LN10 * 4.0, atol=1e-2)


def test_narrow_bump_on_a_broad_top_is_found():
    weights = np.log(np.array([[[1 - 1e-5, 1e-5]]]))
    parameters = weights, np.array([[[0.0, 0.02]]]), np.array([[[0.3, 1e-3]]])
    modes, _ = find_modes(parameters, np.array([LOW]), np.array([HIGH]), linear=False)
    np.testing.assert_allclose(modes, 0.02, atol=1e-4)


def test_far_dominant_component_does_not_hide_a_peak_in_the_range():
    parameters = (
        np.log([[[1 - 1e-8, 1e-8]]]),
        np.array([[[-3.0, 0.5]]]),
        np.array([[[0.1, 0.1]]]),
    )
    modes, at_bound = find_modes(parameters, np.array([LOW]), np.array([HIGH]), linear=False)
    np.testing.assert_allclose(modes, 0.5, atol=1e-6)
    assert not at_bound[0]


def test_order_of_networks_and_components_does_not_matter():
    rng = np.random.default_rng(3)
    for case in (ensemble_like, twins):
        parameters, low, high = case(rng, 200)
        modes, _ = find_modes(parameters, low, high, linear=True)
        permuted = tuple(a[::-1, :, ::-1] for a in parameters)
        again, _ = find_modes(permuted, low, high, linear=True)
        np.testing.assert_allclose(again, modes, atol=1e-7)


def test_row_does_not_depend_on_its_block():
    rng = np.random.default_rng(4)
    parameters, low, high = ensemble_like(rng, 40)
    modes, _ = find_modes(parameters, low, high, linear=True)
    for row in (0, 17, 39):
        one = tuple(np.ascontiguousarray(a[:, row : row + 1]) for a in parameters)
        alone, _ = find_modes(one, low[row : row + 1], high[row : row + 1], linear=True)
        assert alone[0] == modes[row]


def test_float32_views_of_one_output_array():
    rng = np.random.default_rng(5)
    parameters, low, high = posterior_like(rng, 50)
    whole = np.concatenate(parameters, axis=-1).astype(np.float32)
    views = whole[..., :3], whole[..., 3:6], whole[..., 6:]
    copies = tuple(v.astype(np.float64) for v in views)
    modes, _ = find_modes(views, low, high, linear=False)
    expected, _ = find_modes(copies, low, high, linear=False)
    np.testing.assert_array_equal(modes, expected)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_parameter_gives_nan_in_its_row_only(index, bad):
    parameters, low, high = single(0.0, 0.1, rows=3)
    parameters[index][0, 1, 0] = bad
    modes, at_bound = find_modes(parameters, low, high, linear=True)
    np.testing.assert_array_equal(np.isnan(modes), [False, True, False])
    assert not at_bound.any()


def test_width_not_positive_or_range_empty_gives_nan():
    parameters, low, high = single(0.0, 0.1, rows=3)
    parameters[2][0, 0, 0] = 0.0
    parameters[2][0, 1, 0] = -0.1
    low[2] = high[2] + 1.0
    modes, _ = find_modes(parameters, low, high, linear=False)
    assert np.isnan(modes).all()


def test_weight_of_zero_is_no_component():
    weights = np.array([[[0.0, -np.inf]]])
    parameters = weights, np.array([[[0.0, 0.5]]]), np.full((1, 1, 2), 0.1)
    modes, _ = find_modes(parameters, np.array([LOW]), np.array([HIGH]), linear=False)
    np.testing.assert_allclose(modes, 0.0, atol=1e-9)


def test_no_rows():
    empty = np.empty((2, 0, 3))
    modes, at_bound = find_modes((empty,) * 3, np.empty(0), np.empty(0), linear=True)
    assert modes.shape == at_bound.shape == (0,)


@pytest.mark.parametrize("case", [posterior_like, ensemble_like, with_wide_component, adversarial])
@pytest.mark.parametrize("length", [0.0, 40.0])
def test_both_modes_from_one_grid_are_those_found_one_by_one(case, length):
    """Also where the range is too long for one grid in float32."""
    parameters, low, high = case(np.random.default_rng(6), 300)
    low, high = low - length, high + length
    both, at_bound = find_both_modes(parameters, low, high)
    block = block_of(parameters)
    alone, is_bound = np.full_like(both, np.nan), np.zeros_like(at_bound)
    rows, out = (block, moments_of_rows(block), (low, high)), (alone, is_bound)
    sketches = Sketches(np.zeros((300, 4)), np.empty((300, mode_grid.INTERVALS + 8), np.float32))
    for i in range(2):
        finder._search_rows(rows, (0.0, np.inf), (i, i + 1), out, sketches)
    for i, modes in enumerate(alone):
        is_close = np.abs(both[i] - modes) < 1e-6
        for row in np.flatnonzero(~is_close):  # two peaks of the same height, or a flat top
            one = [a[:, row] for a in parameters]
            value = brute_force(one, low[row], high[row], LN10 * i)[2]
            np.testing.assert_allclose(*value(np.array([both[i, row], modes[row]])), atol=1e-6)
        np.testing.assert_array_equal(at_bound[i][is_close], is_bound[i][is_close])


def test_a_row_does_not_depend_on_the_ranges_of_others():
    """One that is too long for one grid, or no number, has no say in how others are searched."""
    rng = np.random.default_rng(9)
    parameters, low, high = adversarial(rng, 40, networks=3, components=4)
    low, high = low - 0.5, high + 0.5
    expected, _ = find_both_modes(parameters, low, high)
    for bound in (-60.0, np.nan):
        others = low.copy()
        others[7] = bound
        modes, _ = find_both_modes(parameters, others, high)
        np.testing.assert_array_equal(np.delete(modes, 7, 1), np.delete(expected, 7, 1))
        assert np.isnan(modes[:, 7]).all() == np.isnan(bound)
    parameters, low, high = adversarial(rng, 40, networks=3, components=4)
    parameters[1][:] = rng.uniform(-40, 40, parameters[1].shape)
    low, high = np.full(40, -60.0), np.full(40, 60.0)
    expected, _ = find_both_modes(parameters, low, high)
    low[7] = np.nan
    modes, _ = find_both_modes(parameters, low, high)
    np.testing.assert_array_equal(np.delete(modes, 7, 1), np.delete(expected, 7, 1))


@pytest.mark.parametrize(
    ("mean", "sigma"), [(-1500.0, 1e-3), (1e37, 0.02), (-1e30, 0.14), (-1e5, 1.0), (3e5, 0.1)]
)
def test_densities_very_far_outside_have_their_mode_at_the_bound(mean, sigma):
    modes, at_bound = find_both_modes(*single(mean, sigma))
    assert (modes == (LOW if mean < 0 else HIGH)).all()
    assert at_bound.all()


def test_densities_by_recurrence_are_those_of_the_exponentials():
    rng = np.random.default_rng(8)
    parameters, _, _ = adversarial(rng, 50, networks=50, components=3)
    parameters = parameters[0], parameters[1], np.maximum(parameters[2], 0.05)
    grid = Grid(-1.5, 1.5, 0.025, 120)
    block = block_of(parameters)
    size = block.shape[2]
    small = Small(*np.empty((4, size), np.float32))
    runs = Runs(*np.empty((3, size), np.float32))
    for row in block:
        mode_grid.shrink_row(Components(*row), 0.0, small)
        quick, exact = np.zeros(128, np.float32), np.zeros(128, np.float32)
        mode_grid.fill_densities(small, grid, runs, quick)
        mode_grid.evaluate_densities(small, grid, exact)
        np.testing.assert_allclose(quick[:121], exact[:121], rtol=1e-3, atol=1e-4 * exact.max())
