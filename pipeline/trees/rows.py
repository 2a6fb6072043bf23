"""The rows that trees are grown on: chosen by a hash of their identity, in the dataset's order.

Shape letters: N rows, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.formats.columns import IDENTITY, Feature, Target
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest, Part, columns_of, read_part, select_features
from pipeline.formats.seeds import derive_seed
from pipeline.ingest.identity import uniform_of
from pipeline.numerics.arrays import Float32Array, FloatArray


class TreeMatrix(NamedTuple):
    """Features [N, F] as float32, transformed target [N], weights [N]."""

    x_NF: Float32Array
    target_N: FloatArray
    weight_N: FloatArray


@dataclass(frozen=True, slots=True)
class RowsPlan:
    """All that a worker needs to read rows.

    Attributes:
        dataset: Folder of the dataset.
        features: Inputs of the model.
        target: What is predicted.
        weight: Column with the rows' weights; None for 1.
        salt: Another one chooses other rows.
    """

    dataset: Path
    features: tuple[Feature, ...]
    target: Target
    weight: str | None
    salt: int

    def read(self, part: Part, share: float = 1.0) -> TreeMatrix:
        """A share of a part's rows; a larger share has those of a smaller one.

        Raises:
            UserError: A weight is negative.
        """
        names = [feature.name for feature in self.features]
        wanted = [IDENTITY, *names, self.target.numerator, self.target.denominator]
        wanted += [self.weight] if self.weight is not None else []
        table = read_part(self.dataset, part, list(dict.fromkeys(wanted)))
        columns = columns_of(table)
        keep = uniform_of(columns[IDENTITY], self.salt) < share
        chosen = {name: values[keep] for name, values in columns.items()}
        target_N = self.target.transformed(self.target.value_of(chosen))
        weight_N = np.ones(len(target_N)) if self.weight is None else chosen[self.weight]
        if (weight_N < 0).any():
            msg = (
                f"{self.dataset / part.path}: {self.weight} is negative in {(weight_N < 0).sum()} "
                "rows; boosted trees need weights of zero or more, train networks or a table"
            )
            raise UserError(msg)
        x_NF = np.stack([chosen[name].astype(np.float32) for name in names], axis=1)
        return TreeMatrix(x_NF, target_N, weight_N.astype(np.float64))

    def gather(self, parts: Sequence[Part], share: float) -> TreeMatrix:
        """The chosen rows of some parts, one after the other.

        Raises:
            UserError: There are none, or their weights are all zero.
        """
        found = [self.read(part, share) for part in parts]
        rows = TreeMatrix(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))
        if not rows.weight_N.sum() > 0:
            msg = f"{self.dataset}: no rows with a weight to grow trees on; raise the model's rows"
            raise UserError(msg)
        return rows


def plan_rows(
    dataset: Path, manifest: DatasetManifest, features: Sequence[str] | None, seed: int
) -> RowsPlan:
    """Which rows and columns of a dataset are read.

    Raises:
        UserError: A name is no feature of the dataset, or it has no truth.
    """
    return RowsPlan(
        dataset=dataset,
        features=select_features(manifest, features),
        target=manifest.require_target(),
        weight=next((column.name for column in manifest.columns if column.role == "weight"), None),
        salt=derive_seed(seed, "boosted trees rows"),
    )


def share_of_rows(wanted: int, manifest: DatasetManifest) -> float:
    """The share of the training split that gives so many rows, about; 1 at most."""
    return min(1.0, wanted / max(manifest.rows_of("train"), 1))
