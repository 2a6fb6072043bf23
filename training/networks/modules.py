"""Networks as torch modules, for the learners that take any module.

Shape letters: F inputs of a layer, O outputs of a layer.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.networks.mlp import FixedLayer


def fully_connected(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers with rectifiers in between; weights from N(0, 1/sqrt(F)), biases 0.

    Args:
        sizes: Units per layer, from the inputs to the outputs.
        generator: Draws the weights, layer after layer as `mlp.initial_weights` does.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            drawn = torch.randn(outputs * inputs, generator=generator) / math.sqrt(inputs)
            layer.weight.copy_(drawn.view(outputs, inputs))
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fixed_layers(module: nn.Sequential, parameters: Mapping[str, Tensor]) -> list[FixedLayer]:
    """The layers of `fully_connected` with other parameters, by their names in the module."""
    return [
        FixedLayer(parameters[f"{name}.weight"], parameters[f"{name}.bias"])
        for name, layer in module.named_children()
        if not isinstance(layer, nn.ReLU)
    ]
