"""The baseline histogram against a loop that states its definition."""

import numpy as np
import pytest
from evaluation_fixtures import make_manifest, make_table, plain, take

from pipeline.evaluation.baseline import BaselineHistogram
from pipeline.evaluation.plan import plan_evaluation
from pipeline.evaluation.settings import EvaluateSettings

TRAIN = make_table(3_000, seed=4)
SMALL = EvaluateSettings.model_validate({"baseline": {"bins": 5, "cells": 20}})
PLAN = plan_evaluation(SMALL, make_manifest(TRAIN))


def slow_log_density(numerator, target):
    """One row: count its bin's training rows by hand."""
    bins, cells = PLAN.baseline_bins, PLAN.baseline_fine_bins
    width = (cells.high - cells.low) / cells.cells

    def bin_of(x):
        return int(bins.index(np.array([x]))[0])

    def cell_of(r):
        at = int((np.log10(float(r)) - cells.low) // width)
        return min(max(at, 0), cells.cells - 1)

    inclusive = np.full(cells.cells, 1 / cells.cells)
    own = np.zeros(cells.cells)
    for x, r in zip(TRAIN["clusterE"], TRAIN["response"], strict=True):
        inclusive[cell_of(r)] += 1
        own[cell_of(r)] += bin_of(x) == bin_of(numerator)
    own += inclusive / inclusive.sum()
    return np.log(own[cell_of(target)] / own.sum() / width)


def test_against_the_slow_twin():
    baseline = BaselineHistogram.of(TRAIN, PLAN)
    test = make_table(12, seed=5)
    fast = baseline.log_density(test["clusterE"], test["response"])
    slow = [slow_log_density(x, r) for x, r in zip(test["clusterE"], test["response"], strict=True)]
    np.testing.assert_allclose(fast, slow, rtol=1e-10)


def test_integrates_to_one_in_each_bin_and_is_finite_everywhere():
    baseline = BaselineHistogram.of(TRAIN, PLAN)
    cells = PLAN.baseline_fine_bins
    centres = 10 ** (cells.edges()[:-1] + cells.resolution / 2)
    for numerator in (1e-9, 0.4, 5.0, 1e9):
        density = np.exp(baseline.log_density(np.full(len(centres), numerator), centres))
        assert density.sum() * cells.resolution == pytest.approx(1)
    far = baseline.log_density(np.array([1.0, 1.0]), np.array([1e-30, 1e30]))
    assert np.isfinite(far).all()


def test_parts_merge_to_the_whole():
    whole = BaselineHistogram.of(TRAIN, PLAN)
    parts = [
        BaselineHistogram.of(take(TRAIN, slice(i, i + 700)), PLAN) for i in range(0, 3000, 700)
    ]
    merged = sum(parts, BaselineHistogram.empty(PLAN))
    np.testing.assert_array_equal(merged.rows.counts, whole.rows.counts)
    assert plain(merged) == plain(whole)


def test_the_scale_of_weights_does_not_matter():
    train = make_table(2_000, seed=6, weighted=True)
    plan = plan_evaluation(SMALL, make_manifest(train))
    heavy = train | {"w": 64 * train["w"]}
    test = make_table(50, seed=7)
    one = BaselineHistogram.of(train, plan).log_density(test["clusterE"], test["response"])
    two = BaselineHistogram.of(heavy, plan).log_density(test["clusterE"], test["response"])
    np.testing.assert_allclose(one, two, rtol=1e-10)


def test_a_plan_without_baseline_has_none():
    plan = plan_evaluation(EvaluateSettings(baseline=None), make_manifest(TRAIN))
    with pytest.raises(ValueError, match="no baseline"):
        BaselineHistogram.empty(plan)
