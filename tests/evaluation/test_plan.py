"""Settings, and what they become on a dataset."""

import subprocess
import sys

import numpy as np
import pytest
from evaluation_fixtures import OTHER, TOPO, make_manifest, make_table
from pydantic import ValidationError

from pipeline.evaluation import accumulators
from pipeline.evaluation.plan import check_names, needed_columns, plan_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.formats.errors import UserError


def plan_of(given, *, target=TOPO, scale=1.0):
    table = make_table(500, target=target, scale=scale)
    manifest = make_manifest(table, target=target, cut=0.3 * scale)
    return plan_evaluation(EvaluateSettings.model_validate(given), manifest)


def test_default_axes_follow_the_training_rows():
    plan = plan_of({})
    denominator, numerator = plan.axes
    assert (denominator.column, numerator.column) == ("cluster_ENG_CALIB_TOT", "clusterE")
    assert denominator.unit == "GeV"
    table = make_table(500)
    for axis in plan.axes:
        assert axis.scale == "log"
        values, edges = table[axis.column], np.array(axis.edges)
        assert values.min() * 10**-0.1 < edges[0] <= values.min()
        assert edges[-1] > values.max()
        np.testing.assert_allclose(np.diff(np.log10(edges)), 0.1)


@pytest.mark.parametrize("scale", [1e-6, 1e8])
def test_other_units_get_other_edges(scale):
    plan = plan_of({"axes": {"n": {"of": "numerator"}}}, target=OTHER, scale=scale)
    axis = plan.axes[0]
    assert axis.column == "charge"
    assert axis.edges[0] == pytest.approx(scale * 10**-0.5, rel=0.3)
    assert axis.edges[-1] == pytest.approx(scale * 10**2.5, rel=0.3)


def test_given_bins_and_range():
    plan = plan_of({"axes": {"e": {"column": "clusterE", "bins": 54, "range": [0.01, 3162]}}})
    assert len(plan.axes[0].edges) == 55
    assert plan.axes[0].edges[0] == pytest.approx(0.01)


def test_too_many_bins_to_be_numbered_are_refused():
    with pytest.raises(ValidationError, match="less than or equal to 1000"):
        plan_of({"axes": {"e": {"column": "clusterE", "bins": 70_000}}})
    axes = {f"e{i}": {"column": "clusterE", "bins": 1_000} for i in range(70)}
    with pytest.raises(
        UserError, match=r"evaluate: the axes have \d+ bins together, at most 60000"
    ):
        plan_of({"axes": axes}).bins_of("profiles")


def test_closure_has_its_axis_whatever_the_axes_are():
    default = plan_of({}).truth_axis
    for axes in ({}, {"f": {"column": "fraction"}}):
        plan = plan_of({"axes": axes})
        assert [axis.name for axis in plan.axes] == [*axes, "denominator"]
        assert plan.truth_axis == default


def test_an_axis_of_the_denominator_is_that_of_closure():
    plan = plan_of({"axes": {"e": {"of": "numerator"}, "t": {"of": "denominator", "bins": 7}}})
    assert [axis.name for axis in plan.axes] == ["e", "t"]
    assert plan.truth_axis == plan.axes[1]


def test_a_linear_feature_gets_a_linear_axis():
    plan = plan_of({"axes": {"f": {"column": "fraction"}}})
    assert plan.axes[0].scale == "linear"
    np.testing.assert_allclose(np.diff(plan.axes[0].edges, 2), 0, atol=1e-9)


def test_needed_columns():
    given = {
        "axes": {"d": {"of": "denominator"}},
        "regions": {"low": {"column": "fraction", "to": 0.5}},
    }
    needed = needed_columns(
        EvaluateSettings.model_validate(given), make_manifest(make_table(50, weighted=True))
    )
    assert set(needed.dataset) == {
        *("cluster_id", "clusterE", "cluster_ENG_CALIB_TOT", "response", "fraction", "w"),
    }
    assert {"response", "energy", "pit", "log_density"} <= set(needed.calibrated)


def test_a_region_may_have_several_conditions():
    plan = plan_of({
        "regions": {
            "gap": {"where": [{"column": "fraction", "to": 0.1}, {"of": "numerator", "from": 5}]}
        }
    })
    assert [c.column for c in plan.regions["gap"]] == ["fraction", "clusterE"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"axes": {"a": {"column": "no_such"}}}, "no column no_such"),
        ({"regions": {"r": {"column": "no_such", "to": 1}}}, "evaluate.regions.r"),
        ({"regions": {"r": {"of": "target", "to": 2}}}, "evaluate.regions.r: selects on response"),
        ({"regions": {"r": {"of": "denominator", "from": 1}}}, "a truth that no calibration can"),
        ({"axes": {"a": {"column": "fraction", "range": [-1, 1], "scale": "log"}}}, "above 0"),
        ({"axes": {"a": {"column": "cluster_id"}}}, "range must be given"),
        ({"axes": {"denominator": {"of": "numerator"}}}, "an axis of clusterE; give this axis"),
    ],
)
def test_what_the_dataset_lacks_is_the_users_error(given, words):
    with pytest.raises(UserError, match=words):
        plan_of(given)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("clusterE", "evaluate.baseline: .* evaluate.baseline=null"),
        ("cluster_ENG_CALIB_TOT", "evaluate.axes.denominator: .* range must be given"),
        ("response", "no statistics of its target response"),
    ],
)
def test_a_range_that_is_needed_and_not_known_is_the_users_error(column, words):
    manifest = make_manifest(make_table(100))
    kept = {name: value for name, value in manifest.statistics.items() if name != column}
    settings = EvaluateSettings(axes={})
    with pytest.raises(UserError, match=words):
        plan_evaluation(settings, manifest.model_copy(update={"statistics": kept}))


