"""Labels, working point and rates of the tagger, on arrays."""

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import roc_auc_score, roc_curve

from jobs.study import Study
from pipeline.evaluation.axes import ResolvedAxis
from pipeline.formats.columns import Target
from pipeline.formats.errors import UserError
from pipeline.formats.seeds import generator
from pipeline.report.settings import ReportSettings
from pipeline.report.study_data import Scene
from pipeline.simulators.known_density.density import OracleDensity
from pipeline.simulators.known_density.features import FEATURES
from pipeline.simulators.known_density.response import COMPONENT, COMPONENTS
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings
from pipeline.tagging.labels import describe_label, label_probability, label_rows
from pipeline.tagging.position_map import PositionMap
from pipeline.tagging.rates import TagRows, TagSummary, choose_threshold
from pipeline.tagging.settings import AboveThreshold, LabelColumn, TagSettings, UnderPredicted

TARGET = Target()
RESISTANT = LabelColumn(equals=float(COMPONENTS.index("resistant")))
AXIS = ResolvedAxis(name="mu", column="mu", unit="1", scale="linear", edges=(0.0, 30.0, 60.0, 90.0))


@pytest.fixture(scope="module")
def sample():
    clusters = draw_clusters(GeneratorSettings(), generator(8, "tags"), 60_000)
    clusters["response"] = (
        clusters["clusterE"].astype(np.float64) / clusters["cluster_ENG_CALIB_TOT"]
    )
    return clusters


@pytest.fixture(scope="module")
def exact(sample):
    density = OracleDensity(GeneratorSettings(), FEATURES, "clusterE", (0.3, None))
    return density.of_rows(sample)


def test_labels_are_what_their_definitions_say(sample):
    response = sample["response"]
    predicted = np.random.default_rng(1).uniform(0.5, 4.0, len(response))
    under = label_rows(
        UnderPredicted(regression="a", above=2, factor=1.5), sample, TARGET, predicted
    )
    expected = [r > 2 and r / p > 1.5 for r, p in zip(response, predicted, strict=True)]
    assert under.tolist() == expected
    assert 0 < under.sum() < (response > 2).sum()
    large = label_rows(AboveThreshold(above=3), sample, TARGET, None)
    assert large.tolist() == (response > 3).tolist()
    named = label_rows(LabelColumn(column="nPrimVtx", equals=20), sample, TARGET, None)
    assert named.tolist() == (sample["nPrimVtx"] == 20).tolist()


def test_a_definition_can_be_read():
    label = UnderPredicted(regression="dnn")
    assert describe_label(label, TARGET) == "response > 2 and response > 1.5 x that of dnn"
    assert describe_label(LabelColumn(column="x", equals=6), TARGET) == "x is 6"


@pytest.mark.parametrize(
    "label", [RESISTANT, AboveThreshold(above=2), UnderPredicted(regression="a")], ids=str
)
def test_exact_probability_is_the_share_of_rows_with_the_label(sample, exact, label):
    predicted = 0.8 + 0.01 * sample["avgMu"].astype(np.float64)
    given = predicted if isinstance(label, UnderPredicted) else None
    probability = label_probability(label, exact, given)
    has = label_rows(label, sample, TARGET, given)
    order = np.argsort(probability)
    for chosen in np.array_split(order, 8):
        expected = probability[chosen].mean()
        error = np.sqrt(expected * (1 - expected) / len(chosen))
        assert has[chosen].mean() == pytest.approx(expected, abs=4.5 * error + 1e-9)


def test_component_posterior_ranks_as_well_as_the_features_allow(sample, exact):
    """About 0.78, in the accepted sample, where E_dep > 0.3 GeV removes some large responses."""
    probability = label_probability(RESISTANT, exact, None)
    is_resistant = sample[COMPONENT] == RESISTANT.equals
    assert roc_auc_score(is_resistant, probability) == pytest.approx(0.78, abs=0.02)
    assert label_probability(LabelColumn(column="other", equals=6), exact, None) is None


