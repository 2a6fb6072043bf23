"""Boosted trees: the file that is exported, the rows they are grown on, and what a search sees."""

import copy
import itertools

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from pydantic import ValidationError
from sklearn.base import clone
from sklearn.metrics import mean_pinball_loss

from pipeline.formats.columns import Feature, Target
from pipeline.formats.errors import UserError
from pipeline.parquet import write_part
from pipeline.trees.export import check_trees, write_trees
from pipeline.trees.fit import QuantileTrees, grow, pinball_sums
from pipeline.trees.rows import RowsPlan
from pipeline.trees.settings import BoostedTreesSettings

LEVELS = (0.16, 0.5, 0.84)
SETTINGS = {"iterations": 30, "learning_rate": 0.2, "leaves": 15, "min_leaf_rows": 5, "l2": 1.0}


@pytest.fixture(scope="module")
def sample():
    """Features, one of neighbouring float32 so that midpoints are none; target, weights."""
    rng = np.random.default_rng(7)
    step = rng.integers(0, 200, 4000)
    x_NF = np.stack(
        [rng.normal(size=4000), rng.integers(0, 5, 4000), 10 ** rng.normal(-6, 1, 4000), step],
        axis=1,
    ).astype(np.float32)
    x_NF[:, 3] = np.float32(1) + np.finfo(np.float32).eps * x_NF[:, 3]
    target_N = x_NF[:, 0] * (1 + x_NF[:, 1]) + np.log10(x_NF[:, 2]) + rng.normal(size=4000)
    target_N = target_N.astype(np.float64) + np.sin(step / 5)
    return x_NF, target_N, rng.uniform(0.1, 2.0, 4000)


@pytest.fixture(scope="module")
def grown(sample):
    return [grow(*sample, level=level, settings=SETTINGS, seed=3) for level in LEVELS]


def _run(path, x_NF):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["quantiles"], {"features": x_NF})[0]


def _at_thresholds(trees, rng, num_features):
    """Rows with one feature at a threshold of a tree, the float32 below it or that above it."""
    nodes = np.concatenate([tree.nodes for (tree,) in trees._predictors])
    inner = nodes[nodes["is_leaf"] == 0]
    near = inner["num_threshold"].astype(np.float32)
    sides = (near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf)))
    pieces = []
    for value in sides:
        x_NF = rng.normal(size=(len(inner), num_features)).astype(np.float32)
        x_NF[np.arange(len(inner)), inner["feature_idx"]] = value
        pieces.append(x_NF)
    return np.concatenate(pieces)


def test_the_file_sends_every_row_to_the_same_leaf(sample, grown, tmp_path):
    """One tree whose values are the numbers of its leaves: exact in float32, so equal or wrong."""
    rng = np.random.default_rng(1)
    rounded_up = 0
    for trees in grown:
        rows = np.concatenate([sample[0], _at_thresholds(trees, rng, 4)])
        one = copy.deepcopy(trees)
        one._baseline_prediction[:] = 0.0
        for (tree,) in copy.deepcopy(trees._predictors)[::10]:
            tree.nodes["value"] = np.arange(len(tree.nodes))
            one._predictors = [[tree]]
            write_trees([one], 4, tmp_path / "tree.onnx")
            np.testing.assert_array_equal(
                _run(tmp_path / "tree.onnx", rows)[:, 0], one.predict(rows)
            )
            limits = tree.nodes["num_threshold"][tree.nodes["is_leaf"] == 0]
            rounded_up += (limits.astype(np.float32) > limits).sum()
    assert rounded_up > 0  # rounding to the nearest would have sent some rows the other way


def test_the_file_has_all_quantiles_and_is_checked(sample, grown, tmp_path):
    path = tmp_path / "model.onnx"
    write_trees(grown, 4, path)
    expected = np.stack([trees.predict(sample[0]) for trees in grown], axis=1)
    np.testing.assert_allclose(_run(path, sample[0]), expected, atol=1e-5)
    check_trees(path, grown, sample[0])
    with pytest.raises(RuntimeError, match="differs from scikit-learn by"):
        check_trees(path, grown[::-1], sample[0])


