"""Training and validation rows, and the order in which epochs see them.

Shape letters: N rows, F features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.formats.columns import Feature
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest, Part, Split, read_manifest, read_part
from pipeline.formats.scaling import Scaling, scale, scaling_of
from pipeline.formats.seeds import derive_seed
from training.noise import StepRows

SLAB_ROWS = 65_536  # of the rows that a reader gets at a time


class Chunk(NamedTuple):
    """Room for the rows of some steps: features, log10 of the target, weights or ones."""

    x_NF: Tensor
    target_N: Tensor
    weight_N: Tensor


@dataclass(frozen=True)
class Rows:
    """Rows in memory.

    Attributes:
        x_NF: Scaled features.
        target_N: log10 of the target.
        weight_N: Weights with mean 1; None where every row counts the same.
    """

    x_NF: Tensor
    target_N: Tensor
    weight_N: Tensor | None

    def __len__(self) -> int:
        return len(self.target_N)

    @property
    def num_features(self) -> int:
        """F."""
        return self.x_NF.shape[1]

    def to(self, device: torch.device) -> "Rows":
        """The same rows on a device."""
        weight_N = None if self.weight_N is None else self.weight_N.to(device)
        return Rows(self.x_NF.to(device), self.target_N.to(device), weight_N)

    def deal(self, seed: int, epoch: int) -> "Deal":
        """The order of an epoch: a permutation of all rows."""
        order_N = permutation(len(self), seed, epoch, self.x_NF.device)

        def fill(steps: Sequence[StepRows], chunk: Chunk) -> None:
            index = torch.cat([order_N[step.start : step.start + step.rows] for step in steps])
            count = len(index)
            torch.index_select(self.x_NF, 0, index, out=chunk.x_NF[:count])
            torch.index_select(self.target_N, 0, index, out=chunk.target_N[:count])
            if self.weight_N is not None:
                torch.index_select(self.weight_N, 0, index, out=chunk.weight_N[:count])

        return fill

    def slabs(self, rank: int, world_size: int) -> Iterator["Rows"]:
        """This worker's share of the rows, in order."""
        for first in range(rank * SLAB_ROWS, len(self), world_size * SLAB_ROWS):
            part = slice(first, first + SLAB_ROWS)
            weight_N = None if self.weight_N is None else self.weight_N[part]
            yield Rows(self.x_NF[part], self.target_N[part], weight_N)


Deal = Callable[[Sequence[StepRows], Chunk], None]
"""Copies a worker's rows of some steps to the start of a chunk; asked in the order of the steps."""


class Source(Protocol):
    """The rows of one split, wherever they are."""

    def __len__(self) -> int: ...

    @property
    def num_features(self) -> int:
        """F."""
        ...

    def to(self, device: torch.device) -> "Source":
        """The same rows, given out on a device."""
        ...

    def deal(self, seed: int, epoch: int) -> Deal:
        """The rows in the order of an epoch, which depends on seed and epoch alone."""
        ...

    def slabs(self, rank: int, world_size: int) -> Iterator[Rows]:
        """This worker's share of the rows, in order."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    Attributes:
        train: Training rows.
        validation: Validation rows.
        columns: Names of the features, then of the target.
    """

    train: Source
    validation: Source
    columns: tuple[str, ...]


def select_features(manifest: DatasetManifest, names: Sequence[str] | None) -> tuple[Feature, ...]:
    """The features with these names, in the dataset's order; all if None.

    Raises:
        UserError: A name is no feature of the dataset.
    """
    known = [feature.name for feature in manifest.features]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        msg = f"features: {', '.join(unknown)} not in the dataset, which has {', '.join(known)}"
        raise UserError(msg)
    return tuple(item for item in manifest.features if names is None or item.name in names)


def scalings_of(manifest: DatasetManifest, features: Sequence[Feature]) -> tuple[Scaling, ...]:
    """The features' scalings, from the statistics of the training rows."""
    return tuple(scaling_of(feature, manifest.statistics[feature.name]) for feature in features)


