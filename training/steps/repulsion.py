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

from training.losses.density_nll import log_density
from training.settings import Kernel
from training.steps.operations import Bounds, Operations


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
    tiny = torch.finfo(torch.float64).tiny
    inverse = (bandwidth > tiny) / bandwidth.clamp(min=tiny)
    weight_MM = torch.softmax(-0.5 * inverse * square_MM, dim=1)
    force_MD = (weight_MM @ wide_MD).sub_(wide_MD).mul_(strength * inverse)
    return Repulsion(force_MD, bandwidth, wide_MD.square().mean().sqrt())


def _median(values: Tensor) -> Tensor:
    """The mean of the two central values where their number is even."""
    ordered = values.flatten().sort().values
    return 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])


class Prediction(NamedTuple):
    """What of a member's outputs the kernel compares; outputs are contiguous.

    Attributes:
        per_row: (num_outputs). Numbers for each row of a batch.
        predict: (outputs_CBO, target_B, bounds). They, [C, B, D / B].
        backward: (outputs_CBO, target_B, bounds, force). The derivatives by the outputs,
            [C, B, O], of the sum of force times prediction; force is shaped as the prediction.
    """

    per_row: Callable[[int], int]
    predict: Callable[[Tensor, Tensor, Bounds], Tensor]
    backward: Callable[[Tensor, Tensor, Bounds, Tensor], Tensor]


def prediction_of(kernel: Kernel, operations: Operations) -> Prediction:
    """The prediction that a kernel is named after."""
    made = {"mixture_mean": _mixture_mean, "nll": _nll, "outputs": _outputs}
    return made[kernel](operations)


def _mixture_mean(operations: Operations) -> Prediction:
    def predict(outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds) -> Tensor:
        mean_CB1 = outputs_CBO.new_empty(*outputs_CBO.shape[:2], 1)
        operations.mixture_mean(outputs_CBO.flatten(0, 1), mean_CB1.view(-1))
        return mean_CB1

    def backward(
        outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds, force_CB1: Tensor
    ) -> Tensor:
        grad_CBO = torch.empty_like(outputs_CBO)
        operations.mixture_mean_backward(
            outputs_CBO.flatten(0, 1), force_CB1.flatten(), grad_CBO.flatten(0, 1)
        )
        return grad_CBO

    return Prediction(lambda _: 1, predict, backward)


def _nll(operations: Operations) -> Prediction:
    def predict(outputs_CBO: Tensor, target_B: Tensor, bounds: Bounds) -> Tensor:
        return log_density(outputs_CBO, target_B, bounds).neg().unsqueeze(-1)

    def backward(
        outputs_CBO: Tensor, target_B: Tensor, bounds: Bounds, force_CB1: Tensor
    ) -> Tensor:
        grad_CBO = torch.empty_like(outputs_CBO)
        operations.mixture(
            outputs_CBO.flatten(0, 1),
            target_B.repeat(len(outputs_CBO)),
            force_CB1.flatten(),
            grad_CBO.flatten(0, 1),
            bounds,
        )
        return grad_CBO

    return Prediction(lambda _: 1, predict, backward)


def _outputs(_operations: Operations) -> Prediction:
    def predict(outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds) -> Tensor:
        return outputs_CBO

    def backward(
        _outputs_CBO: Tensor, _target_B: Tensor, _bounds: Bounds, force_CBO: Tensor
    ) -> Tensor:
        return force_CBO

    return Prediction(lambda num_outputs: num_outputs, predict, backward)
