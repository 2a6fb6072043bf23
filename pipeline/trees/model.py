"""Grown trees as a model: the ONNX file and its card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.card import CARD, ModelCard, Output, artefact_of, trained_on
from pipeline.formats.columns import Feature
from pipeline.formats.files import replacing
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.seeds import generator
from pipeline.formats.versions import versions_of
from pipeline.trees.export import check_trees, write_trees
from pipeline.trees.settings import BoostedTreesSettings

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


def _random_rows(
    manifest: DatasetManifest, features: Sequence[Feature], seed: int
) -> NDArray[np.float32]:
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
    target = manifest.target
    assert target is not None  # noqa: S101 - rows with a target were read
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
                unit=f"log10({target.unit})",
                shape="[row, quantile]",
                description=f"quantiles {levels} of log10 {target.name}; they may cross",
            ),
        ),
        settings=settings.model_dump(mode="json") | {"chosen": dict(chosen)},
        scores=dict(scores),
        versions=versions_of("scikit-learn", "dask-ml", "onnx", "onnxruntime"),
        fingerprint=fingerprint,
        **trained_on(manifest, features),
    )
    card.save(folder / CARD)
    return card
