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


def mixture_mean(outputs: Tensor) -> Tensor:
    """The mean of each mixture [...], of outputs [..., 3K]; the order of components is not seen."""
    mean, _, logit = outputs.chunk(3, dim=-1)
    return (torch.softmax(logit, dim=-1) * mean).sum(dim=-1)


def nll_with_gradient(
    outputs_BO: Tensor,
    target_B: Tensor,
    weight_B: Tensor,
    grad_BO: Tensor,
    bounds: tuple[float, float],
) -> Tensor:
    """The sum of weight times NLL; grad_BO is filled with its derivatives by the outputs."""
    mean_BK, log_variance_BK, logit_BK = outputs_BO.chunk(3, dim=1)
    clamped_BK = log_variance_BK.clamp(*bounds)
    log_weight_BK = torch.log_softmax(logit_BK, dim=1)
    precision_BK = torch.exp(-clamped_BK)
    distance_BK = target_B.unsqueeze(1) - mean_BK
    square_BK = distance_BK * distance_BK * precision_BK
    joint_BK = log_weight_BK - 0.5 * (square_BK + clamped_BK + LOG_TWO_PI)
    log_p_B = torch.logsumexp(joint_BK, dim=1)
    pull_BK = weight_B.unsqueeze(1) * torch.exp(joint_BK - log_p_B.unsqueeze(1))
    slope_BK = torch.where(clamped_BK == log_variance_BK, 0.5 * (1.0 - square_BK), 0.0)
    grad_mean_BK, grad_log_variance_BK, grad_logit_BK = grad_BO.chunk(3, dim=1)
    torch.mul(distance_BK * precision_BK, -pull_BK, out=grad_mean_BK)
    torch.mul(slope_BK, pull_BK, out=grad_log_variance_BK)
    torch.sub(weight_B.unsqueeze(1) * log_weight_BK.exp(), pull_BK, out=grad_logit_BK)
    return -(weight_B * log_p_B).sum()