@pytest.mark.parametrize("loss", [0.01, 0.03, 0.5])
def test_working_point_loses_no_more_than_stated(loss):
    rng = np.random.default_rng(2)
    score = np.round(rng.beta(1, 8, 3000), 3).astype(np.float32)  # with ties
    weight = rng.uniform(0.2, 3.0, 3000)
    threshold = choose_threshold(score, weight, loss)
    share = weight[score > threshold].sum() / weight.sum()
    assert share <= loss
    below = weight[score >= np.float32(threshold)].sum() / weight.sum()
    assert below > loss  # one step further loses too much


def test_working_point_is_on_the_curve_of_scikit_learn():
    rng = np.random.default_rng(6)
    label = rng.random(5000) < 0.1
    score = rng.beta(np.where(label, 3, 1), 8).astype(np.float32)
    threshold = choose_threshold(score[~label], np.ones((~label).sum()), 0.03)
    loss, efficiency, _ = roc_curve(label, score, drop_intermediate=False)
    best = efficiency[loss <= 0.03].max()
    assert (score[label] > threshold).mean() == pytest.approx(best)


def test_working_point_without_ordinary_clusters_is_refused():
    with pytest.raises(UserError, match="0 validation clusters without the label"):
        choose_threshold(np.zeros(0, np.float32), np.zeros(0), 0.03)


def tag_rows(count=20_000, seed=3):
    rng = np.random.default_rng(seed)
    label = rng.random(count) < 0.05
    score = 1 / (1 + np.exp(-rng.normal(np.where(label, -1.0, -3.0), 1.0)))
    mu = rng.uniform(-5, 95, count)
    return TagRows(
        bins={"mu": np.searchsorted(AXIS.edges, mu, side="right")},
        weight=rng.uniform(0.1, 2.0, count),
        is_tagged=score > 0.3,
        truths={"label": label},
        scores={"tagger": score.astype(np.float32)},
        shares={},
    ), mu


def part_of(rows, chosen):
    return TagRows(
        bins={name: values[chosen] for name, values in rows.bins.items()},
        weight=rows.weight[chosen],
        is_tagged=rows.is_tagged[chosen],
        truths={name: values[chosen] for name, values in rows.truths.items()},
        scores={name: values[chosen] for name, values in rows.scores.items()},
        shares={},
    )


def test_auc_and_curve_are_those_of_scikit_learn():
    rows, _ = tag_rows()
    summary = TagSummary.of(rows, (AXIS,))
    given = rows.truths["label"], rows.scores["tagger"]
    auc = roc_auc_score(*given, sample_weight=rows.weight)
    assert summary.figures()["auc.tagger.label"] == pytest.approx(auc, abs=1e-4)
    loss, efficiency, _ = roc_curve(*given, sample_weight=rows.weight)
    curve = summary.roc_table()
    found = np.interp(curve["loss"].to_numpy(), loss, efficiency)
    np.testing.assert_allclose(curve["efficiency"].to_numpy(), found, atol=5e-3)


def test_rates_in_bins_are_weighted_shares():
    rows, mu = tag_rows()
    figures = TagSummary.of(rows, (AXIS,)).figures()
    has, w = rows.truths["label"], rows.weight
    tagged = rows.is_tagged
    assert figures["rate"] == pytest.approx(w[tagged].sum() / w.sum())
    assert figures["efficiency.label"] == pytest.approx(w[tagged & has].sum() / w[has].sum())
    assert figures["loss.label"] == pytest.approx(w[tagged & ~has].sum() / w[~has].sum())
    table = TagSummary.of(rows, (AXIS,)).rate_table()
    found = table.filter(pa.compute.equal(table["quantity"], "tagged")).to_pylist()
    for row, (low, high) in zip(found, [(0, 30), (30, 60), (60, 90)], strict=True):
        here = (mu >= low) & (mu < high)
        assert (row["low"], row["high"], row["rows"]) == (low, high, here.sum())
        assert row["rate"] == pytest.approx(w[here & tagged].sum() / w[here].sum())


