"""A network with one output and its scaling as one module, the source of the ONNX file.

Shape letters: N rows, F features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.formats.transforms import Scaling
from training.export.graph import ScaledModule
from training.losses.point import LN10, bounded
from training.networks.mlp import FixedLayer, forward_fixed
from training.settings import DnnSettings, PlainSettings


class PlainModel(ScaledModule):
    """Raw features [N, F] to `response` [N], or of a tagger to `score` [N]."""

    def __init__(
        self, scalings: Sequence[Scaling], layers: Sequence[FixedLayer], settings: PlainSettings
    ) -> None:
        super().__init__(scalings)
        self.settings = settings
        self.outputs = ("response" if isinstance(settings, DnnSettings) else "score",)
        self.weights = nn.ParameterList(layer.weight_OF for layer in layers)
        self.biases = nn.ParameterList(layer.bias_O for layer in layers)
        self.requires_grad_(requires_grad=False)

    def output_of_scaled(self, x_NF: Tensor) -> Tensor:
        """The network's own output [N]."""
        layers = [FixedLayer(*pair) for pair in zip(self.weights, self.biases, strict=True)]
        return forward_fixed(layers, x_NF, self.settings.activation).squeeze(1)

    def forward(self, features_NF: Tensor) -> tuple[Tensor]:
        """The predicted target, or the probability of the label."""
        output_N = self.output_of_scaled(self.scaled(features_NF))
        if not isinstance(self.settings, DnnSettings):
            return (torch.sigmoid(output_N),)
        if self.settings.output == "log10":
            return (torch.exp(output_N * LN10),)
        return (bounded(output_N),)
