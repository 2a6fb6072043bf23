"""The table and the figure that show all models side by side."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from pipeline.formats.columns import Target
from pipeline.report.figures import comparison
from pipeline.report.panel import house_style
from pipeline.report.settings import ReportSettings
from pipeline.report.study_data import Scene

EDGES = np.geomspace(0.3, 300.0, 11)


def make_scene(models=("dnn", "bnn"), *, with_scores=True):
    """Tables as `evaluate` writes them; the last bin of the first model has no estimates."""
    names = (*models, "oracle")
    closure, profile = [], []
    for number, name in enumerate(("em", *names)):
        for at, (low, high) in enumerate(itertools.pairwise(EDGES)):
            place = {"axis": "denominator", "set": name, "rows": 500, "low": low, "high": high}
            known = not (name == models[0] and at == 9)
            median = 0.1 * number + 0.01 * at if known else None
            closure.append({**place, "median": median, "sigma_rel": 0.2 if known else None})
            nll = -1.0 if name in {"bnn", "oracle"} else None
            profile.append({**place, "nll": nll, "crps": 0.05 + number})
    sets = [{"set": n, "role": "reference" if n == "oracle" else "model"} for n in names]
    axis = {"axis": "denominator", "column": "E_dep", "unit": "GeV", "scale": "log"}
    scores = [{"set": n, "population": "all", "nll": -1.0, "crps": 0.05} for n in names]
    tables = {
        "sets": pa.Table.from_pylist(sets),
        "axes": pa.Table.from_pylist([{**axis, "closure_from": 0.5}]),
        "delta_e": pa.Table.from_pylist(closure),
        "scores": pa.Table.from_pylist(scores),
    }
    tables |= {"score_profile": pa.Table.from_pylist(profile)} if with_scores else {}
    return Scene(tables, ReportSettings(), Target(), "Simulation")


def test_scores_stand_beside_closure_and_resolution_of_the_same_bin():
    rows = comparison.join(make_scene()).to_pylist()
    assert len(rows) == 4 * 10 - 1
    row = next(r for r in rows if r["set"] == "bnn" and r["low"] == EDGES[3])
    assert (row["median"], row["sigma_rel"]) == (pytest.approx(0.23), 0.2)
    assert (row["nll"], row["crps"]) == (-1.0, 2.05)
    assert next(r for r in rows if r["set"] == "dnn")["nll"] is None


def test_one_table_and_one_figure_show_all_sets():
    (table,) = comparison.tables(make_scene())
    assert len(table.rows) == 4
    assert table.rows[2][1:3] == ["-1.0000", "0.0500"]
    assert "+20.0%, 0.200" in table.rows[2]
    assert table.rows[1][-1] == ""
    with house_style():
        (panel,) = comparison.panels(make_scene())
    assert len(panel.figure.axes) == 3
    assert {len(axes.lines) for axes in panel.figure.axes} <= {4, 5}


def test_without_scores_in_bins_the_rest_is_shown():
    with house_style():
        (panel,) = comparison.panels(make_scene(with_scores=False))
    assert [len(axes.lines) for axes in panel.figure.axes] == [5, 4]  # with a line at zero


def test_one_model_is_no_comparison():
    assert not list(comparison.tables(make_scene(("bnn",))))
    with house_style():
        assert not list(comparison.panels(make_scene(("bnn",))))
