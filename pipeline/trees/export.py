"""Trees as an ONNX file: features [row, feature] in, quantiles [row, quantile] out.

One TreeEnsembleRegressor holds the trees of all quantiles. scikit-learn compares float64 with a
float64 threshold, the file float32 with float32: a float32 is at most a number exactly if it is at
most the largest float32 not above it, so thresholds are rounded down and every row goes the same
way. (skl2onnx 1.20 fails with
the onnx version that the project is tested with, so the operator is written here.)

The model is that file and its card.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pipeline.formats.card import CARD, ModelCard, Output, artefact_of, trained_on
from pipeline.formats.columns import Feature
from pipeline.formats.files import replacing
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.seeds import generator
from pipeline.formats.versions import versions_of
from pipeline.numerics.arrays import Float32Array, FloatArray
from pipeline.trees.settings import BoostedTreesSettings

TREES_OPSET = 3  # of ai.onnx.ml
OPSET, IR_VERSION = 20, 10
TOLERANCE = 1e-5  # of the transformed target: sums of some hundred float32

Attributes = dict[str, Any]


def write_trees(ensembles: Sequence[Any], num_features: int, path: Path) -> None:
    """Write fitted HistGradientBoostingRegressors, one for each quantile, as one model."""
    attributes: Attributes = {}
    number = 0
    for quantile, ensemble in enumerate(ensembles):
        for (tree,) in ensemble._predictors:  # noqa: SLF001 - there is no public access
            for name, values in _tree(tree.nodes, number, quantile).items():
                attributes.setdefault(name, []).extend(values)
            number += 1
    base = [float(each._baseline_prediction.item()) for each in ensembles]  # noqa: SLF001
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["quantiles"],
        domain="ai.onnx.ml",
        n_targets=len(ensembles),
        base_values=base,
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "boosted trees",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", num_features])],
        [helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, ["rows", len(ensembles)])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _tree(nodes: NDArray[Any], number: int, quantile: int) -> Attributes:
    """One tree as the attributes of the operator."""
    is_leaf = nodes["is_leaf"].astype(bool)
    leaves = np.flatnonzero(is_leaf)
    inner = ~is_leaf
    return {
        "nodes_treeids": [number] * len(nodes),
        "nodes_nodeids": list(range(len(nodes))),
        "nodes_featureids": np.where(inner, nodes["feature_idx"], 0).tolist(),
        "nodes_modes": ["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        "nodes_values": np.where(inner, _not_above(nodes["num_threshold"]), 0.0).tolist(),
        "nodes_truenodeids": np.where(inner, nodes["left"], 0).tolist(),
        "nodes_falsenodeids": np.where(inner, nodes["right"], 0).tolist(),
        "nodes_missing_value_tracks_true": np.where(inner, nodes["missing_go_to_left"], 0).tolist(),
        "target_treeids": [number] * len(leaves),
        "target_nodeids": leaves.tolist(),
        "target_ids": [quantile] * len(leaves),
        "target_weights": nodes["value"][leaves].tolist(),
    }


def _not_above(thresholds: FloatArray) -> Float32Array:
    """The largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    lower = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded.astype(np.float64) > thresholds, lower, rounded)


def check_trees(path: Path, ensembles: Sequence[Any], x_NF: Float32Array) -> None:
    """A check that the file predicts what scikit-learn does.

    Raises:
        RuntimeError: It does not.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found_NQ,) = session.run(["quantiles"], {"features": x_NF})
    expected_NQ = np.stack([each.predict(x_NF) for each in ensembles], axis=1)
    worst = float(np.abs(found_NQ - expected_NQ).max())
    if not worst < TOLERANCE:
        msg = f"{path}: differs from scikit-learn by {worst:g} in the transformed target"
        raise RuntimeError(msg)


MODEL = "model.onnx"
CHECK_ROWS = 2_000


def write_onnx(
    ensembles: Sequence[Any],
    manifest: DatasetManifest,
    features: Sequence[Feature],
    *,
    folder: Path,
    seed: int,
) -> Path:
    """Write the model's file, after a check against scikit-learn on random rows; its path."""
    with replacing(folder / MODEL) as temporary:
        write_trees(ensembles, len(features), temporary)
        check_trees(temporary, ensembles, _random_rows(manifest, features, seed))
    return folder / MODEL


def _random_rows(manifest: DatasetManifest, features: Sequence[Feature], seed: int) -> Float32Array:
    """Raw features [N, F], evenly spread over the training ranges and a tenth beyond."""
    rng = generator(seed, "boosted trees check")
    columns = []
    for feature in features:
        column = manifest.statistics[feature.name]
        room = 0.1 * (column.maximum - column.minimum)
        columns.append(rng.uniform(column.minimum - room, column.maximum + room, CHECK_ROWS))
    return np.stack(columns, axis=1).astype(np.float32)


def write_card(  # noqa: PLR0913 - what a card is made of
    manifest: DatasetManifest,
    features: Sequence[Feature],
    settings: BoostedTreesSettings,
    *,
    folder: Path,
    name: str,
    fingerprint: str,
    found: tuple[Mapping[str, Any], Mapping[str, float]],
) -> ModelCard:
    """Write the card of a model whose file is there.

    Args:
        manifest: Of the dataset.
        features: Inputs of the model.
        settings: As given.
        folder: Of the model.
        name: Of the model in its study.
        fingerprint: Of settings and data.
        found: What the search chose, with the numbers of rows; and the scores.
    """
    chosen, scores = found
    target = manifest.require_target()
    levels = ", ".join(f"{level:g}" for level in settings.levels)
    card = ModelCard(
        name=name,
        kind=settings.kind,
        artefacts={"model": artefact_of(folder, MODEL)},
        density="quantiles",
        quantile_levels=settings.levels,
        outputs=(
            Output(
                name="quantiles",
                unit=target.space_unit,
                shape="[row, quantile]",
                description=f"quantiles {levels} of {target.space}; they may cross",
            ),
        ),
        settings=settings.model_dump(mode="json") | {"chosen": dict(chosen)},
        scores=dict(scores),
        versions=versions_of("scikit-learn", "dask-ml", "onnx", "onnxruntime"),
        fingerprint=fingerprint,
        **trained_on(manifest, features, (target,)),
    )
    card.save(folder / CARD)
    return card
