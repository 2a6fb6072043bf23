"""Everything that is streamed, against NumPy on the whole sample."""

import functools
import math
import operator

import numpy as np
import pytest
from evaluation_fixtures import (
    TOPO,
    add_places,
    make_calibrated,
    make_manifest,
    make_table,
    take,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import accumulators as profiles
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.plan import plan_evaluation
from pipeline.evaluation.rows import Quantity
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.tables.make import make_tables
from pipeline.fold import batched, fold, merge_in_order
from pipeline.statistics.binning import OUTSIDE, Grouped, Spacing, edge_bins
from pipeline.statistics.histogram import DenseHistogram, FineHistogram
from pipeline.statistics.moments import BinMoments

ROWS = 12_000
RATIO = Spacing(scale="log", low=1e-3, high=1e3, cells=14_000)
LINEAR = Spacing(scale="linear", low=-2.0, high=2.0, cells=40)
GIVEN = {
    "axes": {
        "e": {"of": "denominator", "bins": 12, "range": [0.3, 300], "scale": "log"},
        "f": {"column": "fraction", "bins": 10, "range": [0, 1]},
        "y": {"column": "clusterEta", "bins": 8, "range": [-2.5, 2.5]},
    },
    "planes": ["e", "f"],
    "scored": ["f"],
    "pairs": [["re", "bnn"]],
    "min_rows_per_bin": 50,
    "sigma_window": [0.25, 0.5],
    "slices": [2.5],
    "baseline": None,
}


def make_weights(kind):
    random = np.random.default_rng(5)
    if kind == "none":
        return None
    weights = random.uniform(0.2, 2.0, ROWS)
    if kind == "of either sign":
        weights *= np.where(random.random(ROWS) < 0.15, -1, 1)
    return weights.astype(np.float32)


@pytest.fixture(scope="module", params=["none", "positive", "of either sign"])
def sample(request):
    table = add_places(make_table(ROWS))
    if (weights := make_weights(request.param)) is not None:
        table["w"] = weights
    sets = {
        "bnn": make_calibrated(table, shift=0.004, stretch=1.1),
        "re": make_calibrated(table, shift=-0.002, stretch=1.05),
        "oracle": make_calibrated(table),
    }
    for columns in sets.values():
        columns["energy"][:7] = [np.nan, np.inf, 0, -1, 1e9, np.nan, -np.inf]
    plan = plan_evaluation(EvaluateSettings.model_validate(GIVEN), make_manifest(table))
    return table, sets, plan


def parts_of(sample, size):
    table, sets, plan = sample
    slices = [slice(i, min(i + size, ROWS)) for i in range(0, ROWS, size)]
    return [(take(table, s), {n: take(c, s) for n, c in sets.items()}) for s in slices], plan


def evaluate_rows(group, *, plan):
    return Evaluation.of_parts(group, plan)


@pytest.fixture(scope="module")
def whole(sample):
    return Evaluation.of(*sample)


def weights_of(table):
    return table.get("w", np.ones(ROWS, np.float32)).astype(float)


@pytest.mark.parametrize("size", [ROWS, 1_000, 777])
def test_any_partitioning_has_the_same_counts(sample, whole, size, monkeypatch):
    monkeypatch.setattr(profiles, "ROWS_AT_ONCE", 2_500)
    parts, plan = parts_of(sample, size)
    groups = [Evaluation.of_parts(group, plan) for group in batched(parts, 8)]
    merged = merge_in_order(groups, operator.add)
    for key, leaf in whole.histograms.items():
        other = merged.histograms[key]
        np.testing.assert_array_equal(leaf.fine_bins, other.fine_bins)
        np.testing.assert_array_equal(leaf.counts, other.counts)
        np.testing.assert_array_equal(leaf.outside, other.outside)
        np.testing.assert_allclose(leaf.weights, other.weights, rtol=1e-9, atol=1e-9)
    for key, leaf in whole.dense.items():
        np.testing.assert_array_equal(leaf.counts, merged.dense[key].counts)
        np.testing.assert_array_equal(leaf.outside, merged.dense[key].outside)
        np.testing.assert_allclose(leaf.sums, merged.dense[key].sums, rtol=1e-9, atol=1e-9)
    for key, leaf in whole.moments.items():
        other = merged.moments[key]
        np.testing.assert_array_equal(leaf.counts, other.counts)
        np.testing.assert_allclose(leaf.mean, other.mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(leaf.mean_error, other.mean_error, rtol=1e-5, atol=1e-9)


def test_any_number_of_workers_has_the_same_bits(sample, client):
    parts, plan = parts_of(sample, 600)
    groups = batched(parts, 2)
    evaluate = functools.partial(evaluate_rows, plan=plan)
    here = merge_in_order([evaluate(group) for group in groups], operator.add)
    farm = fold(client, evaluate, groups, operator.add, label="evaluate")
    assert leaves_of(here) == leaves_of(farm)


def leaves_of(evaluation):
    """The bytes of all accumulators."""
    bits = {}
    for key, leaf in evaluation.histograms.items():
        bits[key, 0] = [each.tobytes() for each in (*leaf.occupied, leaf.outside)]
    for key, leaf in evaluation.dense.items():
        bits[key, 1] = [each.tobytes() for each in (leaf.counts, leaf.sums, leaf.outside)]
    for key, leaf in evaluation.moments.items():
        bits[key, 2] = [getattr(leaf, name).tobytes() for name in leaf.__slots__]
    return bits


def test_profiles_against_numpy(sample, whole):
    """Counts exactly; medians and widths within the bounds that the table gives."""
    table, sets, plan = sample
    w, truth = weights_of(table), table[TOPO.denominator].astype(float)
    seen = 0
    for line in make_tables(whole)["delta_e"].to_pylist():
        if line["set"] not in sets:
            continue
        axis = next(axis for axis in plan.axes if axis.name == line["axis"])
        values = table[axis.column].astype(float)
        inside = (values >= line["low"]) & (values < line["high"])
        ratio = sets[line["set"]]["energy"][inside].astype(float) / truth[inside]
        known = ~np.isnan(ratio)
        assert (line["rows"], line["rows_missing"]) == (known.sum(), (~known).sum())
        if line["rows"] < 50:
            assert line["median"] is None
            assert line["mean"] is None
        else:
            check_estimates(line, ratio[known], w[inside][known])
            seen += line["median"] is not None
    assert seen > 40


def check_estimates(line, ratio, weights):
    finite = np.isfinite(ratio)
    mean = np.average(ratio[finite], weights=weights[finite]) - 1
    assert line["mean"] == pytest.approx(mean, rel=1e-9, abs=1e-9)
    if line["median"] is None:
        assert (weights < 0).any()
        return
    order = np.argsort(ratio)
    x, weights = ratio[order], weights[order]
    below = np.cumsum(weights)
    reached = np.flatnonzero(below >= below[-1] / 2 * (1 - 1e-12))
    short = np.flatnonzero(below < below[-1] / 2 * (1 - 1e-12))
    first, last = x[reached[0]], x[min(short[-1] + 1, len(x) - 1)]
    slack = line["median_bound"] * (1 + 1e-6) + 1e-9
    # With weights of either sign any value between the first and the last crossing is one.
    assert first - slack <= line["median"] + 1 <= last + slack
    if (weights > 0).all():
        need = 0.68 * below[-1]
        starts = np.flatnonzero(below - weights + need <= below[-1] * (1 + 1e-12))
        stops = np.searchsorted(below, (below - weights)[starts] + need - 1e-9)
        width = (x[stops] - x[starts]).min()
        assert line["width68"] == pytest.approx(width, abs=line["width68_bound"] + 1e-9)


def test_spectra_maps_and_scores_against_numpy(sample, whole):
    table, sets, plan = sample
    w, tables = weights_of(table), make_tables(whole)
    share = table["cluster_ENG_CALIB_FRAC_EM"]
    classes = {"all": share >= 0, "EM": share >= 0.9, "hadronic": share < 0.1}
    classes["composite"] = ~classes["EM"] & ~classes["hadronic"]
    for line in tables["spectrum"].to_pylist():
        axis = next(axis for axis in plan.axes_of("spectra") if axis.name == line["axis"])
        values = table[axis.column].astype(float)
        inside = (values >= line["low"]) & (values < line["high"])
        chosen = inside & classes[line["class"]]
        assert line["rows"] == chosen.sum()
        assert line["weight"] == pytest.approx(w[chosen].sum(), rel=1e-9, abs=1e-6)
        if not inside.any():
            assert line["fraction"] is None
    sigma, eta = sets["bnn"]["sigma_tot"], table["clusterEta"].astype(float)
    r = table["cluster_CENTER_MAG"] / np.cosh(eta)
    on_map = (r < 4_500) & (r * np.abs(np.sinh(eta)) < 7_000)
    window = (sigma > 0.25) & (sigma < 0.5)
    for name, chosen in (("all", on_map), ("bnn", on_map & window)):
        rows = [line["rows"] for line in tables["map"].to_pylist() if line["set"] == name]
        assert sum(rows) == chosen.sum()
    (line,) = [
        line
        for line in tables["scores"].to_pylist()
        if (line["set"], line["population"]) == ("bnn", "all")
    ]
    nll = -sets["bnn"]["log_density"].astype(float)
    assert line["nll"] == pytest.approx(np.average(nll, weights=w), rel=1e-9)
    pit = sets["bnn"]["pit"].astype(float)
    for line in tables["coverage"].to_pylist():
        if (line["set"], line["nominal"]) in {("bnn", 0.68), ("bnn", 0.9)}:
            low, high = (1 - line["nominal"]) / 2, (1 + line["nominal"]) / 2
            expected = w[(pit > low) & (pit < high)].sum() / w.sum()
            assert line["coverage"] == pytest.approx(expected, abs=2e-3)


def test_dropping_by_uncertainty_against_numpy(sample, whole):
    table, sets, _ = sample
    w = weights_of(table)
    relative = sets["bnn"]["sigma_tot"].astype(float) / sets["bnn"]["response"]
    ratio = sets["bnn"]["energy"].astype(float) / table[TOPO.denominator]
    lines = [
        line
        for line in make_tables(whole)["selection"].to_pylist()
        if (line["set"], line["ranked_by"]) == ("bnn", "bnn")
    ]
    assert len(lines) > 20
    for line in lines:
        bound = math.inf if line["threshold"] is None else line["threshold"] * (1 + 1e-9)
        chosen = (relative < bound) & ~np.isnan(ratio)
        assert line["rows"] == chosen.sum()
        above = w[chosen & (ratio > 1.5)].sum() / w[chosen].sum()
        assert line["tail_above"] == pytest.approx(above, abs=2e-3)


def test_pairs_against_numpy(sample, whole):
    table, sets, _ = sample
    w = weights_of(table)
    pulls = [
        np.log10(sets[n]["response"].astype(float) / table["response"].astype(float))
        / sets[n]["sigma_tot_log10"].astype(float)
        for n in ("bnn", "re")
    ]
    expected = np.cov(pulls, aweights=np.abs(w)) if (w > 0).all() else None
    (line,) = make_tables(whole)["pairs"].to_pylist()
    if expected is not None:
        correlation = expected[0, 1] / math.sqrt(expected[0, 0] * expected[1, 1])
        assert line["correlation_t_log"] == pytest.approx(correlation, rel=1e-6)
    assert 0.9 < line["correlation_t_log"] <= 1
    inside = line["sigma_below"] + line["sigma_inside"] + line["sigma_above"]
    assert inside == pytest.approx(1)


class TestWeightsOfEitherSign:
    def test_cells_that_cancel_have_no_estimates(self):
        values = np.array([0.5, 1.0, 2.0] * 50)
        weights = np.array([1.0, -1.0, 0.0] * 50)
        distribution = FineHistogram.of(values, RATIO, weights=weights).distribution()
        assert distribution.estimates() is None
        assert np.isnan([distribution.quantile(0.5), *distribution.narrowest()]).all()
        mean = BinMoments.of(values, weights=weights)
        assert np.isnan([mean.mean[0], mean.mean_error[0], mean.std[0]]).all()

    def test_a_negative_lump_that_statistics_do_not_explain(self):
        values = np.concatenate([np.full(100, 0.5), np.full(60, 1.0), np.full(100, 2.0)])
        weights = np.where(values == 1.0, -1.0, 1.0)
        assert FineHistogram.of(values, RATIO, weights=weights).distribution().estimates() is None

    def test_cancelled_parts_leave_the_whole_defined(self):
        """A part whose weights add up to nothing must not lose what it has."""
        random = np.random.default_rng(1)
        values, weights = random.normal(5, 1, 900), random.choice([-1.0, 1.0], 900, p=[0.3, 0.7])
        weights[:2] = 1.0, -1.0
        merged = BinMoments.empty()
        for part in (slice(0, 2), slice(2, 400), slice(400, 900)):
            merged += BinMoments.of(values[part], weights=weights[part])
        mean = np.average(values, weights=weights)
        assert merged.mean[0] == pytest.approx(mean, rel=1e-12)
        square = np.average((values - mean) ** 2, weights=weights)
        assert merged.std[0] == pytest.approx(math.sqrt(square), rel=1e-9)

    def test_the_median_of_many_is_that_of_the_density(self):
        random = np.random.default_rng(2)
        values = random.lognormal(0.3, 0.2, 40_000)
        weights = random.choice([-1.0, 1.0], 40_000, p=[0.2, 0.8])
        found = FineHistogram.of(values, RATIO, weights=weights).distribution().estimates()
        assert abs(found.median / math.exp(0.3) - 1) < 5 * found.median_error
        assert found.median_error == pytest.approx(0.0042, rel=0.5)


def test_empty_and_single_bins_are_shown_as_such(sample):
    table, sets, plan = sample
    one = Evaluation.of(
        take(table, slice(10, 11)), {n: take(c, slice(10, 11)) for n, c in sets.items()}, plan
    )
    lines = make_tables(one)["delta_e"].to_pylist()
    assert sorted({line["rows"] for line in lines}) == [0, 1]
    assert {line["median"] for line in lines} == {line["mean"] for line in lines} == {None}
    errors = [line["fraction_error"] for line in make_tables(one)["spectrum"].to_pylist()]
    assert set(errors) == {None}
    single = BinMoments.of(np.array([2.0]))
    assert (single.mean[0], single.counts[0]) == (2.0, 1)
    assert np.isnan(single.mean_error[0])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_merges_of_signed_weights_are_associative_with_an_identity(data):
    number = st.floats(-1e3, 1e3)
    rows = st.lists(st.tuples(number, st.floats(-5, 5)), max_size=12)
    one, two, three = (
        BinMoments.of(
            np.array([value for value, _ in batch]), weights=np.array([w for _, w in batch])
        )
        for batch in (data.draw(rows), data.draw(rows), data.draw(rows))
    )
    left, right = (one + two) + three, one + (two + three)
    for name in ("counts", "weights", "squares", "centre", "tilt", "spread"):
        np.testing.assert_allclose(
            getattr(left, name), getattr(right, name), rtol=1e-9, atol=1e-6, err_msg=name
        )
    for merged in (one + BinMoments.empty(), BinMoments.empty() + one):
        assert merged.counts.tolist() == one.counts.tolist()
        np.testing.assert_allclose(merged.tilt, one.tilt, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3) | st.just(math.nan), max_size=30), st.integers(0, 29))
