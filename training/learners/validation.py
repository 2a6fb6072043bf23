"""Validation loss: the NLL of the density averaged over drawn weight sets, as it will be used.

Shape letters: S weight sets, B rows, F features, O outputs.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training.data.rows import Rows
from training.losses.density_nll import log_density
from training.networks.mlp import FixedLayer, Layer, draw_weights, forward_fixed
from training.steps.noise import BLOCK_ROWS

WEIGHT_SETS = 8
CPU_ROWS, GPU_ROWS = BLOCK_ROWS, 128 * BLOCK_ROWS  # of one forward pass


@torch.no_grad()
def validation_nll(
    layers: Sequence[Layer], slabs: Iterable[Rows], bounds: tuple[float, float], seed: int
) -> Tensor:
    """The sum over rows of weight times NLL of the density averaged over eight weight sets.

    The sets are drawn with the same numbers in each epoch, so that epochs differ by the
    posterior alone.

    Args:
        layers: The posterior.
        slabs: Rows, on the device of the layers.
        bounds: Limits of the components' log sigma^2.
        seed: Of the training.
    """
    device = layers[0].mean_OF.device
    sets = stack_sets(layers, seed)
    total = torch.zeros((), dtype=torch.float64, device=device)
    rows = CPU_ROWS if device.type == "cpu" else GPU_ROWS
    for slab in slabs:
        for part in slab.pieces(rows):
            outputs_SBO = forward_fixed(sets, part.x_NF.unsqueeze(0))
            target_SB = part.target_N.expand(WEIGHT_SETS, -1)
            log_p_SB = log_density(outputs_SBO, target_SB, bounds)
            log_p_B = torch.logsumexp(log_p_SB, dim=0) - math.log(WEIGHT_SETS)
            weighted_B = log_p_B if part.weight_N is None else part.weight_N * log_p_B
            total -= weighted_B.sum(dtype=torch.float64)
    return total


def stack_sets(layers: Sequence[Layer], seed: int) -> list[FixedLayer]:
    """The drawn weights [S, O, F] of each layer, and its biases with two axes in front."""
    there = [Layer(*(tensor.detach().cpu() for tensor in layer)) for layer in layers]
    sets = [
        draw_weights(there, torch.Generator().manual_seed(derive_seed(seed, "validation", index)))
        for index in range(WEIGHT_SETS)
    ]
    device = layers[0].mean_OF.device
    return [
        FixedLayer(
            torch.stack([layer.weight_OF for layer in drawn]).to(device),
            drawn[0].bias_O.to(device),
        )
        for drawn in zip(*sets, strict=True)
    ]
