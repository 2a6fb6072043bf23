"""The repulsive term of an ensemble (arXiv 2412.04370, Eq. 36), by the members' predictions.

The term is 1/N sum_i [sum_j k(q_i, sg q_j)] / sg[sum_j k(q_i, q_j)] with k = exp(-d^2 / 2h), where
q_i is one vector over the whole batch, N the number of training rows and sg stops gradients. Its
value says nothing, its gradient is a softmax: with w_ij = k_ij / sum_l k_il it is
(sum_j w_ij q_j - q_i) / (N h). The width is h = median of all M^2 values of d^2 / (2 ln(M + 1)).

Shape letters: M members, C some of them, B batch rows, O outputs (3K), K components, D numbers
that a member predicts for a batch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from training.objective import log_density, nll_with_gradient
from training.operations import Bounds
from training.settings import Kernel


class Prediction(NamedTuple):
    """What of a member's outputs the kernel compares.

    Attributes:
        per_row: (num_outputs). Numbers for each row of a batch.
        predict: (outputs_CBO, target_B, bounds). They, [C, B, D / B].
        pull_back: (outputs_CBO, target_B, bounds, force). The derivatives by the outputs,
            [C, B, O], of the sum of force times prediction; force is shaped as the prediction.
    """

    per_row: Callable[[int], int]
    predict: Callable[[Tensor, Tensor, Bounds], Tensor]
    pull_back: Callable[[Tensor, Tensor, Bounds, Tensor], Tensor]


class Repulsion(NamedTuple):
    """The term's gradient by the predictions [M, D], float64; the kernel's width; the spread.

    The spread is the root mean square of the members' distance from their mean, per number.
    """

    force_MD: Tensor
    bandwidth: Tensor
    spread: Tensor


def repel(q_MD: Tensor, strength: float) -> Repulsion:
    """The gradient of strength times sum_i [sum_j k(q_i, sg q_j)] / sg[sum_j k(q_i, q_j)].

    It is zero where all members agree, or where there is only one: the kernel has no width then.
    """
    wide_MD = q_MD.double()
    wide_MD = wide_MD - wide_MD.mean(dim=0)  # distances from a Gram matrix cancel
    gram_MM = wide_MD @ wide_MD.mT
    norm_M = gram_MM.diagonal()
    square_MM = (norm_M[:, None] + norm_M[None, :] - 2.0 * gram_MM).clamp_(min=0.0)
    bandwidth = _median(square_MM) / (2.0 * math.log(len(q_MD) + 1.0))
    has_width = bandwidth > torch.finfo(torch.float64).tiny
    inverse = torch.where(has_width, 1.0 / bandwidth, 0.0)
    weight_MM = torch.softmax(-0.5 * inverse * square_MM, dim=1)
    force_MD = (weight_MM @ wide_MD).sub_(wide_MD).mul_(strength * inverse)
    return Repulsion(force_MD, bandwidth, wide_MD.square().mean().sqrt())


def _median(values: Tensor) -> Tensor:
    """The mean of the two central values where their number is even."""
    ordered = values.flatten().sort().values
    return 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])


def _mixture_mean(outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds) -> Tensor:
    mean_CBK, _, logit_CBK = outputs_CBO.chunk(3, dim=-1)
    return (torch.softmax(logit_CBK, dim=-1) * mean_CBK).sum(dim=-1, keepdim=True)


def _mixture_mean_back(
    outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds, force_CB1: Tensor
) -> Tensor:
    mean_CBK, _, logit_CBK = outputs_CBO.chunk(3, dim=-1)
    share_CBK = torch.softmax(logit_CBK, dim=-1)
    average_CB1 = (share_CBK * mean_CBK).sum(dim=-1, keepdim=True)
    share_CBK *= force_CB1
    by_logit_CBK = share_CBK * (mean_CBK - average_CB1)
    return torch.cat([share_CBK, torch.zeros_like(share_CBK), by_logit_CBK], dim=-1)


def _nll(outputs_CBO: Tensor, target_B: Tensor, bounds: Bounds) -> Tensor:
    return log_density(outputs_CBO, target_B, bounds).neg().unsqueeze(-1)


def _nll_back(outputs_CBO: Tensor, target_B: Tensor, bounds: Bounds, force_CB1: Tensor) -> Tensor:
    outputs_NO = outputs_CBO.flatten(0, 1)
    grad_NO = torch.empty_like(outputs_NO)
    target_N = target_B.repeat(len(outputs_CBO))
    nll_with_gradient(outputs_NO, target_N, force_CB1.flatten(), grad_NO, bounds)
    return grad_NO.view_as(outputs_CBO)


def _outputs(outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds) -> Tensor:
    return outputs_CBO


def _outputs_back(
    _outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds, force_CBO: Tensor
) -> Tensor:
    return force_CBO


PREDICTIONS: dict[Kernel, Prediction] = {
    "mixture_mean": Prediction(lambda _: 1, _mixture_mean, _mixture_mean_back),
    "nll": Prediction(lambda _: 1, _nll, _nll_back),
    "outputs": Prediction(lambda num_outputs: num_outputs, _outputs, _outputs_back),
}