def test_dense_histograms_merge_like_fine_ones(values, cut):
    numbers = np.array(values, dtype=float)
    bins = (np.arange(len(numbers)) % 3).astype(np.int16)[:, None]
    groups = Grouped.evenly(LINEAR, 7)

    def dense(rows):
        quantity = Quantity.of(numbers[rows], LINEAR)
        histogram = DenseHistogram.empty(groups, 3, weighted=False)
        histogram.fill(quantity.grouped(groups), bins[rows], None)
        return histogram

    merged = dense(slice(0, cut)) + dense(slice(cut, None))
    direct = FineHistogram.of(numbers, groups, bins=bins[:, 0], num_bins=3)
    for found in (merged.on_axis(slice(0, 3)), dense(slice(None)).on_axis(slice(0, 3))):
        np.testing.assert_array_equal(found.fine_bins, direct.fine_bins)
        np.testing.assert_array_equal(found.counts, direct.counts)
        np.testing.assert_array_equal(found.outside, direct.outside)


@pytest.mark.parametrize("is_log", [True, False])
def test_bins_are_those_of_searchsorted(is_log):
    random = np.random.default_rng(3)
    edges = np.geomspace(0.1, 1e3, 41) if is_log else np.linspace(-2.75, 2.75, 56)
    values = np.concatenate([edges, np.nextafter(edges, 0), random.normal(0, 50, 2_000)])
    values = np.concatenate([values, [np.inf, -np.inf, 0.0]])
    for dtype in (np.float64, np.float32):
        found = edge_bins(values.astype(dtype), edges, is_log)
        expected = np.searchsorted(edges, values.astype(dtype), side="right")
        np.testing.assert_array_equal(found, expected)


