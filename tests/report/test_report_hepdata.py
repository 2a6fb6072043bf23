"""The files for HEPData: structure, numbers, errors and missing cells."""

import numpy as np
import pyarrow as pa
import pytest
import yaml

pytest.importorskip("markupsafe")

from pipeline.report.hepdata import data_document, submission

# What schema 1.1.1 of https://hepdata-submission.readthedocs.io allows.
HEADER = {"name", "units"}
CELLS = ({"value"}, {"low", "high"}, {"value", "low", "high"})
DOCUMENT = {"name", "location", "description", "keywords", "data_file", "additional_resources"}


def check_data(document):
    """The rules of the schema, and that all variables have as many values."""
    assert set(document) == {"independent_variables", "dependent_variables"}
    lengths = set()
    for kind, variables in document.items():
        for variable in variables:
            allowed = {"header", "values"}
            if kind == "dependent_variables":
                allowed |= {"qualifiers"}
            assert {"header", "values"} <= set(variable) <= allowed
            assert {"name"} <= set(variable["header"]) <= HEADER
            lengths.add(len(variable["values"]))
    for variable in document["independent_variables"]:
        assert all(set(cell) in CELLS for cell in variable["values"])
    for variable in document["dependent_variables"]:
        assert all(set(q) == {"name", "value"} for q in variable["qualifiers"])
        for cell in variable["values"]:
            assert set(cell) <= {"value", "errors"}
            assert isinstance(cell["value"], (int, float, str))
            for error in cell.get("errors", ()):
                assert len(set(error) & {"symerror", "asymerror"}) == 1
                assert set(error) <= {"symerror", "asymerror", "label"}
                assert error.get("symerror") != 0.0
    assert len(lengths) == 1
    return document


def read(table, labels=None):
    return check_data(yaml.safe_load(data_document(table, labels or {})))


def test_curves_share_the_bins_and_keep_errors():
    table = pa.table({
        "set": ["bnn", "bnn", "re"],
        "low": [1.0, 2.0, 2.0],
        "high": [2.0, 4.0, 4.0],
        "median": [0.1, None, 0.3],
        "median_error": [0.01, None, 0.02],
        "left68": [-0.2, None, 0.0],
        "right68": [0.5, None, 0.4],
    })
    document = read(table, {"low": r"$E^\mathrm{dep}$ [GeV]", "median": "Median"})
    (energy,) = document["independent_variables"]
    assert energy["header"] == {"name": r"$E^\mathrm{dep}$", "units": "GeV"}
    assert energy["values"] == [{"low": 1.0, "high": 2.0}, {"low": 2.0, "high": 4.0}]
    first, second = document["dependent_variables"]
    assert first["qualifiers"] == [{"name": "set", "value": "bnn"}]
    assert [cell["value"] for cell in first["values"]] == [0.1, "-"]
    statistical, interval = first["values"][0]["errors"]
    assert statistical == {"symerror": 0.01, "label": "statistical"}
    assert interval["asymerror"]["minus"] == pytest.approx(-0.3)
    assert interval["asymerror"]["plus"] == pytest.approx(0.4)
    assert [cell["value"] for cell in second["values"]] == ["-", 0.3]


def test_cells_have_two_independent_variables():
    table = pa.table({
        "low": [1.0, 1.0],
        "high": [2.0, 2.0],
        "other_low": [5.0, 6.0],
        "other_high": [6.0, 7.0],
        "weight": [3.0, np.nan],
    })
    document = read(table)
    assert len(document["independent_variables"]) == 2
    (weight,) = document["dependent_variables"]
    assert [cell["value"] for cell in weight["values"]] == [3.0, "-"]


def test_epochs_and_names_are_axes_too():
    epochs = read(pa.table({"epoch": [1.0, 2.0], "loss": [0.5, 0.25]}), {"epoch": "Epoch"})
    assert epochs["independent_variables"][0]["values"] == [{"value": 1.0}, {"value": 2.0}]
    names = read(pa.table({"set": ["bnn", "re"], "nll": [-0.9, -0.95], "nll_error": [0.1, 0.0]}))
    assert names["independent_variables"][0]["values"] == [{"value": "bnn"}, {"value": "re"}]
    (nll,) = names["dependent_variables"]
    assert ["errors" in cell for cell in nll["values"]] == [True, False]


def test_no_row_is_lost_without_a_word():
    table = pa.table({"set": ["bnn", "bnn"], "kept": [0.5, 1.0], "width": [0.1, 0.2]})
    curves = read(table, {"kept": "Share kept"})
    assert [cell["value"] for cell in curves["dependent_variables"][0]["values"]] == [0.1, 0.2]
    with pytest.raises(ValueError, match="have the same bin"):
        read(table)


def test_the_submission_lists_the_files():
    text = submission([("delta-e-y", "7c", "Median of $E$ & more"), ("pit", "", "PIT")], "Of this")
    first, closure, pit = yaml.safe_load_all(text)
    assert first == {"comment": "Of this"}
    for document in (closure, pit):
        assert set(document) == DOCUMENT
        assert len(document["name"]) <= 64
        assert document["data_file"] == document["name"] + ".yaml"
    assert closure["description"] == "Median of E & more"
    assert closure["location"].startswith("Figure 7c of")
