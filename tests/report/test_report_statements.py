"""Statements of the paper, the strength of the repulsion and the words around them."""

import numpy as np
import pyarrow as pa
import pytest
from evaluation_fixtures import TOPO

pytest.importorskip("matplotlib")
pytest.importorskip("mplhep")

from pipeline.report.figures.maps import OUTLINES
from pipeline.report.figures.training import describe_repulsion
from pipeline.report.math_text import split_unit, to_html, to_text
from pipeline.report.settings import ReportSettings
from pipeline.report.statements import STATEMENTS, closure, ridges, spectra, uncertainty
from pipeline.report.statements.table import statement_tables
from pipeline.report.study_data import Scene


class Card:
    """What of a card the statements look at."""

    def __init__(self, kind):
        self.kind = kind


def make_scene(*, kinds=("bnn",), **tables):
    names = ["net", "other"][: len(kinds)]
    sets = pa.table({"set": [*names, "oracle"], "role": ["model"] * len(names) + ["reference"]})
    cards = {name: Card(kind) for name, kind in zip(names, kinds, strict=True)}
    return Scene({"sets": sets, **tables}, ReportSettings(), TOPO, "sample", cards=cards)


def profile(axis, edges, **medians):
    """Medians of sets in bins of 1000 rows; None for a bin without estimates."""
    columns = {"axis": [], "set": [], "rows": [], "low": [], "high": [], "median": []}
    for name, values in medians.items():
        for low, high, value in zip(edges[:-1], edges[1:], values, strict=True):
            for column, entry in zip(columns, (axis, name, 1000, low, high, value), strict=True):
                columns[column].append(entry)
    columns["sigma_rel"] = columns["mean_truncated"] = columns["median"]
    return pa.table(columns)


def spectrum(axis, edges, **weights):
    rows = []
    total = np.sum(list(weights.values()), axis=0)
    for name, values in {"all": total, **weights}.items():
        for low, high, value, whole in zip(edges[:-1], edges[1:], values, total, strict=True):
            share = value / whole if whole else None
            rows.append({
                "axis": axis,
                "class": name,
                "rows": int(value),
                "low": low,
                "high": high,
                "weight": float(value),
                "fraction": share,
            })
    return pa.Table.from_pylist(rows)


def test_closure_looks_at_full_bins_above_half_a_gev():
    table = profile("denominator", [0.3, 0.5, 1.0, 2.0, 4.0], net=[0.3, -0.015, 0.01, None])
    scene = make_scene(delta_e=table)
    assert closure.closure_from_half(scene, "net").found == "1.5% (at 0.5 GeV)"
    assert closure.closure_from_half(scene, "net").holds
    worse = profile("denominator", [0.3, 0.5, 1.0, 2.0], net=[0.0, -0.021, 0.01])
    assert not closure.closure_from_half(make_scene(delta_e=worse), "net").holds
    assert closure.closure_from_half(scene, "oracle") is None


def test_late_clusters_are_those_beyond_half_a_crossing():
    edges = [-40.0, -20.0, -10.0, 10.0, 20.0, 40.0]
    table = profile("t", edges, net=[-0.2, 0.5, 0.01, 0.5, -0.24], em=[1.5, 0, 0, 0, 1.1])
    scene = make_scene(delta_e=table)
    assert closure.late_calibrated(scene, "net").found == "\u221222.0%"
    assert closure.late_is_constant(scene, "net").holds
    assert closure.late_uncalibrated(scene, "em").found == "1.30"
    assert closure.in_time(scene, "net").found == "for 100% of the clusters"


def test_resolution_is_compared_bin_by_bin():
    edges = [1.0, 2.0, 4.0]
    scene = make_scene(delta_e=profile("denominator", edges, net=[0.1, 0.3], em=[0.2, 0.2]))
    assert closure.sharper_than_em(scene, "net").found == "in 1 of 2 bins"
    assert not closure.sharper_than_em(scene, "net").holds
    assert closure.sharper_than_lcw(scene, "net") is None


def test_classes_cross_where_their_fractions_do():
    edges = [1.0, 2.0, 10.0, 100.0, 200.0, 400.0]
    table = spectrum(
        "numerator",
        edges,
        hadronic=[800, 700, 600, 300, 200],
        composite=[100, 200, 300, 600, 700],
        EM=[100, 100, 100, 100, 100],
    )
    scene = make_scene(spectrum=table)
    assert spectra.hadronic_leads_low(scene, "em").found == "at least 80.0%"
    found = spectra.composite_equals_hadronic(scene, "em")
    assert found.found == "at 67 GeV"
    assert found.holds
    assert spectra.composite_leads_high(scene, "em").holds


@pytest.mark.parametrize(
    ("heights", "found"), [([5, 1, 2, 9], "R = 41"), ([5, 4, 3, 2], "no peak")]
)
def test_a_second_peak_must_rise_over_its_valley(heights, found):
    edges = 10 * 1.5 ** np.arange(5)
    table = spectrum("response", edges.tolist(), EM=[100 * height for height in heights])
    peak = spectra.gap_peak(make_scene(spectrum=table), "em")
    assert peak.found == found
    assert peak.holds == (found != "no peak")


