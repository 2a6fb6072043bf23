"""The training step between its matrix products, as compiled loops over float32 on the CPU.

Each does what the function of the same name in training.steps.operations describes.

Shape letters: B batch rows, O outputs (3K), K components, N numbers of flat arrays.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.steps.compiled import element, kernel
from training.steps.normals import Vector32

Matrix32 = NDArray[np.float32]

_F = np.float32
_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@kernel
def sample(
    out_N: Vector32,
    spread_N: Vector32,
    square_N: Vector32,
    noise_N: Vector32,
    floor: np.float32,
    rectify: bool,
) -> None:
    """Sampled units of one block of rows and their squares."""
    for i in range(out_N.size):
        sigma = np.sqrt(spread_N[i] + floor)
        spread_N[i] = noise_N[i] / sigma
        out_N[i] += sigma * noise_N[i]
    if rectify:
        for i in range(out_N.size):
            out_N[i] = max(out_N[i], _F(0.0))  # in this order NaN stays NaN
    for i in range(out_N.size):
        square_N[i] = out_N[i] * out_N[i]


@kernel
def backward(grad_N: Vector32, twice_N: Vector32, out_N: Vector32, ratio_N: Vector32) -> None:
    """Gradients of a rectified layer's means and, twice, of its variances."""
    for i in range(grad_N.size):
        grad = grad_N[i] + out_N[i] * twice_N[i]
        grad_N[i] = grad if out_N[i] > _F(0.0) else _F(0.0)
    for i in range(grad_N.size):
        twice_N[i] = grad_N[i] * ratio_N[i]


@kernel
def relu_backward(grad_N: Vector32, out_N: Vector32) -> None:
    """The gradient before a rectifier from that after it, in place."""
    for i in range(grad_N.size):
        grad_N[i] = grad_N[i] if out_N[i] > _F(0.0) else _F(0.0)


@element
def _clamp(value: Any, low: Any, high: Any) -> Any:  # noqa: ANN401 - a number; NaN stays NaN
    return min(max(value, low), high)


@element
def _log_sum(value_K: Vector32, share_K: Vector32) -> Any:  # noqa: ANN401 - a number
    """Logarithm of the sum of the exponentials, and into share_K the share of each."""
    top = value_K[0]
    for k in range(1, value_K.size):
        top = max(top, value_K[k])
    total = _F(0.0)
    for k in range(value_K.size):
        share_K[k] = np.exp(value_K[k] - top)
        total += share_K[k]
    for k in range(value_K.size):
        share_K[k] /= total
    return top + np.log(total)


@kernel
def mixture_mean(outputs_BO: Matrix32, mean_B: Vector32) -> None:
    """Mean of each row's mixture, from the raw outputs of a network."""
    components = outputs_BO.shape[1] // 3
    share_K = np.empty(components, np.float32)
    for b in range(len(outputs_BO)):
        _log_sum(outputs_BO[b, 2 * components :], share_K)
        mean_B[b] = _F(0.0)
        for k in range(components):
            mean_B[b] += share_K[k] * outputs_BO[b, k]


@kernel
def mixture_mean_backward(outputs_BO: Matrix32, force_B: Vector32, grad_BO: Matrix32) -> None:
    """Derivatives of the sum of force times mean."""
    components = outputs_BO.shape[1] // 3
    share_K = np.empty(components, np.float32)
    for b in range(len(outputs_BO)):
        _log_sum(outputs_BO[b, 2 * components :], share_K)
        mean = _F(0.0)
        for k in range(components):
            mean += share_K[k] * outputs_BO[b, k]
        for k in range(components):
            pull = force_B[b] * share_K[k]
            grad_BO[b, k] = pull
            grad_BO[b, components + k] = _F(0.0)
            grad_BO[b, 2 * components + k] = pull * (outputs_BO[b, k] - mean)


@kernel
def mixture(
    outputs_BO: Matrix32,
    target_B: Vector32,
    weight_B: Vector32,
    grad_BO: Matrix32,
    low: np.float32,
    high: np.float32,
) -> float:
    """Sum of weight times NLL, and its gradient."""
    components = outputs_BO.shape[1] // 3
    share_K, height_K = np.empty(components, np.float32), np.empty(components, np.float32)
    precision_K, value_K = np.empty(components, np.float32), np.empty(components, np.float32)
    total = 0.0
    for b in range(len(outputs_BO)):
        mean_K = outputs_BO[b, :components]
        log_variance_K = outputs_BO[b, components : 2 * components]
        logit_K = outputs_BO[b, 2 * components :]
        norm = _log_sum(logit_K, share_K)
        for k in range(components):
            log_variance = _clamp(log_variance_K[k], low, high)
            precision_K[k] = np.exp(-log_variance)
            distance = target_B[b] - mean_K[k]
            square = distance * distance * precision_K[k]
            value_K[k] = logit_K[k] - norm - _F(0.5) * (square + log_variance)
        log_p = _log_sum(value_K, height_K) - _F(_HALF_LOG_TWO_PI)
        total -= weight_B[b] * log_p
        for k in range(components):
            pull = weight_B[b] * height_K[k]
            distance = target_B[b] - mean_K[k]
            square = distance * distance * precision_K[k]
            is_inside = (log_variance_K[k] >= low) & (log_variance_K[k] <= high)
            grad_BO[b, k] = -pull * distance * precision_K[k]
            slope = _F(-0.5) * pull * (square - _F(1.0))
            grad_BO[b, components + k] = slope if is_inside else _F(0.0)
            grad_BO[b, 2 * components + k] = weight_B[b] * share_K[k] - pull
    return total
