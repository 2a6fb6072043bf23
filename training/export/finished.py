"""A finished training, and what its export adds to the model's card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.formats.columns import Feature
from pipeline.formats.manifest import DatasetManifest, columns_of, read_part
from pipeline.formats.seeds import derive_seed
from pipeline.formats.transforms import Scaling
from training.checkpoint import Checkpoint
from training.data.rows import RowSource
from training.data.training_data import scalings_of
from training.networks.mlp import FixedLayer

MODEL = "model.onnx"
CHECK_ROWS = 300


@dataclass(frozen=True)
class Finished:
    """A finished training.

    Attributes:
        folder: Of the model.
        dataset: Folder of the dataset that it was trained on.
        manifest: Of that dataset.
        features: Inputs of the networks.
        checkpoint: The last one.
        seed: Of the training.
        validation: The validation rows.
        number: Of the manifest's target among those that the networks predict.
    """

    folder: Path
    dataset: Path
    manifest: DatasetManifest
    features: tuple[Feature, ...]
    checkpoint: Checkpoint
    seed: int
    validation: RowSource
    number: int = 0

    @property
    def scalings(self) -> tuple[Scaling, ...]:
        """How each feature is scaled for the network, in the order of the features."""
        return scalings_of(self.manifest, self.features)

    def validation_rows(self) -> Tensor:
        """Raw features [N, F] of the first rows of the validation split."""
        part = self.manifest.parts_of("validation")[0]
        names = [feature.name for feature in self.features]
        columns = columns_of(read_part(self.dataset, part, names).slice(0, CHECK_ROWS))
        rows = np.stack([columns[name] for name in names], axis=1)
        return torch.from_numpy(rows.astype(np.float32))

    def random_rows(self) -> Tensor:
        """Raw features spread evenly over their training ranges."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "export check"))
        ranges = [self.manifest.statistics[feature.name] for feature in self.features]
        low_F = torch.tensor([column.minimum for column in ranges], dtype=torch.float64)
        high_F = torch.tensor([column.maximum for column in ranges], dtype=torch.float64)
        share_NF = torch.rand(CHECK_ROWS, len(ranges), generator=generator, dtype=torch.float64)
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
