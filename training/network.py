"""A network with Gaussian weights: local reparametrisation, KL and draws.

The method is that of arXiv 2412.04370, Sec. 5.

Shape letters: B batch rows, F inputs of a layer, O outputs of a layer, K components, P parameters,
W weights. All parameters live in one vector theta_P = (means, log variances, biases), so that the
optimiser, the sum over workers and the KL are one operation each. Weights are [O, F] per layer,
layer after layer. Biases are deterministic and have no prior.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-12  # keeps the square root's gradient finite for an input row of zeros


class Layer(NamedTuple):
    """Views of one layer's parameters: mean_OF, log_variance_OF, bias_O."""

    mean_OF: Tensor
    log_variance_OF: Tensor
    bias_O: Tensor


class FixedLayer(NamedTuple):
    """A layer of an ordinary network: weight_OF, bias_O."""

    weight_OF: Tensor
    bias_O: Tensor


def layer_sizes(num_features: int, hidden: Sequence[int], components: int) -> tuple[int, ...]:
    """Units per layer from the inputs to the outputs (K means, K log sigma^2, K logits)."""
    return (num_features, *hidden, 3 * components)


def count_weights(sizes: Sequence[int]) -> int:
    """The number of weights without biases."""
    return sum(inputs * outputs for inputs, outputs in pairwise(sizes))


def initial_parameters(
    sizes: Sequence[int], initial_log_variance: float, generator: torch.Generator
) -> Tensor:
    """theta_P with means from N(0, 1/sqrt(F)), log variances near their start, biases 0."""
    pairs = list(pairwise(sizes))
    means = [
        torch.randn(outputs * inputs, generator=generator) / math.sqrt(inputs)
        for inputs, outputs in pairs
    ]
    jitter_W = torch.randn(count_weights(sizes), generator=generator)
    log_variance_W = initial_log_variance + 1e-3 * jitter_W
    return torch.cat([*means, log_variance_W, torch.zeros(sum(sizes[1:]))])


def split_parameters(theta_P: Tensor, sizes: Sequence[int]) -> list[Layer]:
    """Views of theta_P by layer."""
    pairs = list(pairwise(sizes))
    areas = [inputs * outputs for inputs, outputs in pairs]
    pieces = torch.split(theta_P, [*areas, *areas, *sizes[1:]])
    count = len(pairs)
    return [
        Layer(
            pieces[layer].view(outputs, inputs),
            pieces[count + layer].view(outputs, inputs),
            pieces[2 * count + layer],
        )
        for layer, (inputs, outputs) in enumerate(pairs)
    ]


class _SampledLinear(torch.autograd.Function):
    """Pre-activation m + sqrt(v) noise with m = x mean^T + bias, v = x^2 variance^T, then ReLU.

    Written out because the automatic graph keeps and fills about twice as many temporaries.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - what a layer consists of
        ctx: Any,  # noqa: ANN401 - torch's context has no public type
        x_BF: Tensor,
        mean_OF: Tensor,
        variance_OF: Tensor,
        bias_O: Tensor,
        noise_BO: Tensor,
        rectify: bool,
    ) -> Tensor:
        square_BF = x_BF * x_BF
        sigma_BO = torch.mm(square_BF, variance_OF.t()).add_(VARIANCE_FLOOR).sqrt_()
        out_BO = torch.addmm(bias_O, x_BF, mean_OF.t()).addcmul_(sigma_BO, noise_BO)
        if rectify:
            out_BO.relu_()
        ctx.rectify = rectify
        ctx.save_for_backward(x_BF, square_BF, mean_OF, variance_OF, noise_BO, sigma_BO, out_BO)
        return out_BO

    @staticmethod
    def backward(ctx: Any, grad_BO: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_BF, square_BF, mean_OF, variance_OF, noise_BO, sigma_BO, out_BO = ctx.saved_tensors
        if ctx.rectify:
            grad_BO = torch.ops.aten.threshold_backward(grad_BO, out_BO, 0)
        twice_BO = torch.mul(grad_BO, noise_BO).div_(sigma_BO)  # 2 d loss / d v
        grad_x_BF = None
        if ctx.needs_input_grad[0]:
            grad_x_BF = grad_BO.mm(mean_OF).addcmul_(x_BF, twice_BO.mm(variance_OF))
        return (
            grad_x_BF,
            grad_BO.t().mm(x_BF),
            twice_BO.t().mm(square_BF).mul_(0.5),
            grad_BO.sum(0),
            None,
            None,
        )


def forward_sampled(layers: Sequence[Layer], x_BF: Tensor, noise: Sequence[Tensor]) -> Tensor:
    """Outputs [B, 3K] with fresh weights for every row, by local reparametrisation.

    Args:
        layers: The network.
        x_BF: Scaled features.
        noise: Standard normal numbers, one [B, O] per layer.
    """
    last = len(layers) - 1
    for index, (layer, noise_BO) in enumerate(zip(layers, noise, strict=True)):
        x_BF = _SampledLinear.apply(  # type: ignore[no-untyped-call]
            x_BF, layer.mean_OF, layer.log_variance_OF.exp(), layer.bias_O, noise_BO, index < last
        )
    return x_BF


def forward_fixed(layers: Sequence[FixedLayer], x_BF: Tensor) -> Tensor:
    """Outputs [B, 3K] of one weight set; [S, B, 3K] where the weights carry an axis S in front."""
    for index, layer in enumerate(layers):
        x_BF = x_BF @ layer.weight_OF.mT + layer.bias_O
        if index < len(layers) - 1:
            x_BF = x_BF.relu()
    return x_BF


def mean_weights(layers: Sequence[Layer]) -> list[FixedLayer]:
    """The weight set at the posterior's mean."""
    return [FixedLayer(layer.mean_OF.detach(), layer.bias_O.detach()) for layer in layers]


def draw_weights(layers: Sequence[Layer], generator: torch.Generator) -> list[FixedLayer]:
    """One weight set drawn from the posterior."""
    drawn = []
    for layer in layers:
        mean_OF, sigma_OF = layer.mean_OF.detach(), (0.5 * layer.log_variance_OF.detach()).exp()
        noise_OF = torch.randn(mean_OF.shape, generator=generator, dtype=mean_OF.dtype)
        drawn.append(FixedLayer(mean_OF + sigma_OF * noise_OF, layer.bias_O.detach()))
    return drawn


def kl_divergence(theta_P: Tensor, num_weights: int, prior_sigma: float) -> Tensor:
    """KL(q | prior) of all weights in nats, closed form for Gaussians (Eq. 29)."""
    mean_W, log_variance_W = theta_P[:num_weights], theta_P[num_weights : 2 * num_weights]
    precision = 1.0 / prior_sigma**2
    terms_W = precision * (mean_W**2 + log_variance_W.exp()) - log_variance_W - 1.0
    return 0.5 * terms_W.sum() + num_weights * math.log(prior_sigma)


def add_kl_gradient(
    grad_P: Tensor, theta_P: Tensor, *, num_weights: int, prior_sigma: float, num_rows: int
) -> None:
    """Add the gradient of KL / num_rows to grad_P in place."""
    mean_W, log_variance_W = theta_P[:num_weights], theta_P[num_weights : 2 * num_weights]
    precision = 1.0 / prior_sigma**2
    grad_P[:num_weights].add_(mean_W, alpha=precision / num_rows)
    variance_grad_W = log_variance_W.exp().mul_(precision).sub_(1.0)
    grad_P[num_weights : 2 * num_weights].add_(variance_grad_W, alpha=0.5 / num_rows)
