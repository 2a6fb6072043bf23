"""The report: drawn from tables alone, complete, self-contained and the same every time."""

import re
import xml.etree.ElementTree as ET
from itertools import islice

import pyarrow as pa
import pyarrow.csv
import pytest
from evaluation_fixtures import OTHER, TOPO
from pydantic import ValidationError

pytest.importorskip("matplotlib")
pytest.importorskip("mplhep")
pytest.importorskip("jinja2")

from report_fixtures import draw, make_full_inputs, make_inputs

from pipeline.report.figures.densities import shorthand
from pipeline.report.figures.scores import nll_panels
from pipeline.report.panel import Panel, house_style, new_axes, save_panel
from pipeline.report.paper import panel_letters
from pipeline.report.settings import ReportSettings
from pipeline.report.study_data import Scene
from pipeline.report.write import write_report

SVG = "{http://www.w3.org/2000/svg}"


def keep_only(tables, *names):
    """The tables, all empty but these and the sets: a report with few panels."""
    names = (*names, "sets")
    return {name: table if name in names else table.slice(0, 0) for name, table in tables.items()}


@pytest.fixture(scope="module")
def inputs():
    return make_full_inputs()


@pytest.fixture(scope="module")
def report(inputs, tmp_path_factory):
    return draw(inputs, tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(report):
    return (report / "index.html").read_text(encoding="utf-8")


def tree_of(text):
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - likewise


def num_points(vector):
    """Points of curves, markers and images inside the axes of an SVG; frame and ticks are none."""
    axes = next(g for g in tree_of(vector).iter(f"{SVG}g") if g.get("id") == "axes_1")
    points = 50 * sum(1 for _ in axes.iter(f"{SVG}image"))
    for mark in axes.iter():
        if mark.get("clip-path"):
            points += sum(1 for _ in mark.iter(f"{SVG}use"))
            for path in mark.iter(f"{SVG}path"):
                points += len(re.findall(r"[MLC]", path.get("d", "")))
    return points


def test_the_page_is_well_formed_and_names_the_study(page):
    tree = tree_of(page)
    assert tree.find("head/title").text == "small <study> & more"
    titles = [heading.text for heading in tree.iter("h2")]
    assert titles[:2] == ["Contents", "Headline figures"]
    assert titles[-3:] == ["Training", "Dataset", "Run records and settings"]
    figures = [title.split(":")[0] for title in titles if title.startswith("Figure")]
    assert figures == [f"Figure {number}" for number in (1, 4, 6, 7, 9, 11, 12, 13, 14, 19)]
    for section in tree.iter("section"):
        assert section.find("p").text.strip().endswith(".")


def test_identifiers_are_unique_and_references_resolve(page):
    tree = tree_of(page)
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert references <= set(ids)
    assert len(references) > 100


def test_nothing_is_fetched_from_outside(page):
    sources = re.findall(r'(?:src|href)="([^"#][^"]*)"', page)
    assert all(source.startswith(("figures/", "data:")) for source in sources)
    assert "<script" not in page
    assert "@import" not in page


def test_no_nan_reaches_a_reader(page, report):
    words = re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|none|inf)\b", words, re.IGNORECASE)
    for vector in report.glob("figures/*.svg"):
        assert not re.search(r'[ "](nan|inf)[ "]', vector.read_text(encoding="utf-8"))


def test_links_lead_to_files(page, report):
    links = re.findall(r'href="(figures/[^"]+)"', page)
    assert len(links) == 4 * page.count("<figure") + 1
    for link in links:
        assert (report / link).stat().st_size > 0
    drawn = {f"figures/{path.name}" for path in (report / "figures").iterdir()}
    assert drawn == set(links)


def test_every_panel_has_data(report):
    vectors = sorted(report.glob("figures/*.svg"))
    assert len(vectors) > 15
    for vector in vectors:
        assert num_points(vector.read_text(encoding="utf-8")) > 10, vector.name


