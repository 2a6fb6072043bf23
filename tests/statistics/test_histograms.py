"""Fine histograms, their quantiles and moments against exact values."""

import itertools
import math

import numpy as np
import pytest
from evaluation_fixtures import plain
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.statistics.binning import OUTSIDE, Spacing
from pipeline.statistics.distribution import Distribution
from pipeline.statistics.histogram import FineHistogram
from pipeline.statistics.moments import BinMoments

RATIO = Spacing(scale="log", low=1e-3, high=1e3, cells=14_000)
LINEAR = Spacing(scale="linear", low=-2.0, high=2.0, cells=40)


def exact_narrowest(values, content=0.68):
    """The definition (Eq. 37): the smallest width that holds the content, among sorted values."""
    ordered = np.sort(values)
    inside = math.ceil(content * len(ordered) - 1e-9)
    widths = ordered[inside - 1 :] - ordered[: len(ordered) - inside + 1]
    return widths.min()


def slow_narrowest(low, high, weights, content):
    """Scan of left ends in small steps over an evenly filled histogram."""
    knots = np.unique(np.concatenate([low, high]))
    filled = (
        np.array([np.sum(weights * np.clip((x - low) / (high - low), 0, 1)) for x in knots])
        / weights.sum()
    )
    best = np.inf
    for left in np.linspace(knots[0], knots[-1], 4001):
        level = np.interp(left, knots, filled) + content
        if level <= 1:
            best = min(best, np.interp(level, filled, knots) - left)
    return best


def same(first, second):
    assert first.spacing == second.spacing
    assert first.num_bins == second.num_bins
    assert first.outside == second.outside
    np.testing.assert_array_equal(first.fine_bins, second.fine_bins)
    np.testing.assert_array_equal(first.counts, second.counts)
    np.testing.assert_allclose(first.weights, second.weights, rtol=1e-12)
    np.testing.assert_allclose(first.squares, second.squares, rtol=1e-12)


class TestSpacing:
    def test_values_fall_between_the_edges_of_their_cell(self):
        random = np.random.default_rng(0)
        for spacing in (RATIO, LINEAR):
            values = random.uniform(spacing.low, spacing.high, 5_000)
            edges, index = spacing.edges(), spacing.index(values)
            slack = 1e-12 * np.abs(values)
            assert np.all(edges[index - 1] <= values + slack)
            assert np.all(values <= edges[index] + slack)

    def test_flow_and_what_is_no_number(self):
        values = np.array([-np.inf, -1.0, 0.0, 1e-4, 1e3, 1e9, np.inf, np.nan])
        assert RATIO.index(values).tolist() == [0, 0, 0, 0, 14_001, 14_001, 14_001, OUTSIDE]

    def test_default_resolution_is_a_thousandth(self):
        assert RATIO.resolution < 1e-3
        assert LINEAR.resolution == pytest.approx(0.1)

    @pytest.mark.parametrize(("scale", "low", "high"), [("log", 0.0, 1.0), ("linear", 1.0, 1.0)])
    def test_impossible_ranges_are_refused(self, scale, low, high):
        with pytest.raises(ValueError, match="low"):
            Spacing(scale=scale, low=low, high=high, cells=3)


