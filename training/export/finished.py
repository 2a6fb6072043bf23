"""A finished training, and what its export adds to the model's card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.formats.columns import Feature, tables_of
from pipeline.formats.manifest import DatasetManifest, columns_of, read_part
from pipeline.formats.model_inputs import FEATURES, inputs_of, rows_of, split_features
from pipeline.formats.seeds import derive_seed
from pipeline.formats.transforms import Scaling
from training.checkpoint import Checkpoint
from training.data.rows import RowSource
from training.data.training_data import scalings_of
from training.networks.mlp import FixedLayer

MODEL = "model.onnx"
CHECK_ROWS = 300


@dataclass(frozen=True)
class Trained:
    """Trained networks and the data that they are of.

    Attributes:
        manifest: Of the dataset, as the target sees it that is exported.
        features: Inputs of the networks.
        checkpoint: The last one.
        seed: Of the training.
    """

    manifest: DatasetManifest
    features: tuple[Feature, ...]
    checkpoint: Checkpoint
    seed: int

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        """How each feature with one number a row is scaled for the network, in their order."""
        single = [feature for feature in self.features if not feature.is_ragged]
        return scalings_of(self.manifest, single)

    @property
    def table_scalings(self) -> dict[str, tuple[Scaling, ...]]:
        """The same of the columns of each table of lists."""
        tables = tables_of(self.features).items()
        return {name: scalings_of(self.manifest, features) for name, features in tables}


@dataclass(frozen=True)
class Finished(Trained):
    """A finished training.

    Attributes:
        folder: Of the model.
        dataset: Folder of the dataset that it was trained on.
        validation: The validation rows.
        number: Of the manifest's target among those that the networks predict.
    """

    folder: Path
    dataset: Path
    validation: RowSource
    number: int = 0

    def validation_rows(self) -> dict[str, Tensor]:
        """Raw inputs of the file, of the first rows of the validation split."""
        part = self.manifest.parts_of("validation")[0]
        names = [feature.name for feature in self.features]
        columns = columns_of(read_part(self.dataset, part, names).slice(0, CHECK_ROWS))
        given = inputs_of(*split_features(self.features), columns)
        return {name: torch.from_numpy(values) for name, values in given.items()}

    def random_rows(self) -> dict[str, Tensor]:
        """Raw inputs of the file spread evenly over their training ranges.

        Rows have from no element of a table to twice as many as the average.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "export check"))
        names, tables = split_features(self.features)
        found = {FEATURES: self._spread(names, CHECK_ROWS, generator)}
        for table, columns in tables.items():
            average = self.manifest.statistics[columns[0]].count / self.manifest.rows_of("train")
            most = round(2.0 * average)
            counts_N = torch.randint(0, most + 1, (CHECK_ROWS,), generator=generator)
            found[table] = self._spread(columns, int(counts_N.sum()), generator)
            found[rows_of(table)] = torch.arange(CHECK_ROWS).repeat_interleave(counts_N)
        return found

    def _spread(self, names: Sequence[str], rows: int, generator: torch.Generator) -> Tensor:
        ranges = [self.manifest.statistics[name] for name in names]
        low_F = torch.tensor([column.minimum for column in ranges], dtype=torch.float64)
        high_F = torch.tensor([column.maximum for column in ranges], dtype=torch.float64)
        share_NF = torch.rand(rows, len(ranges), generator=generator, dtype=torch.float64)
        return (low_F + (high_F - low_F) * share_NF).float()


def tensors_of(layers: Sequence[FixedLayer], prefix: str = "") -> dict[str, Tensor]:
    """Weights and biases of a network by layer, as they are kept beside its ONNX file."""
    tensors: dict[str, Tensor] = {}
    for index, layer in enumerate(layers):
        tensors[f"{prefix}weight.{index}"] = layer.weight_OF.detach().clone()
        tensors[f"{prefix}bias.{index}"] = layer.bias_O.detach().clone()
    return tensors


@dataclass(frozen=True)
class Exported:
    """What one kind of model adds.

    Attributes:
        files: By role: what was written beside the weights and the history.
        weights: All weights by name.
        scores: Validation scores by name.
        card: Fields of the card.
    """

    files: dict[str, str]
    weights: dict[str, Tensor]
    scores: dict[str, float]
    card: dict[str, Any]