def test_quantiles_have_their_share_of_rows_below(sample, grown):
    x_NF, target_N, weight_N = sample
    for level, trees in zip(LEVELS, grown, strict=True):
        below = target_N < trees.predict(x_NF)
        assert (weight_N * below).sum() / weight_N.sum() == pytest.approx(level, abs=0.03)


def test_a_search_sees_weights_and_all_quantiles(sample):
    x_NF, target_N, weight_N = sample
    rows_NG = np.column_stack([x_NF, weight_N])
    trees = clone(QuantileTrees(LEVELS, **SETTINGS, seed=3)).fit(rows_NG, target_N)
    losses = [
        mean_pinball_loss(target_N, each.predict(x_NF), alpha=level, sample_weight=weight_N)
        for level, each in zip(LEVELS, trees.trees_, strict=True)
    ]
    assert trees.score(rows_NG, target_N) == pytest.approx(-np.mean(losses), rel=1e-9)
    heavy = np.where(target_N > np.median(target_N), 9.0, 1.0)
    other = clone(trees).fit(np.column_stack([x_NF, heavy]), target_N)
    assert (other.trees_[1].predict(x_NF) - trees.trees_[1].predict(x_NF)).mean() > 0.1
    sums = pinball_sums(
        np.zeros((4, 1)), np.array([-2.0, -1, 1, 2]), np.array([1.0, 2, 3, 4]), [0.9]
    )
    assert sums[0] == pytest.approx(0.1 * (2 + 2) + 0.9 * (3 + 8))


def _plan(folder, weight=None):
    target = Target(name="scale", numerator="raw", denominator="true", calibrated="cal")
    features = tuple(Feature(name=name, transform="none") for name in ("raw", "size"))
    return RowsPlan(folder, features, target, weight, salt=12)


def _parts(folder, columns, cuts):
    ids = np.arange(len(columns["raw"]), dtype=np.uint64) * 977
    table = pa.table({"cluster_id": ids, **columns})
    edges = [0, *cuts, table.num_rows]
    return [
        write_part(folder, "train", number, table.slice(start, stop - start))
        for number, (start, stop) in enumerate(itertools.pairwise(edges))
    ]


def test_rows_are_chosen_by_identity_whatever_the_parts(tmp_path):
    rng = np.random.default_rng(2)
    columns = {name: rng.uniform(1, 2, 5000).astype("f4") for name in ("raw", "true", "size", "w")}
    found = []
    for number, cuts in enumerate(([], [100, 1200, 1201])):
        folder = tmp_path / str(number)
        parts = _parts(folder, columns, cuts)
        found.append([_plan(folder, "w").gather(parts, share) for share in (0.2, 0.5, 1.0)])
    for one, two in zip(*found, strict=True):
        for first, second in zip(one, two, strict=True):
            np.testing.assert_array_equal(first, second)
    few, more, every = found[0]
    assert len(few.target_N) == pytest.approx(1000, abs=90)
    assert np.isin(few.target_N, more.target_N).all()
    np.testing.assert_array_equal(every.x_NF[:, 1], columns["size"])
    np.testing.assert_array_equal(every.weight_N, columns["w"])
    ratio = columns["raw"].astype(np.float64) / columns["true"]
    np.testing.assert_allclose(every.target_N, np.log10(ratio), rtol=1e-12)


def test_weights_that_trees_cannot_use_are_refused(tmp_path):
    columns = {name: np.ones(50, "f4") for name in ("raw", "true", "size", "w")}
    columns["w"][3] = -0.5
    parts = _parts(tmp_path, columns, [])
    with pytest.raises(UserError, match="w is negative in 1 rows; boosted trees need weights"):
        _plan(tmp_path, "w").gather(parts, 1.0)
    with pytest.raises(UserError, match="no rows with a weight to grow trees on"):
        _plan(tmp_path).gather(parts, 1e-9)


@pytest.mark.parametrize("levels", [(0.16, 0.84), (0.5, 0.16), (0.3, 0.5)])
def test_quantiles_must_have_a_column_and_the_median(levels):
    with pytest.raises(ValidationError, match=r"levels must rise, be among 0\.025, 0\.16, 0\.5"):
        BoostedTreesSettings(levels=levels)
    assert BoostedTreesSettings().num_combinations == 36