class TestQuantiles:
    @pytest.mark.parametrize("probability", [0.025, 0.16, 0.5, 0.84, 0.975])
    def test_off_by_one_cell_at_most(self, probability):
        values = np.random.default_rng(1).lognormal(0.1, 0.4, 20_001)
        found = FineHistogram.of(values, RATIO).distribution().quantile(probability)
        exact = np.quantile(values, probability, method="inverted_cdf")
        assert abs(found / exact - 1) <= RATIO.resolution

    def test_weighted(self):
        random = np.random.default_rng(2)
        values, weights = random.lognormal(0, 0.5, 9_001), random.uniform(0.1, 3, 9_001)
        found = FineHistogram.of(values, RATIO, weights=weights).distribution()
        for probability in (0.1, 0.5, 0.9):
            exact = np.quantile(values, probability, method="inverted_cdf", weights=weights)
            assert abs(found.quantile(probability) / exact - 1) <= RATIO.resolution

    @pytest.mark.parametrize("rows", [150, 4_000, 30_011])
    def test_narrowest_interval_is_off_by_two_cells_at_most(self, rows):
        values = np.random.default_rng(rows).lognormal(0, 0.3, rows)
        distribution = FineHistogram.of(values, RATIO).distribution()
        left, right = distribution.narrowest()
        exact = exact_narrowest(values)
        assert abs(right - left - exact) <= 2 * RATIO.resolution * right

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.floats(0.05, 5.0), min_size=2, max_size=8),
        st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8),
        st.floats(0.1, 0.95),
    )
    def test_narrowest_interval_against_a_scan(self, weights, gaps, content):
        weights = np.array(weights)
        low = np.arange(len(weights)) + np.cumsum(np.round(gaps[: len(weights)]))
        cells = Distribution(low, low + 1.0, weights, len(weights), float((weights**2).sum()))
        left, right = cells.narrowest(content)
        reach = low[-1] + 1 - low[0]
        # The scan misses the best left end by a step; its width is then that much too large
        # times the ratio of two cells' densities.
        step = reach / 4000 * 100
        assert right - left <= slow_narrowest(low, low + 1.0, weights, content) + 1e-9
        assert right - left >= slow_narrowest(low, low + 1.0, weights, content) - step

    def test_of_a_gaussian_is_two_sigma_with_the_error_of_theory(self):
        rows, sigma = 40_000, 0.1
        spacing = Spacing(scale="linear", low=-1, high=1, cells=20_000)
        values = np.random.default_rng(3).normal(0, sigma, rows)
        distribution = FineHistogram.of(values, spacing).distribution()
        assert distribution.estimates().width == pytest.approx(2 * 0.9945 * sigma, rel=0.02)
        theory = math.sqrt(0.68 * 0.32 / rows) / (
            math.exp(-0.4945) / sigma / math.sqrt(2 * math.pi)
        )
        assert distribution.estimates().width_error == pytest.approx(theory, rel=0.2)
        median_theory = math.sqrt(math.pi / 2 / rows) * sigma
        assert distribution.estimates().median_error == pytest.approx(median_theory, rel=0.2)

    def test_median_error_is_the_spread_of_medians(self):
        random = np.random.default_rng(4)
        medians, errors = [], []
        for _ in range(200):
            values = random.lognormal(0, 0.4, 400)
            distribution = FineHistogram.of(values, RATIO).distribution()
            medians.append(distribution.quantile(0.5))
            errors.append(distribution.estimates().median_error)
        assert np.mean(errors) == pytest.approx(np.std(medians), rel=0.2)

    def test_relative_resolution_of_a_log_normal(self):
        values = np.random.default_rng(5).lognormal(0, 0.1, 50_000)
        resolution, error = FineHistogram.of(values, RATIO).distribution().relative_resolution()
        assert resolution == pytest.approx(
            exact_narrowest(values) / 2 / np.median(values), rel=2e-2
        )
        assert 0 < error < 0.02 * resolution

    def test_the_inverse_is_the_distribution_of_the_inverse(self):
        values = np.random.default_rng(6).lognormal(0.2, 0.3, 3_001)
        mirrored = FineHistogram.of(values, RATIO).distribution().inverse()
        exact = np.quantile(1 / values, 0.5, method="inverted_cdf")
        assert abs(mirrored.quantile(0.5) / exact - 1) <= RATIO.resolution
        assert abs(mirrored.estimates().width - exact_narrowest(1 / values)) <= 4 * RATIO.resolution

    def test_no_rows_have_no_quantiles(self):
        nothing = FineHistogram.empty(RATIO).distribution()
        found = [nothing.quantile(0.5), *nothing.narrowest(), *nothing.relative_resolution()]
        assert np.isnan(found).all()

    def test_rows_beyond_the_cells_stand_at_their_end(self):
        far = FineHistogram.of(np.full(200, 1e9), RATIO).distribution()
        assert far.quantile(0.5) == pytest.approx(1e3)
        assert far.relative_resolution() == (0.0, 0.0)