def test_merged_summaries_are_those_of_all_rows():
    rows, _ = tag_rows()
    whole = TagSummary.of(rows, (AXIS,))
    thirds = np.array_split(np.arange(len(rows.weight)), 3)
    merged = sum(
        (TagSummary.of(part_of(rows, chosen), (AXIS,)) for chosen in thirds[1:]),
        start=TagSummary.of(part_of(rows, thirds[0]), (AXIS,)),
    )
    assert merged.figures() == pytest.approx(whole.figures(), rel=1e-12)
    assert merged.rate_table()["rows"] == whole.rate_table()["rows"]


def test_summary_without_labelled_rows_has_no_auc():
    rows, _ = tag_rows()
    ordinary = part_of(rows, np.flatnonzero(~rows.truths["label"]))
    figures = TagSummary.of(ordinary, (AXIS,)).figures()
    assert "auc.tagger.label" not in figures
    assert "loss.label" in figures


def test_position_map_counts_rows_and_tags():
    rng = np.random.default_rng(5)
    place = {name: rng.uniform(-400, 400, 1000) for name in "xyz"}
    tagged, weight = rng.random(1000) < 0.2, rng.uniform(0.5, 2, 1000)

    def of(chosen):
        columns = {name: values[chosen] for name, values in place.items()}
        return PositionMap.of(columns, "xyz", tagged[chosen], weight[chosen], width=100.0)

    table = (of(slice(0, 300)) + of(slice(300, 1000))).table().to_pylist()
    assert sum(row["rows"] for row in table) == 1000
    r, z = np.hypot(place["x"], place["y"]), np.abs(place["z"])
    row = table[5]
    here = (z >= row["low"]) & (z < row["high"]) & (r >= row["r_low"]) & (r < row["r_high"])
    assert row["rows"] == here.sum()
    assert row["rate"] == pytest.approx(weight[here & tagged].sum() / weight[here].sum())


def test_settings_name_a_kind_of_label_and_a_model_of_the_study():
    settings = TypeAdapter(TagSettings).validate_python({"label": {"regression": "dnn"}})
    assert settings.label == UnderPredicted(regression="dnn")
    base = {"name": "a", "output": "o"}
    with pytest.raises(ValidationError, match=r"the study has no model dnn, it has none"):
        Study.model_validate({**base, "tag": {"label": {"regression": "dnn"}}})
    with pytest.raises(ValidationError, match=r"drop_tagged: the study has no section tag"):
        Study.model_validate({**base, "dataset": {"drop_tagged": True}})


def test_panels_of_the_tagger_have_their_numbers_beside_them(tmp_path):
    canvas = pytest.importorskip("pipeline.report.panel")
    panels = pytest.importorskip("pipeline.report.figures.tagging")
    rows, mu = tag_rows()
    summary = TagSummary.of(rows, (AXIS,))
    place = {"x": 10 * mu, "y": 5 * mu, "z": -20 * mu}
    position = PositionMap.of(place, "xyz", rows.is_tagged, rows.weight, width=100.0).table()
    tables = {
        "tag_rates": summary.rate_table(),
        "tag_roc": summary.roc_table(),
        "tag_position": position,
    }
    with canvas.house_style():
        scene = Scene(tables, ReportSettings(), TARGET, "sample")
        drawn = [
            panel
            for draw in (panels.rate_panels, panels.curve_panels, panels.position_panels)
            for panel in draw(scene)
        ]
        for panel in drawn:
            canvas.save_panel(panel, tmp_path, dpi=72)
    assert [panel.name for panel in drawn] == ["tag-rate-mu", "tag-curve-label", "tag-position"]
    curve = yaml.safe_load((tmp_path / "tag-curve-label.yaml").read_text(encoding="utf-8"))
    (loss,) = curve["independent_variables"]
    assert len(loss["values"]) == len(set(tables["tag_roc"]["loss"].to_pylist()))
    names = [variable["header"]["name"] for variable in curve["dependent_variables"]]
    assert names == ["score", "share of clusters with the label"]
