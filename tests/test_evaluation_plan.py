"""Settings, and what they become on a dataset."""

import numpy as np
import pytest
from evaluation_fixtures import OTHER, TOPO, make_manifest, make_table
from pydantic import ValidationError

from pipeline.evaluation.plan import needed_columns, plan_evaluation
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
    (axis,) = plan.axes
    assert axis.column == "charge"
    assert axis.edges[0] == pytest.approx(scale * 10**-0.5, rel=0.3)
    assert axis.edges[-1] == pytest.approx(scale * 10**2.5, rel=0.3)


def test_given_bins_and_range():
    plan = plan_of({"axes": {"e": {"column": "clusterE", "bins": 54, "range": [0.01, 3162]}}})
    assert len(plan.axes[0].edges) == 55
    assert plan.axes[0].edges[0] == pytest.approx(0.01)


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
        ({"axes": {"a": {"column": "fraction", "range": [-1, 1], "scale": "log"}}}, "above 0"),
        ({"axes": {"a": {"column": "cluster_id"}}}, "range must be given"),
    ],
)
def test_what_the_dataset_lacks_is_the_users_error(given, words):
    with pytest.raises(UserError, match=words):
        plan_of(given)


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
    ],
)
def test_impossible_settings_are_refused(given):
    with pytest.raises(ValidationError):
        EvaluateSettings.model_validate(given)


def test_settings_survive_json():
    given = {"regions": {"low": {"column": "x", "from": 0.0, "to": 1.0}}, "pairs": [["a", "b"]]}
    settings = EvaluateSettings.model_validate(given)
    assert EvaluateSettings.model_validate_json(settings.model_dump_json()) == settings
