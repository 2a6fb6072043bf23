"""Training and validation rows of a dataset: in memory, or streamed where they need too much.

Shape letters: N rows, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.formats.calibrated_set import LABEL, read_labels
from pipeline.formats.columns import Feature, Target, tables_of
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import (
    SPLITS,
    DatasetManifest,
    Split,
    read_manifest,
    read_part,
    select_features,
)
from pipeline.formats.transforms import Scaling, scaling_of, target_scaling
from training.data.rows import RowSource, TrainingRows
from training.data.stream import (
    Gathered,
    Recipe,
    open_stream,
    require_positive_mean,
)
from training.settings import NetworkSettings

ORDER_BYTES = 8  # of a row's place in the order of an epoch


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    Attributes:
        train: Training rows.
        validation: Validation rows.
        columns: Names of the features, then of the targets.
        table_columns: Of each table: names of its columns.
    """

    train: RowSource
    validation: RowSource
    columns: tuple[str, ...]
    table_columns: tuple[tuple[str, ...], ...] = ()


def scalings_of(manifest: DatasetManifest, features: Sequence[Feature]) -> tuple[Scaling, ...]:
    """The features' scalings, from the statistics of the training rows."""
    floors = {floor.column: floor.floor for floor in manifest.floors}
    return tuple(
        scaling_of(feature, manifest.statistics[feature.name], floors.get(feature.name))
        for feature in features
    )


def read_data_for(
    settings: NetworkSettings, dataset: Path, labels: Path | None = None
) -> TrainingData:
    """The rows that a training with these settings reads.

    Raises:
        UserError: The dataset has not these targets or no rows, or a row cannot be trained on.
    """
    return read_training_data(
        dataset,
        settings.features,
        settings.memory_mib,
        labels=labels,
        targets=settings.targets,
        tables=settings.tables,
    )


def read_training_data(
    dataset: Path,
    names: Sequence[str] | None,
    memory_mib: float | None = None,
    labels: Path | None = None,
    targets: Sequence[str] | None = None,
    tables: Sequence[str] = (),
) -> TrainingData:
    """The training and validation rows of a dataset.

    Args:
        dataset: The folder of the manifest.
        names: The features wanted of one number a row; all of these if None.
        memory_mib: What a worker may use for rows; they are streamed if they need more.
        labels: The folder of labels that are to be predicted; None for targets of the dataset.
        targets: Names of the targets that are predicted; None for the only one.
        tables: Names of the tables of lists that are inputs too.

    Raises:
        UserError: The dataset has not these targets or no rows, or a row cannot be trained on.
    """
    manifest = read_manifest(dataset)
    features = select_features(manifest, names, tables)
    chosen = () if labels is not None else manifest.select_targets(targets)
    train, validation = (
        open_split(dataset, manifest, features, split, memory_mib, labels=labels, targets=chosen)
        for split in SPLITS[:2]
    )
    predicted = [target.name for target in chosen] or [LABEL]
    return TrainingData(
        train,
        validation,
        columns=(*(feature.name for feature in features if not feature.is_ragged), *predicted),
        table_columns=tuple(
            tuple(feature.name for feature in table) for table in tables_of(features).values()
        ),
    )


def open_split(  # noqa: PLR0913 - what rows are made of
    dataset: Path,
    manifest: DatasetManifest,
    features: Sequence[Feature],
    split: Split,
    memory_mib: float | None,
    *,
    labels: Path | None,
    targets: Sequence[Target],
) -> RowSource:
    """The rows of one split, scaled: in memory if those of training and validation fit.

    Args:
        dataset: The folder of the manifest.
        manifest: Of the dataset.
        features: Inputs of the network.
        split: Which rows.
        memory_mib: What a worker may use for rows; None if there is no limit.
        labels: The folder of labels that are to be predicted; None for targets.
        targets: That are predicted; empty with labels.

    Raises:
        UserError: The split has no rows, or a row cannot be trained on.
    """
    recipe = _recipe_of(dataset, manifest, features, labels, targets)
    if manifest.rows_of(split) == 0:
        msg = f"{dataset}: no rows in the {split} split; give it a larger fraction or more inputs"
        raise UserError(msg)
    rows = manifest.rows_of("train") + manifest.rows_of("validation")
    needed = rows * (recipe.bytes_per_row + ORDER_BYTES)
    if memory_mib is None or needed <= memory_mib * 2**20:
        return _read_split(recipe, manifest, split)
    return open_stream(recipe, manifest.parts_of(split), memory_mib)


def _recipe_of(
    dataset: Path,
    manifest: DatasetManifest,
    features: Sequence[Feature],
    labels: Path | None,
    targets: Sequence[Target],
) -> Recipe:
    beside = None
    if labels is not None:
        record = read_labels(labels)
        if record.dataset_fingerprint != manifest.fingerprint:
            msg = f"{labels}: labels of another dataset; run `topocal tag` again"
            raise UserError(msg)
        beside = (labels, record.by_path)
    single = [feature for feature in features if not feature.is_ragged]
    tables = tables_of(features)
    train_rows = max(manifest.rows_of("train"), 1)
    return Recipe(
        dataset=dataset,
        scalings=scalings_of(manifest, single),
        tables=tuple(scalings_of(manifest, table) for table in tables.values()),
        elements=tuple(
            manifest.statistics[table[0].name].count / train_rows for table in tables.values()
        ),
        targets=tuple(
            target_scaling(target, manifest.statistics[target.name]) for target in targets
        ),
        labels=beside,
        weights=tuple(column.name for column in manifest.columns if column.role == "weight"),
    )


def _read_split(recipe: Recipe, manifest: DatasetManifest, split: Split) -> TrainingRows:
    gathered = Gathered(recipe, manifest.rows_of(split))
    for part in manifest.parts_of(split):
        table = read_part(recipe.dataset, part, recipe.columns)
        gathered.add(recipe.convert(table, part.path, 0))
    mean = require_positive_mean(float(gathered.weight_N.mean()), recipe.dataset, split)
    scaled_N = (gathered.weight_N / mean).astype(np.float32)
    return gathered.rows(scaled_N if recipe.weights else None)
