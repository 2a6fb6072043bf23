"""The whole evaluation: streamed against in memory, known cases, weights and other names."""

import itertools
import json
import math

import numpy as np
import pytest
from evaluation_fixtures import (
    OTHER,
    TOPO,
    add_places,
    make_calibrated,
    make_manifest,
    make_table,
    plain,
    take,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from pipeline.evaluation.accumulators import RATIO_ON_TRUTH
from pipeline.evaluation.baseline import BaselineHistogram
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.plan import plan_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.summary import closure_bins, summarise
from pipeline.evaluation.tables.make import TABLES, make_tables

GIVEN = {
    "regions": {"low": {"of": "numerator", "to": 3.0}},
    "pairs": [["re", "bnn"]],
    "min_rows_per_bin": 50,
    "closure_min_rows": 300,
    "sigma_window": [0.25, 0.5],
}
ROWS = 20_000


def make_study(rows=ROWS, *, target=TOPO, weighted=False, scale=1.0, **changes):
    """Table, calibrated sets, plan and baseline."""
    options = {"target": target, "weighted": weighted, "scale": scale}
    table = add_places(make_table(rows, **options))
    manifest = make_manifest(table, target=target, cut=0.3 * scale)
    plan = plan_evaluation(EvaluateSettings.model_validate(GIVEN | changes), manifest)
    sets = {
        "bnn": make_calibrated(table, target=target, scale=scale, shift=0.004, stretch=1.1),
        "re": make_calibrated(table, target=target, scale=scale, shift=-0.002, stretch=1.05),
        "oracle": make_calibrated(table, target=target, scale=scale),
    }
    baseline = BaselineHistogram.of(make_table(rows, seed=2, **options), plan)
    return table, sets, plan, baseline


def evaluate(table, sets, plan, baseline, slices):
    """One accumulator an interval of rows, in order."""
    return [
        Evaluation.of(
            take(table, rows),
            {name: take(columns, rows) for name, columns in sets.items()},
            plan,
            baseline=baseline,
        )
        for rows in slices
    ]


@pytest.fixture(scope="module")
def study():
    return make_study()


@pytest.fixture(scope="module")
def whole(study):
    return Evaluation.of(study[0], study[1], study[2], baseline=study[3])


@pytest.fixture(scope="module")
def summary(whole):
    return summarise(whole)


def check_close(first, second):
    assert first.histograms.keys() == second.histograms.keys()
    assert first.moments.keys() == second.moments.keys()
    for key, leaf in first.histograms.items():
        other = second.histograms[key]
        np.testing.assert_array_equal(leaf.fine_bins, other.fine_bins)
        np.testing.assert_array_equal(leaf.counts, other.counts)
        np.testing.assert_allclose(leaf.weights, other.weights, rtol=1e-11)
    for key, leaf in first.moments.items():
        other = second.moments[key]
        np.testing.assert_array_equal(leaf.counts, other.counts)
        np.testing.assert_allclose(leaf.mean, other.mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(leaf.spread, other.spread, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("cuts", [[], [1], [7_000, 7_001, 15_000], list(range(2_500, ROWS, 2_500))])
def test_streamed_equals_in_memory(study, whole, summary, cuts):
    slices = [slice(low, high) for low, high in itertools.pairwise([0, *cuts, ROWS])]
    parts = evaluate(*study, slices)
    merged = sum(parts[1:], parts[0])
    check_close(merged, whole)
    for name, value in summarise(merged).items():
        assert value == pytest.approx(summary[name], rel=1e-6, abs=1e-9)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 1_999), min_size=2, max_size=2, unique=True))
def test_merge_is_associative_with_an_identity(cuts):
    study = make_study(2_000)
    low, high = sorted(cuts)
    one, two, three = evaluate(*study, [slice(0, low), slice(low, high), slice(high, 2_000)])
    check_close((one + two) + three, one + (two + three))
    empty = Evaluation.empty(study[2])
    assert plain(one + empty) == plain(empty + one) == plain(one)


def test_the_summary_has_the_figures_of_a_study(summary):
    for name in ("bnn", "re"):
        for figure in (
            *("nll", "nll_excess", "pit_ks", "coverage68", "coverage95", "pull_width"),
            *("sigma_log10_ratio_median", "closure_max", "closure_vs_oracle_max"),
            *("resolution_ratio_to_em", "nll.low", "resolution_ratio_to_em.low"),
        ):
            assert math.isfinite(summary[f"{name}.{figure}"])
    assert {"histogram.nll", "histogram.nll.low", "oracle.nll", "oracle.pull_width"} <= set(summary)
    assert {"re_vs_bnn.central_max", "re_vs_bnn.sigma_core_width"} <= set(summary)
    assert not {"oracle.nll_excess", "oracle.closure_vs_oracle_max", "em.nll"} & set(summary)
    assert all(math.isfinite(value) for value in summary.values())
    assert json.loads(json.dumps(summary)) == summary