def test_predictions_are_compared_by_the_width_of_their_columns():
    cells = np.geomspace(0.5, 2.0, 13)
    rows = []
    for name, half in {"target": 4, "net": 2, "other": 1}.items():
        rows += [
            {
                "axis": "denominator",
                "set": name,
                "rows": 1000,
                "weight": 1000.0,
                "low": 1.0,
                "high": 2.0,
                "target_low": cells[i],
                "target_high": cells[i + 1],
            }
            for i in range(6 - half, 6 + half)
        ]
    scene = make_scene(kinds=("bnn", "repulsive_ensemble"), plane=pa.Table.from_pylist(rows))
    assert ridges.is_sharper(scene, "net").found == "0.50 of the target's width"
    alike = ridges.is_like_bnn(scene, "other")
    assert alike.found == "0.50 of the BNN's width"
    assert not alike.holds


def test_pairs_are_found_in_either_order():
    fit = {"mean": 0.0, "left": 0.09, "right": 0.10}
    pulls = pa.Table.from_pylist([
        {"figure": "pair_sigma", "set": "other_vs_net", "population": "all", **fit},
        {"figure": "t_log", "set": "net", "population": "all", "mean": -0.2, "left": 0.5,
         "right": 1.6},
    ])  # fmt: skip
    lows = [-0.3, -0.1, 0.1]
    pair = pa.Table.from_pylist([
        {"set": "other_vs_net", "population": "all", "low": low, "high": low + 0.2, "fraction": f}
        for low, f in zip(lows, (0.1, 0.7, 0.2), strict=True)
    ])
    kinds = ("bnn", "repulsive_ensemble")
    scene = make_scene(kinds=kinds, pull_fit=pulls, pair_sigma=pair)
    assert uncertainty.agreement(scene, "other").found == "9.5%"
    assert uncertainty.is_symmetric(scene, "other").holds
    tails = uncertainty.tails_are_equal(scene, "other")
    assert tails.found == "10.0% below, 20.0% above"
    assert not tails.holds
    assert not uncertainty.pull_centre(scene, "net").holds
    assert not uncertainty.pull_is_narrow(scene, "net").holds
    assert uncertainty.no_bias(scene, "other") is None


def test_the_table_judges_and_says_what_cannot_be_judged():
    table = profile("denominator", [0.5, 1.0], net=[0.01], oracle=[0.03])
    (found,) = statement_tables(make_scene(delta_e=table))
    rows = {(row[0], row[5]): row for row in found.rows}
    assert len(found.rows) == len(STATEMENTS)
    words = "Largest |median \u0394E| above 0.5 GeV"
    row = rows[words, "net"]
    assert row[1:5] == ["< 2%", "1.0% (at 0.5 GeV)", "3.0% (at 0.5 GeV)", "holds"]
    assert rows["Correlation of the pulls", "repulsive ensemble"][4] == "not applicable"
    assert found.caption.startswith("Statements: 1 hold, 0 do not hold")
    assert list(statement_tables(make_scene())) == []


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.check.__name__)
def test_every_statement_may_lack_its_tables(statement):
    scene = make_scene(kinds=("bnn", "repulsive_ensemble"))
    assert statement.check(scene, "other") is None


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([1e-6, 9e-7], "too weak to matter"),
        ([2e-2, 3e-3], "strong enough to matter"),
        ([2e-3, np.nan, 5e-3], "That is weak"),
        ([0.0, 0.0], "a plain ensemble"),
    ],
)
def test_the_repulsion_in_words(ratios, words):
    assert words in describe_repulsion("RE", np.array(ratios), 0.014)


def test_the_repulsion_is_told_with_its_numbers():
    text = to_text(describe_repulsion("RE", np.array([2.1e-5, 8.8e-7]), 0.014))
    assert "was 8.8 \u00d7 10 \u22127 of the likelihood's (8.8 \u00d7 10 \u22127 to 2.1" in text
    assert "(0.014 in log10 of the target" in text


def test_labels_for_a_page_and_for_reading_aloud():
    label = r"$\langle m_\mathrm{long}^2\rangle$ & $E^\mathrm{dep}$ [GeV]"
    assert to_html(label) == (
        "\u27e8m<sub>long</sub><sup>2</sup>\u27e9 &amp; E<sup>dep</sup> [GeV]"
    )
    assert to_text(label) == "\u27e8m long 2\u27e9 & E dep [GeV]"
    assert split_unit(label)[1] == "GeV"


@pytest.mark.parametrize(
    ("name", "along", "low", "high"),
    [
        ("EMB1", "r", 1471, 1570),
        ("EMB2", "r", 1641, 1764),
        ("EMB3", "r", 1850, 1960),
        ("EME1", "z", 3710, 3880),
        ("EME2", "z", 3933, 4098),
        ("HEC0", "z", 4459, 4459),
        ("HEC1", "z", 4874, 4874),
        ("HEC2", "z", 5397, 5397),
        ("HEC3", "z", 5892, 5892),
        ("Tile A", "r", 2294, 2547),
        ("Tile BC", "r", 2794, 3079),
        ("Tile D", "r", 3456, 3628),
        ("C10", "r", 3066, 3205),
        ("C10", "z", 3281, 3499),
        ("D4", "r", 3444, 3629),
        ("D4", "z", 3127, 3427),
        ("Tile ext. A", "r", 2328, 2512),
        ("Tile ext. B", "r", 2744, 2982),
        ("Tile ext. D", "r", 3282, 3498),
    ],
)
def test_outlines_hold_the_centres_of_real_clusters(name, along, low, high):
    """98% of the clusters with most of their signal in a layer, from public simulated data."""
    (outline,) = (outline for outline in OUTLINES if outline.name == name)
    start, end = getattr(outline, along)
    assert start <= low <= high <= end