def test_a_panel_without_data_would_be_noticed(tmp_path):
    with house_style():
        figure, axes = new_axes("nothing")
        axes.axhline(0.0)
        empty = save_panel(Panel("empty", "", figure, pa.table({"a": [1]})), tmp_path, 72)
    assert num_points(empty) <= 10


def test_the_csv_of_a_panel_holds_its_numbers(report, inputs):
    written = pyarrow.csv.read_csv(report / "figures" / "delta-e-denominator.csv")
    assert set(written["set"].to_pylist()) == {"em", "bnn", "re", "oracle"}
    axes = inputs["tables"]["delta_e"]["axis"].to_pylist()
    assert written.num_rows == axes.count("denominator")
    for table in report.glob("figures/*.csv"):
        assert pyarrow.csv.read_csv(table).num_rows > 0


def test_the_headline_table_shows_the_summary(page, inputs):
    tree = tree_of(page)
    first = next(tree.iter("table"))
    head = [cell.text for cell in first.iter("th") if cell.get("scope") == "col"]
    assert head == ["figure", "paper", "BNN", "RE", "exact density", "histogram", "meaning"]
    score = next(row for row in first.iter("tr") if row.findtext("th") == "score")
    cells = [cell.text for cell in score.iter("td")]
    names = ("bnn", "re", "oracle", "histogram")
    assert cells[1:5] == [f"{inputs['summary'][f'{name}.nll']:.3f}" for name in names]
    closure = next(r for r in first.iter("tr") if r.findtext("th") == "closure against exact")
    assert [cell.text for cell in closure.iter("td")][3:5] == ["\u2013", "\u2013"]


def test_a_region_tells_how_its_resolution_is_defined(page):
    tables = list(tree_of(page).iter("table"))
    titles = [table.findtext("caption") for table in tables]
    assert titles[:3] == ["All test rows", "Region low", "Pairs of models"]
    assert titles[3].startswith("Statements: ")
    notes = []
    for table in tables[:2]:
        rows = table.iter("tr")
        gain = next(r for r in rows if r.findtext("th") == "resolution over uncalibrated")
        notes.append(list(gain.iter("td"))[-1].text)
    assert "median over the bins" in notes[0]
    assert "taken together, not a median" in notes[1]


def test_the_reference_is_the_evaluations(inputs, tmp_path):
    tables = inputs["tables"] | {"sets": pa.table({"set": ["re", "bnn"], "role": ["model"] * 2})}
    scene = Scene(tables, ReportSettings(), TOPO, "sample")
    assert (scene.models, scene.reference, scene.sets) == (("re", "bnn"), None, ("re", "bnn"))
    roles = pa.table({"set": ["bnn", "oracle"], "role": ["reference", "model"]})
    scene = Scene(tables | {"sets": roles}, ReportSettings(), TOPO, "sample")
    assert (scene.models, scene.reference, scene.sets) == (("oracle",), "bnn", ("oracle", "bnn"))
    assert scene.look("bnn").colour == "#000000"
    some = keep_only(tables, "axes", "scores", "delta_e", "sigma_ratio")
    write_report(tmp_path, **(inputs | {"tables": some, "cards": {}, "histories": {}}))
    assert "exact density</text>" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    with pytest.raises(ValidationError, match="reference"):
        ReportSettings.model_validate({"reference": "oracle"})


def test_the_split_is_named(inputs, tmp_path):
    some = inputs | {"tables": keep_only(inputs["tables"], "scores"), "histories": {}}
    write_report(tmp_path, **some, split="validation")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "All validation rows" in page
    assert "8,000 to train; evaluated: 400 of the validation split" in page
    assert "test rows" not in page


