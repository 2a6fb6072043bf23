"""The mixture's negative log-likelihood (arXiv 2412.04370, Eqs. 13 and 29).

The loss of a batch is the weighted mean of the NLL plus KL / N over the N training rows; the
training loop adds the two, because only the first is summed over workers.

Shape letters: B batch rows, K components; ... any axes in front.
"""

import math

import torch
from torch import Tensor

LOG_TWO_PI = math.log(2.0 * math.pi)


def split_outputs(
    outputs: Tensor, log_variance_bounds: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Means, clamped log sigma^2 and normalised log weights, each [..., K], of [..., 3K]."""
    mean, log_variance, logit = outputs.chunk(3, dim=-1)
    return mean, log_variance.clamp(*log_variance_bounds), torch.log_softmax(logit, dim=-1)


def log_density(outputs: Tensor, target: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Natural log of the density of log10 of the target, [...].

    Args:
        outputs: Network outputs [..., 3K].
        target: log10 of the target [...].
        bounds: Limits of the components' log sigma^2.
    """
    mean, log_variance, log_weight = split_outputs(outputs, bounds)
    square = (target.unsqueeze(-1) - mean) ** 2 * torch.exp(-log_variance)
    return torch.logsumexp(log_weight - 0.5 * (square + log_variance + LOG_TWO_PI), dim=-1)


def summed_nll(
    outputs: Tensor, target: Tensor, weight: Tensor | None, bounds: tuple[float, float]
) -> Tensor:
    """The sum of weight times NLL over all rows, in nats."""
    log_p = log_density(outputs, target, bounds)
    return -(log_p.sum() if weight is None else (weight * log_p).sum())