def test_groups_around_one_are_single_cells_there():
    groups = Grouped.around_one(RATIO)
    edges, fine = groups.edges(), RATIO.edges()
    assert set(edges) <= set(fine)
    assert (edges[0], edges[-1]) == (fine[0], fine[-1])
    width = edges[1:] / edges[:-1] - 1
    near = (edges[:-1] > 0.95) & (edges[1:] < 1.05)
    assert width[near].max() < 2.1e-3
    assert width[(edges[:-1] > 1.9) & (edges[1:] < 2.1)].max() < 5e-3
    assert groups.cells < 2_000


def test_cells_next_to_an_edge_are_those_of_the_exact_logarithm():
    edges = RATIO.edges()[1:-1]
    near = [np.nextafter(edges, 0.0), edges, np.nextafter(edges, 1e9), edges * (1 + 1e-9)]
    values = np.concatenate([*near, [0.0, -1.0, 5e-324, 1e-300, 1e300, np.inf, np.nan]])
    start = math.log(RATIO.low)
    scale = RATIO.cells / (math.log(RATIO.high) - start)
    expected = [
        min(max(math.floor((math.log(x) - start) * scale) + 1, 0), RATIO.cells + 1)
        for x in values[:-7]
    ]
    beyond = [0, 0, 0, 0, RATIO.cells + 1, RATIO.cells + 1, OUTSIDE]
    np.testing.assert_array_equal(RATIO.index(values), [*expected, *beyond])