def test_rows_without_density_are_shown_where_there_is_no_score(tmp_path):
    inputs = make_inputs(rows=3_000, models=("bnn",), broken=7)
    tables = keep_only(inputs["tables"], "axes", "scores")
    write_report(tmp_path, **(inputs | {"tables": tables, "histories": {}}))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    first = next(tree_of(page).iter("table"))
    cells = {row.findtext("th"): [c.text for c in row.iter("td")] for row in first.iter("tr")}
    assert cells["score"][1] == "\u2013"
    assert cells["rows without density"][1:4] == ["7", "\u2013", "\u2013"]
    with house_style():
        scene = Scene(tables, inputs["settings"], TOPO, "sample")
        (panel,) = nll_panels(scene)
    labels = [label.get_text() for label in panel.figure.axes[0].get_yticklabels()]
    assert labels == ["histogram", "BNN\n(without 7 rows)", "exact density"]


def test_the_dataset_is_told(page):
    for words in ("cluster_ENG_CALIB_TOT &gt; 0.3", "8\u202f000", "16\u202f000", "fraction"):
        assert words in page


def test_records_and_settings_are_told(page):
    tables = {table.findtext("caption"): table for table in tree_of(page).iter("table")}
    (row,) = tables["Runs"].find("tbody")
    counts = "bnn (rows 8000, epochs 12)"
    assert [cell.text for cell in row] == ["train", "0123456789ab", "12.5 s", "300 MiB", counts]
    assert "torch" in [row.findtext("th") for row in tables["Software"].iter("tr")]
    assert "sigma_window:" in tree_of(page).findtext(".//details/pre")
    assert "of 0.1 to 0.4 by BNN" in page


def test_the_same_input_gives_the_same_bytes_with_any_number_of_processes(inputs, report, tmp_path):
    some = inputs | {"tables": keep_only(inputs["tables"], "axes", "scores", "plane")}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").write_text("of an earlier report")
    write_report(tmp_path, processes=2, **some)
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert {"plane-denominator-bnn.svg", "nll.pdf", "loss-bnn.svg"} <= set(drawn)
    assert "old.svg" not in drawn
    for name in set(drawn) - {"submission.yaml"}:  # which lists the panels
        first, second = report / "figures" / name, tmp_path / "figures" / name
        assert first.read_bytes() == second.read_bytes(), name


def test_another_target_without_cards_and_histories(tmp_path):
    given = {"axes": {"denominator": {"of": "denominator"}}, "min_rows_per_bin": 20}
    inputs = make_inputs(target=OTHER, rows=3_000, models=("net",), given=given)
    tables = keep_only(inputs["tables"], "axes", "scores", "delta_e")
    write_report(tmp_path, **(inputs | {"tables": tables, "cards": {}, "histories": {}}))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "light_yield = charge / true_charge" in page
    assert "cluster" not in page
    tree_of(page)


def test_an_evaluation_of_too_few_rows_still_has_a_page(tmp_path):
    inputs = make_inputs(rows=30)
    assert inputs["summary"] == {}
    tables = keep_only(inputs["tables"], "axes", "scores", "delta_e", "delta_r", "pull_fit")
    write_report(tmp_path, **(inputs | {"histories": {}, "tables": tables}))
    tree_of((tmp_path / "index.html").read_text(encoding="utf-8"))


def test_a_dataset_without_truth_has_no_report(inputs, tmp_path):
    bare = inputs["manifest"].model_copy(update={"target": None})
    with pytest.raises(ValueError, match="without truth"):
        write_report(tmp_path, **(inputs | {"manifest": bare}))


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.98765, 0.0123, "0.988(12)"),
        (-0.0004321, 0.00034, "\u22120.0004(3)"),
        (0.98765, 0.000034, "0.98765(3)"),
    ],
)
def test_fitted_errors_are_never_rounded_to_nothing(value, error, words):
    assert shorthand(value, error) == words


def test_there_are_letters_for_the_panels_of_any_number_of_models():
    letters = list(islice(panel_letters(), 60))
    assert letters[:2] + letters[25:28] + letters[52:53] == ["a", "b", "z", "aa", "ab", "ba"]
    assert len(set(letters)) == 60
