"""The training step between its matrix products: torch's functions, or compiled loops on the CPU.

Shape letters: B batch rows, O outputs of a layer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from training.losses.density_nll import nll_with_gradient
from training.steps import kernels
from training.steps.normals import Vector32

VARIANCE_FLOOR = 1e-12  # keeps the square root's gradient finite for an input row of zeros


Bounds = tuple[float, float]


class Operations(NamedTuple):
    """One implementation of what lies between the products; all work in place.

    Attributes:
        sample: (out_BO, spread_BO, square_BO, noise_BO, rectify). Units of a layer from their
            moments: out, the means, becomes mean + sigma noise, rectified if wished; spread, the
            variances, becomes noise / sigma; square becomes out^2.
        backward: (grad_BO, twice_BO, out_BO, ratio_BO). Through a rectified layer: grad, the
            next layer's gradient times its mean weights, becomes the gradient of the means;
            twice, the same of twice the variances, becomes twice that of the variances.
        relu_backward: (grad_BO, out_BO). The gradient before a rectifier from that after it.
        mixture: (outputs_BO, target_B, weight_B, grad_BO, bounds). The sum of weight times NLL;
            grad becomes its derivatives by the outputs.
        mixture_mean: (outputs_BO, mean_B). Mean becomes that of each row's mixture.
        mixture_mean_backward: (outputs_BO, force_B, grad_BO). Grad becomes the derivatives by the
            outputs of the sum of force times mean.
    """

    sample: Callable[[Tensor, Tensor, Tensor, Tensor, bool], None]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    relu_backward: Callable[[Tensor, Tensor], None]
    mixture: Callable[[Tensor, Tensor, Tensor, Tensor, Bounds], Tensor]
    mixture_mean: Callable[[Tensor, Tensor], None]
    mixture_mean_backward: Callable[[Tensor, Tensor, Tensor], None]


def operations_on(device: torch.device, *, fuse: bool = False) -> Operations:
    """The fastest operations for float32 tensors on a device.

    Args:
        device: Where the tensors are.
        fuse: Let torch compile its functions, which takes a C compiler; on other devices than
            the CPU.
    """
    if device.type == "cpu":
        return COMPILED
    return Operations(*(cast("Any", torch.compile(each)) for each in PLAIN)) if fuse else PLAIN


def _sample(
    out_BO: Tensor, spread_BO: Tensor, square_BO: Tensor, noise_BO: Tensor, rectify: bool
) -> None:
    sigma_BO = spread_BO.add_(VARIANCE_FLOOR).sqrt_()
    out_BO.addcmul_(sigma_BO, noise_BO)
    torch.div(noise_BO, sigma_BO, out=spread_BO)
    if rectify:
        out_BO.relu_()
    torch.mul(out_BO, out_BO, out=square_BO)


def _backward(grad_BO: Tensor, twice_BO: Tensor, out_BO: Tensor, ratio_BO: Tensor) -> None:
    grad_BO.addcmul_(out_BO, twice_BO).mul_(out_BO > 0)
    torch.mul(grad_BO, ratio_BO, out=twice_BO)


def _relu_backward(grad_BO: Tensor, out_BO: Tensor) -> None:
    grad_BO.mul_(out_BO > 0)


def _mixture_mean(outputs_BO: Tensor, mean_B: Tensor) -> None:
    mean_BK, _, logit_BK = outputs_BO.chunk(3, dim=1)
    torch.sum(torch.softmax(logit_BK, dim=1) * mean_BK, 1, out=mean_B)


def _mixture_mean_backward(outputs_BO: Tensor, force_B: Tensor, grad_BO: Tensor) -> None:
    mean_BK, _, logit_BK = outputs_BO.chunk(3, dim=1)
    grad_mean_BK, grad_log_variance_BK, grad_logit_BK = grad_BO.chunk(3, dim=1)
    share_BK = torch.softmax(logit_BK, dim=1)
    average_B1 = (share_BK * mean_BK).sum(dim=1, keepdim=True)
    torch.mul(share_BK, force_B.unsqueeze(1), out=grad_mean_BK)
    grad_log_variance_BK.zero_()
    torch.mul(grad_mean_BK, mean_BK - average_B1, out=grad_logit_BK)


PLAIN = Operations(
    _sample,
    _backward,
    _relu_backward,
    nll_with_gradient,
    _mixture_mean,
    _mixture_mean_backward,
)


def _flat(tensor: Tensor) -> Vector32:
    flat: Vector32 = tensor.view(-1).numpy()
    return flat


def _sample_compiled(
    out_BO: Tensor, spread_BO: Tensor, square_BO: Tensor, noise_BO: Tensor, rectify: bool
) -> None:
    out_N, spread_N, square_N, noise_N = map(_flat, (out_BO, spread_BO, square_BO, noise_BO))
    kernels.sample(out_N, spread_N, square_N, noise_N, np.float32(VARIANCE_FLOOR), rectify)


def _backward_compiled(grad_BO: Tensor, twice_BO: Tensor, out_BO: Tensor, ratio_BO: Tensor) -> None:
    kernels.backward(_flat(grad_BO), _flat(twice_BO), _flat(out_BO), _flat(ratio_BO))


def _relu_backward_compiled(grad_BO: Tensor, out_BO: Tensor) -> None:
    kernels.relu_backward(_flat(grad_BO), _flat(out_BO))


def _mixture_compiled(
    outputs_BO: Tensor,
    target_B: Tensor,
    weight_B: Tensor,
    grad_BO: Tensor,
    bounds: Bounds,
) -> Tensor:
    low, high = map(np.float32, bounds)
    rows = (outputs_BO.numpy(), target_B.numpy(), weight_B.numpy(), grad_BO.numpy())
    return torch.tensor(kernels.mixture(*rows, low, high))


def _mixture_mean_compiled(outputs_BO: Tensor, mean_B: Tensor) -> None:
    kernels.mixture_mean(outputs_BO.numpy(), mean_B.numpy())


def _mixture_mean_backward_compiled(outputs_BO: Tensor, force_B: Tensor, grad_BO: Tensor) -> None:
    kernels.mixture_mean_backward(outputs_BO.numpy(), force_B.numpy(), grad_BO.numpy())


COMPILED = Operations(
    _sample_compiled,
    _backward_compiled,
    _relu_backward_compiled,
    _mixture_compiled,
    _mixture_mean_compiled,
    _mixture_mean_backward_compiled,
)
