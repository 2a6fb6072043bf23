"""Parameters of networks, of one with Gaussian weights also its KL and draws.

The method is that of arXiv 2412.04370, Sec. 5.

Shape letters: B batch rows, F inputs of a layer, O outputs of a layer, K components, P parameters,
W weights. All parameters live in one vector theta_P, so that the optimiser, the sum over workers
and the KL are one operation each: (means, log variances, biases), or (weights, biases) of an
ordinary network. Weights are [O, F] per layer, layer after layer. Biases of a network with
Gaussian weights are deterministic and have no prior.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.settings import Activation


class Layer(NamedTuple):
    """Views of one layer's parameters: mean_OF, log_variance_OF, bias_O."""

    mean_OF: Tensor
    log_variance_OF: Tensor
    bias_O: Tensor


class FixedLayer(NamedTuple):
    """A layer of an ordinary network: weight_OF, bias_O."""

    weight_OF: Tensor
    bias_O: Tensor


def count_weights(sizes: Sequence[int]) -> int:
    """The number of weights without biases."""
    return sum(inputs * outputs for inputs, outputs in pairwise(sizes))


def initial_parameters(
    sizes: Sequence[int], initial_log_variance: float, generator: torch.Generator
) -> Tensor:
    """theta_P with means from N(0, 1/sqrt(F)), log variances near their start, biases 0."""
    mean_W = initial_weights(sizes, generator)
    jitter_W = torch.randn(count_weights(sizes), generator=generator)
    log_variance_W = initial_log_variance + 1e-3 * jitter_W
    return torch.cat([mean_W, log_variance_W, torch.zeros(sum(sizes[1:]))])


def initial_weights(sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Weights [W] drawn from a normal distribution of width 1/sqrt(F) of their layer."""
    return torch.cat([
        torch.randn(outputs * inputs, generator=generator) / math.sqrt(inputs)
        for inputs, outputs in pairwise(sizes)
    ])


def initial_member(sizes: Sequence[int], generator: torch.Generator) -> Tensor:
    """Parameters [P] of an ordinary network: weights from N(0, 1/sqrt(F)), then biases 0."""
    return torch.cat([initial_weights(sizes, generator), torch.zeros(sum(sizes[1:]))])


def split_parameters(theta_P: Tensor, sizes: Sequence[int]) -> list[Layer]:
    """Views of the flat parameters theta_P by layer: means, log variances, biases."""
    num_weights = count_weights(sizes)
    mean_W, log_variance_W, bias_P = torch.split(
        theta_P, [num_weights, num_weights, sum(sizes[1:])]
    )
    parts = (
        split_weights(mean_W, sizes),
        split_weights(log_variance_W, sizes),
        torch.split(bias_P, list(sizes[1:])),
    )
    return [Layer(*layer) for layer in zip(*parts, strict=True)]


def split_weights(weights: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Views [..., O, F] by layer of what holds all weights, [..., W]."""
    pairs = list(pairwise(sizes))
    pieces = torch.split(weights, [inputs * outputs for inputs, outputs in pairs], dim=-1)
    return [
        torch.unflatten(piece, -1, (outputs, inputs))
        for piece, (inputs, outputs) in zip(pieces, pairs, strict=True)
    ]


def split_member(theta: Tensor, sizes: Sequence[int]) -> list[FixedLayer]:
    """Views by layer of an ordinary network's parameters [..., P], weights before biases."""
    num_weights = count_weights(sizes)
    weights = split_weights(theta[..., :num_weights], sizes)
    biases = theta[..., num_weights:].split_with_sizes(list(sizes[1:]), dim=-1)
    return [FixedLayer(*layer) for layer in zip(weights, biases, strict=True)]


def swish(x: Tensor) -> Tensor:
    """2 x sigmoid(x), whose slope at 0 is 1."""
    return 2.0 * nn.functional.silu(x)


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "swish": swish}


def forward_fixed(
    layers: Sequence[FixedLayer], x_BF: Tensor, activation: Activation = "relu"
) -> Tensor:
    """Outputs [B, O] of one weight set; [S, B, O] where the weights carry an axis S in front."""
    activate = ACTIVATIONS[activation]
    for index, layer in enumerate(layers):
        x_BF = x_BF @ layer.weight_OF.mT + layer.bias_O
        if index < len(layers) - 1:
            x_BF = activate(x_BF)
    return x_BF


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