class TestFineHistogram:
    def test_bins_hold_their_rows(self):
        random = np.random.default_rng(7)
        values, bins = random.normal(0, 1, 1_000), random.integers(0, 4, 1_000)
        histogram = FineHistogram.of(values, LINEAR, bins=bins, num_bins=5)
        np.testing.assert_array_equal(histogram.rows, np.bincount(bins, minlength=5))
        alone = FineHistogram.of(values[bins == 2], LINEAR)
        assert histogram.distribution(2).quantile(0.5) == alone.distribution().quantile(0.5)

    def test_rebinned_equals_numpy(self):
        random = np.random.default_rng(8)
        values, weights = random.normal(0, 1, 2_000), random.uniform(0, 2, 2_000)
        edges, rows, sums, squares = FineHistogram.of(values, LINEAR, weights=weights).rebinned(4)
        np.testing.assert_array_equal(rows, np.histogram(values, edges)[0])
        np.testing.assert_allclose(sums, np.histogram(values, edges, weights=weights)[0])
        np.testing.assert_allclose(squares, np.histogram(values, edges, weights=weights**2)[0])

    def test_what_is_no_number_is_counted_apart(self):
        histogram = FineHistogram.of(np.array([0.0, np.nan, 1.0]), LINEAR)
        assert histogram.outside == 1
        assert histogram.rows.tolist() == [2]

    def test_different_cells_do_not_merge(self):
        with pytest.raises(ValueError, match="cannot be merged"):
            FineHistogram.empty(LINEAR) + FineHistogram.empty(RATIO)

    def test_weights_scale(self):
        values = np.random.default_rng(9).lognormal(0, 0.3, 2_000)
        weights = np.random.default_rng(10).uniform(0.5, 2, 2_000)
        one = FineHistogram.of(values, RATIO, weights=weights).distribution()
        two = FineHistogram.of(values, RATIO, weights=1000 * weights).distribution()
        assert two.narrowest() == pytest.approx(one.narrowest(), rel=1e-9)
        assert two.estimates().median_error == pytest.approx(one.estimates().median_error, rel=1e-6)
        assert two.effective_rows == pytest.approx(one.effective_rows)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.lists(st.floats(-3, 3), max_size=20), min_size=3, max_size=3))
    def test_merge_is_associative_with_an_identity(self, batches):
        one, two, three = (FineHistogram.of(np.array(b, dtype=float), LINEAR) for b in batches)
        whole = FineHistogram.of(np.array([*itertools.chain(*batches)], dtype=float), LINEAR)
        same((one + two) + three, whole)
        same(one + (two + three), whole)
        same(two + one, one + two)
        same(one + FineHistogram.empty(LINEAR), one)
        same(FineHistogram.empty(LINEAR) + one, one)


class TestMoments:
    def test_against_numpy(self):
        random = np.random.default_rng(11)
        values, weights = random.normal(3, 2, 5_000), random.uniform(0.1, 2, 5_000)
        bins = random.integers(0, 3, 5_000)
        found = BinMoments.of(values, bins=bins, num_bins=4, weights=weights)
        for i in range(3):
            chosen = bins == i
            mean = np.average(values[chosen], weights=weights[chosen])
            var = np.average((values[chosen] - mean) ** 2, weights=weights[chosen])
            assert found.mean[i] == pytest.approx(mean, rel=1e-12)
            assert found.std[i] == pytest.approx(math.sqrt(var), rel=1e-12)
        assert found.counts[3] == 0
        assert np.isnan([found.mean[3], found.std[3], found.mean_error[3]]).all()

    def test_one_bin_is_the_same_with_and_without_bins(self):
        values = np.random.default_rng(12).normal(0, 1, 100)
        one = BinMoments.of(values)
        two = BinMoments.of(values, bins=np.zeros(100, dtype=np.int64))
        assert one.mean[0] == pytest.approx(two.mean[0], abs=1e-15)
        assert one.spread[0] == pytest.approx(two.spread[0], rel=1e-12)

    def test_infinite_values_are_left_out(self):
        found = BinMoments.of(np.array([1.0, np.inf, 3.0, np.nan]))
        assert (found.counts[0], found.mean[0]) == (2, 2.0)

    def test_error_of_the_mean(self):
        found = BinMoments.of(np.random.default_rng(13).normal(0, 2, 10_000))
        assert found.mean_error[0] == pytest.approx(0.02, rel=0.05)

    def test_no_cancellation_far_from_zero(self):
        values = 1e7 + np.random.default_rng(14).normal(0, 1, 4_000)
        merged = BinMoments.of(values[:1500]) + BinMoments.of(values[1500:])
        assert merged.std[0] == pytest.approx(np.std(values), rel=1e-8)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.lists(st.floats(-1e3, 1e3), max_size=12), min_size=3, max_size=3))
    def test_merge_is_associative_with_an_identity(self, batches):
        one, two, three = (BinMoments.of(np.array(b, dtype=float)) for b in batches)
        whole = BinMoments.of(np.array([*itertools.chain(*batches)], dtype=float))
        for merged in ((one + two) + three, one + (two + three)):
            assert merged.counts.tolist() == whole.counts.tolist()
            np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(merged.spread, whole.spread, rtol=1e-9, atol=1e-6)
        for merged in (one + BinMoments.empty(), BinMoments.empty() + one):
            assert plain(merged) == plain(one)