def test_the_exact_density_is_honest(summary):
    assert summary["oracle.pit_ks"] < 1.63 / math.sqrt(ROWS) + 1 / 2_000
    error = math.sqrt(0.68 * 0.32 / ROWS)
    assert abs(summary["oracle.coverage68"] - 0.68) < 4 * error
    assert abs(summary["oracle.coverage95"] - 0.95) < 4 * math.sqrt(0.95 * 0.05 / ROWS)
    assert summary["oracle.pull_width"] == pytest.approx(1, abs=0.04)


def test_the_wrong_density_is_seen(study, summary):
    bnn, exact = study[1]["bnn"], study[1]["oracle"]
    excess = np.mean(exact["log_density"].astype(float) - bnn["log_density"].astype(float))
    assert summary["bnn.nll_excess"] == pytest.approx(excess, rel=1e-9)
    assert summary["bnn.nll_excess"] > summary["re.nll_excess"] > 0
    assert summary["histogram.nll"] > summary["bnn.nll"] > summary["oracle.nll"]
    ratio = np.median(bnn["sigma_tot_log10"] / exact["sigma_tot_log10"])
    assert summary["bnn.sigma_log10_ratio_median"] == pytest.approx(ratio, rel=2e-3)
    assert summary["bnn.pull_width"] == pytest.approx(1 / 1.1, rel=0.05)


def test_closure_against_exact_medians(study, whole, summary):
    table, sets, plan, _ = study
    edges = np.array(plan.truth_axis.edges)
    at = np.digitize(table[TOPO.denominator], edges)
    medians = {}
    for name in ("bnn", "oracle"):
        ratio = sets[name]["energy"].astype(float) / table[TOPO.denominator]
        medians[name] = np.array([
            np.median(ratio[at == i])
            for i in range(1, len(edges))
            if edges[i - 1] >= 0.5 and np.sum(at == i) >= 300
        ])
    assert summary["bnn.closure_max"] == pytest.approx(np.abs(medians["bnn"] - 1).max(), abs=2e-3)
    difference = np.abs(medians["bnn"] - medians["oracle"]).max()
    assert summary["bnn.closure_vs_oracle_max"] == pytest.approx(difference, abs=3e-3)
    assert whole.find(RATIO_ON_TRUTH, "bnn", "denominator").rows.sum() == ROWS


def test_a_region_is_its_rows_alone(study, summary):
    table, sets, plan, baseline = study
    chosen = np.flatnonzero(table["clusterE"] < 3.0)
    alone = summarise(
        Evaluation.of(
            take(table, chosen),
            {n: take(c, chosen) for n, c in sets.items()},
            plan,
            baseline=baseline,
        )
    )
    for figure in ("bnn.nll", "oracle.pit_ks", "re.coverage68", "histogram.nll", "bnn.pull_width"):
        assert summary[f"{figure}.low"] == pytest.approx(alone[figure], rel=1e-9)


