"""The split normal's log density in torch, of which `pipeline.densities.split_normal` is the twin.

Shape letters: ... any axes in front.
"""

import math

import torch
from torch import Tensor

LOG_SQRT_2_OVER_PI = 0.5 * math.log(2.0 / math.pi)


def log_density(outputs: Tensor, target: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Natural log of the density of log10 of the target, [...].

    Args:
        outputs: Network outputs [..., 3]: mode, natural log of the variance below and above it.
        target: log10 of the target [...].
        bounds: Limits of the logs of variances.
    """
    mode, low, high = outputs.unbind(dim=-1)
    low, high = (0.5 * each.clamp(*bounds) for each in (low, high))
    offset = target - mode
    z = offset * torch.exp(-torch.where(offset < 0.0, low, high))
    return LOG_SQRT_2_OVER_PI - torch.logaddexp(low, high) - 0.5 * z * z


def mode(outputs: Tensor) -> Tensor:
    """The mode of each density [...], of outputs [..., 3]."""
    return outputs[..., 0]