def test_without_a_baseline_the_numerator_needs_no_range():
    manifest = make_manifest(make_table(100))
    kept = {name: value for name, value in manifest.statistics.items() if name != "clusterE"}
    settings = EvaluateSettings(axes={}, baseline=None)
    plan = plan_evaluation(settings, manifest.model_copy(update={"statistics": kept}))
    assert plan.baseline_bins is None


def test_a_target_that_is_not_positive_is_the_users_error():
    manifest = make_manifest(make_table(100))
    zero = manifest.statistics["response"].model_copy(update={"minimum": 0.0})
    changed = manifest.model_copy(update={"statistics": manifest.statistics | {"response": zero}})
    with pytest.raises(UserError, match="values from 0 of its target response"):
        plan_evaluation(EvaluateSettings(), changed)


class TestNames:
    SETS = ("bnn", "re", "oracle")

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (
                {"reference": "orcale"},
                "^evaluate.reference: no calibrated set is called orcale, "
                "the study has bnn, re, oracle; give one of them",
            ),
            (
                {"pairs": [["a", "bnn"], ["a", "b"]]},
                "^evaluate.pairs: no calibrated set is called a or b, the study has bnn, re",
            ),
            ({"reference": "em"}, "called em"),
        ],
    )
    def test_a_set_that_is_not_there_is_the_users_error(self, given, words):
        with pytest.raises(UserError, match=words):
            check_names(EvaluateSettings.model_validate(given), self.SETS)

    def test_both_problems_are_told_at_once(self):
        given = {"reference": "x", "pairs": [["y", "bnn"]]}
        with pytest.raises(UserError, match=r"evaluate.reference: .*\nevaluate.pairs: "):
            check_names(EvaluateSettings.model_validate(given), self.SETS)

    @pytest.mark.parametrize("reference", ["oracle", "bnn"])
    def test_sets_that_are_there_may_be_named(self, reference):
        given = {"reference": reference, "pairs": [["re", "bnn"], ["bnn", "oracle"]]}
        check_names(EvaluateSettings.model_validate(given), self.SETS)

    def test_the_default_reference_may_be_missing(self):
        check_names(EvaluateSettings(), ["bnn"])
        check_names(EvaluateSettings(), [])
        with pytest.raises(UserError, match=r"evaluate.pairs: .* called oracle, the study has bnn"):
            check_names(EvaluateSettings(pairs=(("bnn", "oracle"),)), ["bnn"])

    def test_reserved_names_are_known_without_drawing_anything(self):
        program = (
            "import sys; from pipeline.evaluation.rows import RESERVED_SETS; "
            "assert {'em', 'histogram', 'target', 'all', 'oracle'} == set(RESERVED_SETS); "
            "assert not {'matplotlib', 'mplhep', 'jinja2'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "given",
    [
        {"axes": {"a": {"column": "x", "of": "target"}}},
        {"axes": {"a": {}}},
        {"axes": {"a": {"column": "x", "range": [2, 1]}}},
        {"regions": {"r": {"column": "x"}}},
        {"regions": {"all": {"column": "x", "to": 1}}},
        {"unknown": 1},
        {"min_rows_per_bin": 0},
        {"regions": {"r": {"column": "x", "from": 2, "to": 2}}},
        {"regions": {"a/b": {"column": "x", "to": 1}}},
        {"axes": {"a b": {"column": "x"}}},
        {"truncate": [1, -1]},
        {"fine": {"ratio": {"scale": "linear", "low": 0.0, "high": 2.0, "cells": 100}}},
        {"fine": {"pull": {"scale": "log", "low": 0.1, "high": 2.0, "cells": 100}}},
    ],
)
def test_impossible_settings_are_refused(given):
    with pytest.raises(ValidationError):
        EvaluateSettings.model_validate(given)


def test_settings_survive_json():
    given = {"regions": {"low": {"column": "x", "from": 0.0, "to": 1.0}}, "pairs": [["a", "b"]]}
    settings = EvaluateSettings.model_validate(given)
    assert EvaluateSettings.model_validate_json(settings.model_dump_json()) == settings


def test_no_two_figures_are_held_in_the_same_place():
    """A figure is equal to another of its name and accumulator."""
    found = list(vars(accumulators).values())
    nested = [each for value in found if isinstance(value, dict) for each in value.values()]
    nested += [each for value in found if isinstance(value, tuple) for each in value]
    figures = [each for each in found + nested if isinstance(each, accumulators.Figure)]
    assert len(figures) > 20
    assert len(set(figures)) == len(figures)