def read_training_data(dataset: Path, names: Sequence[str] | None) -> TrainingData:
    """The training and validation rows of a dataset.

    Args:
        dataset: The folder of the manifest.
        names: The features wanted; all if None.

    Raises:
        UserError: The dataset has no target or no rows, or a row cannot be trained on.
    """
    manifest = read_manifest(dataset)
    features = select_features(manifest, names)
    return TrainingData(
        train=read_split(dataset, manifest, features, "train"),
        validation=read_split(dataset, manifest, features, "validation"),
        columns=column_names(manifest, features),
    )


def column_names(manifest: DatasetManifest, features: Sequence[Feature]) -> tuple[str, ...]:
    """Names of the features, then of the target."""
    target = () if manifest.target is None else (manifest.target.name,)
    return (*(feature.name for feature in features), *target)


def permutation(num_rows: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """The order of the rows in an epoch; it depends on nothing but the arguments."""
    generator = torch.Generator(device).manual_seed(derive_seed(seed, "permutation", epoch))
    return torch.randperm(num_rows, generator=generator, device=device)


def read_split(
    dataset: Path, manifest: DatasetManifest, features: Sequence[Feature], split: Split
) -> Rows:
    """The rows of one split of a dataset, scaled, in the order of its parts.

    Raises:
        UserError: The dataset has no target, the split no rows, or a row is not finite.
    """
    manifest.log10_target_range()  # refuses a dataset without truth
    scalings = scalings_of(manifest, features)
    num_rows = manifest.rows_of(split)
    if num_rows == 0:
        msg = f"{dataset}: no rows in the {split} split; give it a larger fraction or more inputs"
        raise UserError(msg)
    names = [column.name for column in manifest.columns if column.role == "weight"]
    x_NF = np.empty((num_rows, len(scalings)), dtype=np.float32)
    target_N = np.empty(num_rows, dtype=np.float32)
    weight_N = np.ones(num_rows, dtype=np.float64)
    first = 0
    for part in manifest.parts_of(split):
        rows = slice(first, first + part.rows)
        x_NF[rows], target_N[rows], weight_N[rows] = _read_rows(
            dataset, part, scalings, (manifest.target.name if manifest.target else "", *names)
        )
        first += part.rows
    return Rows(
        torch.from_numpy(x_NF),
        torch.from_numpy(target_N),
        torch.from_numpy(_mean_one(weight_N, dataset, split)) if names else None,
    )


def _read_rows(
    dataset: Path, part: Part, scalings: Sequence[Scaling], others: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scaled features, log10 of the target and the product of the weights of one part."""
    target, *weights = others
    features = [scaling.name for scaling in scalings]
    table = read_part(dataset, part, list(dict.fromkeys([*features, *others])))
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    with np.errstate(divide="ignore", invalid="ignore"):  # reported below, with the column's name
        x_NF = scale({name: columns[name] for name in features}, scalings)
        target_N = np.log10(columns[target].astype(np.float64)).astype(np.float32)
    weight_N = np.ones(part.rows)
    for name in weights:
        weight_N *= columns[name]
    for name, values in [*zip(features, x_NF.T, strict=True), (target, target_N)]:
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            msg = (
                f"{dataset / part.path}: row {bad}: {name} = {columns[name][bad]} is not finite "
                "after its transform; cut such rows in `dataset`"
            )
            raise UserError(msg)
    return x_NF, target_N, weight_N


def _mean_one(weight_N: np.ndarray, dataset: Path, split: Split) -> np.ndarray:
    mean = weight_N.mean()
    if not (np.isfinite(mean) and mean > 0.0):
        msg = f"{dataset}: the weights of the {split} split have mean {mean}, expected more than 0"
        raise UserError(msg)
    scaled_N: np.ndarray = (weight_N / mean).astype(np.float32)
    return scaled_N