def test_weights_scale_and_select():
    table, sets, plan, _ = make_study(6_000, weighted=True)
    heavy = summarise(Evaluation.of(table | {"w": 8 * table["w"]}, sets, plan))
    light = summarise(Evaluation.of(table, sets, plan))
    for name, value in light.items():
        assert heavy[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    # Rows of weight 2 count as two rows.
    twice = np.arange(6_000) % 2
    weighted = summarise(Evaluation.of(table | {"w": (1 + twice).astype(np.float32)}, sets, plan))
    rows = np.sort(np.concatenate([np.arange(6_000), np.flatnonzero(twice)]))
    doubled = summarise(
        Evaluation.of(
            take(table, rows) | {"w": np.ones(len(rows), dtype=np.float32)},
            {name: take(columns, rows) for name, columns in sets.items()},
            plan,
        )
    )
    for name in ("bnn.nll", "bnn.coverage68", "oracle.pit_ks", "bnn.sigma_log10_ratio_median"):
        assert weighted[name] == pytest.approx(doubled[name], rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_target_of_other_names_and_units(scale):
    few = {"closure_from": 0.5 * scale, "closure_min_rows": 100}
    study = make_study(6_000, target=OTHER, scale=scale, **few)
    evaluation = Evaluation.of(study[0], study[1], study[2], baseline=study[3])
    found = summarise(evaluation)
    assert found["oracle.closure_max"] < 0.3
    assert found["histogram.nll"] > found["oracle.nll"]
    tables = make_tables(evaluation)
    assert tables["delta_e"].num_rows > 20
    assert tables["plane"].num_rows > 100


def test_a_set_without_a_density_has_no_scores(study):
    table, sets, plan, _ = study
    point = {name: sets["bnn"][name] for name in ("cluster_id", "response", "energy")}
    evaluation = Evaluation.of(table, {"lookup": point, "oracle": sets["oracle"]}, plan)
    found = summarise(evaluation)
    assert {key.split(".")[1] for key in found if key.startswith("lookup.")} == {
        *("closure_max", "closure_vs_oracle_max", "resolution_ratio_to_em", "crps"),
    }
    distance = np.abs(np.log10(point["response"].astype(float) / table["response"]))
    assert found["lookup.crps"] == pytest.approx(distance.mean(), rel=1e-6)
    assert make_tables(evaluation)["delta_e"].num_rows > 0


def test_the_score_of_quantiles_is_near_that_of_their_density(study):
    """A Gaussian's is sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))."""
    table, sets, plan, _ = study
    names = ("cluster_id", "response", "energy", "q025", "q16", "median", "q84", "q975")
    exact = sets["oracle"]
    found = Evaluation.of(table, {"trees": {name: exact[name] for name in names}}, plan)
    sigma = exact["sigma_tot_log10"].astype(float)
    z = (np.log10(table["response"].astype(float)) - np.log10(exact["median"])) / sigma
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    crps = sigma * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    assert summarise(found)["trees.crps"] == pytest.approx(0.93 * crps.mean(), rel=0.02)
    assert make_tables(found)["sets"]["scored_by"].to_pylist() == ["quantiles"]


def test_without_the_reference_nothing_is_compared_with_it(study):
    table, sets, plan, _ = study
    found = summarise(Evaluation.of(table, {"bnn": sets["bnn"]}, plan))
    assert "bnn.nll" in found
    assert not [name for name in found if "excess" in name or "oracle" in name or "ratio_m" in name]


def test_a_model_with_fewer_features_has_no_excess(study):
    table, sets, plan, _ = study
    evaluation = Evaluation.of(table, sets, plan.model_copy(update={"partial": ("re",)}))
    found = summarise(evaluation)
    assert {"bnn.nll_excess", "re.nll"} <= set(found)
    assert not [name for name in found if name.startswith("re.") and "excess" in name]
    tables = make_tables(evaluation)
    for made in (tables["scores"], tables["score_profile"]):
        assert {"bnn", "re"} <= set(made["set"].to_pylist())
        known = made.filter(made["nll_excess"].is_valid())["set"].to_pylist()
        assert "bnn" in known
        assert "re" not in known


@pytest.mark.parametrize("nothing", [-np.inf, np.nan])
def test_a_set_with_rows_of_density_zero_has_no_score(study, summary, nothing):
    table, sets, plan, _ = study
    high = np.flatnonzero(table["clusterE"] >= 3.0)[:7]
    broken = sets["bnn"]["log_density"].copy()
    broken[high] = nothing
    given = sets | {"bnn": sets["bnn"] | {"log_density": broken}}
    evaluation = Evaluation.of(table, given, plan)
    found = summarise(evaluation)
    assert not {"bnn.nll", "bnn.nll_excess"} & set(found)
    assert found["bnn.rows_without_density"] == 7
    # The region without such rows keeps its scores, and so do the other sets.
    assert "bnn.rows_without_density.low" not in found
    for figure in ("bnn.nll.low", "bnn.nll_excess.low", "re.nll", "re.nll_excess"):
        assert found[figure] == pytest.approx(summary[figure], rel=1e-12)
    scores = make_tables(evaluation)["scores"].to_pylist()
    line = next(r for r in scores if (r["set"], r["population"]) == ("bnn", "all"))
    assert line["rows_without_density"] == 7
    assert math.isfinite(line["nll"])


def test_without_the_exact_density_of_a_row_there_is_no_excess(study):
    table, sets, plan, baseline = study
    broken = sets["oracle"]["log_density"].copy()
    broken[:3] = -np.inf
    given = sets | {"oracle": sets["oracle"] | {"log_density": broken}}
    found = summarise(Evaluation.of(table, given, plan, baseline=baseline))
    assert not {"oracle.nll", "bnn.nll_excess", "histogram.nll_excess"} & set(found)
    assert {"bnn.nll", "histogram.nll"} <= set(found)
    assert [name for name in found if name.endswith("density")] == ["oracle.rows_without_density"]


def test_headlines_do_not_depend_on_the_axes(summary):
    table, sets, plan, baseline = make_study(axes={"f": {"column": "fraction"}})
    found = summarise(Evaluation.of(table, sets, plan, baseline=baseline))
    assert found == pytest.approx(summary, rel=1e-12)


def test_the_gain_in_resolution_has_two_definitions(study, whole, summary):
    table, sets, plan, _ = study

    def resolution(ratio):
        ordered = np.sort(ratio)
        inside = int(np.ceil(0.68 * len(ordered)))
        width = (ordered[inside - 1 :] - ordered[: len(ordered) - inside + 1]).min()
        return width / 2 / np.median(ordered)

    truth = table[TOPO.denominator].astype(float)
    ratios = {"em": table["clusterE"] / truth, "bnn": sets["bnn"]["energy"] / truth}
    low = table["clusterE"] < 3.0
    own, uncalibrated = (resolution(ratios[name][low]) for name in ("bnn", "em"))
    ratio = own / uncalibrated
    assert summary["bnn.resolution_ratio_to_em.low"] == pytest.approx(ratio, rel=0.01)
    at = np.digitize(truth, plan.truth_axis.edges)
    gains = [
        resolution(ratios["bnn"][at == i]) / resolution(ratios["em"][at == i])
        for i in closure_bins(whole)
    ]
    assert summary["bnn.resolution_ratio_to_em"] == pytest.approx(np.median(gains), rel=0.01)


def test_the_tables_tell_the_reference(study, whole):
    roles = {row["set"]: row["role"] for row in make_tables(whole)["sets"].to_pylist()}
    assert roles == {"bnn": "model", "re": "model", "oracle": "reference"}
    table, sets, plan, _ = study
    alone = make_tables(Evaluation.of(table, {"bnn": sets["bnn"]}, plan))["sets"]
    (line,) = alone.to_pylist()
    assert line == {
        "set": "bnn",
        "role": "model",
        "scored_by": "density",
        "rows": ROWS,
        "rows_missing": 0,
    }


def test_too_few_rows_give_no_estimates():
    table, sets, plan, baseline = make_study(40)
    evaluation = Evaluation.of(table, sets, plan, baseline=baseline)
    assert summarise(evaluation) == {}
    closure = make_tables(evaluation)["delta_e"]
    assert 0 < sum(closure["rows"].to_pylist()) <= 4 * 40 * len(plan.axes)
    assert closure["median"].null_count == closure.num_rows
    nothing = Evaluation.of(
        take(table, slice(0, 0)), {n: take(c, slice(0, 0)) for n, c in sets.items()}, plan
    )
    assert summarise(nothing) == {}
    assert summarise(Evaluation.empty(plan)) == {}


def test_tables_have_their_columns_and_no_nan(whole):
    tables = make_tables(whole)
    assert tables.keys() == TABLES.keys()
    for name, table in tables.items():
        assert table.schema.equals(TABLES[name].schema)
        assert table.num_rows, name
        for column in table.column_names:
            values = table[column].drop_null().to_numpy()
            if values.dtype.kind == "f":
                assert np.isfinite(values).all(), (name, column)


def test_tables_against_exact_values(study, whole):
    table, sets, plan, _ = study
    edges = np.array(plan.truth_axis.edges)
    at = np.digitize(table[TOPO.denominator], edges)
    lines = [
        line
        for line in make_tables(whole)["delta_r"].to_pylist()
        if line["axis"] == "denominator" and line["set"] == "bnn"
    ]
    full = [line for line in lines if line["rows"] >= plan.settings.min_rows_per_bin]
    assert 15 < len(full) < len(lines) == len(edges) - 1
    for line in full:
        chosen = at == np.searchsorted(edges, line["low"]) + 1
        delta = sets["bnn"]["response"][chosen].astype(float) / table["response"][chosen] - 1
        assert line["rows"] == chosen.sum()
        median = np.quantile(delta, 0.5, method="inverted_cdf")
        assert line["median"] == pytest.approx(median, abs=1e-3 * (1 + median) + 1e-6)
        assert line["mean"] == pytest.approx(delta.mean(), abs=1e-6)


@pytest.mark.parametrize("name", ["em", "histogram", "target", "all", "re_vs_bnn"])
def test_taken_names_are_refused(study, name):
    table, sets, plan, _ = study
    with pytest.raises(ValueError, match="cannot be called"):
        Evaluation.of(table, {name: sets["bnn"]}, plan)


def test_rows_of_another_part_are_refused(study):
    table, sets, plan, _ = study
    with pytest.raises(ValueError, match="does not hold the rows"):
        Evaluation.of(table, {"bnn": take(sets["bnn"], slice(0, 10))}, plan)
    moved = sets["bnn"] | {"cluster_id": sets["bnn"]["cluster_id"] + 1}
    with pytest.raises(ValueError, match="does not hold the rows"):
        Evaluation.of(table, {"bnn": moved}, plan)
    with pytest.raises(ValueError, match="no column energy"):
        Evaluation.of(table, {"bnn": {"response": sets["bnn"]["response"]}}, plan)


def test_different_plans_do_not_merge(study):
    other = study[2].model_copy(update={"weight": "w"})
    with pytest.raises(ValueError, match="different plans"):
        Evaluation.empty(study[2]) + Evaluation.empty(other)
