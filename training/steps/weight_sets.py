"""Steps whose weights are shared by the rows of a sub-batch: antithetic pairs, or no noise.

Shape letters: B rows of a batch, F inputs of a layer, O outputs of a layer, P parameters,
S sub-batches (each with its own weights), N pairs of them, W weights.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.networks.mlp import FixedLayer, count_weights, split_weights
from training.steps.noise import BLOCK_ROWS, PAIR_ROWS, fill_pair_noise
from training.steps.operations import Bounds, Operations
from training.steps.sampled import Batch
from training.steps.sums import GradientSums

PAIRS_PER_BLOCK = BLOCK_ROWS // PAIR_ROWS


Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(outputs_BO, target_B, weight_B, grad_BO): the sum over rows of weight times loss; grad becomes
its derivatives by the outputs."""


class Units(NamedTuple):
    """The hidden units of a step.

    Attributes:
        in_place: Whether they take the place of the sums that they are made from.
        activate: (sum_BO, unit_BO). Unit becomes the activation of sum.
        backward: (grad_BO, sum_BO, unit_BO). The gradient before the activation from that after.
    """

    in_place: bool
    activate: Callable[[Tensor, Tensor], None]
    backward: Callable[[Tensor, Tensor, Tensor], None]


def rectified(operations: Operations) -> Units:
    """The units max(x, 0), whose gradient needs no more than their output."""
    return Units(
        in_place=True,
        activate=lambda sum_BO, _: _discard(sum_BO.relu_()),
        backward=lambda grad_BO, _, unit_BO: operations.relu_backward(grad_BO, unit_BO),
    )


def _discard(_: Tensor) -> None:
    """What an operation in place returns is its own argument."""


def _swish(sum_BO: Tensor, unit_BO: Tensor) -> None:
    torch.ops.aten.silu.out(sum_BO, out=unit_BO)
    unit_BO.mul_(2.0)


def _swish_backward(grad_BO: Tensor, sum_BO: Tensor, _unit_BO: Tensor) -> None:
    torch.ops.aten.silu_backward.grad_input(grad_BO, sum_BO, grad_input=grad_BO)
    grad_BO.mul_(2.0)


SWISH = Units(in_place=False, activate=_swish, backward=_swish_backward)


def mixture_loss(operations: Operations, bounds: Bounds) -> Loss:
    """The negative log likelihood of Gaussian mixtures as the loss of a step."""

    def loss(outputs_BO: Tensor, target_B: Tensor, weight_B: Tensor, grad_BO: Tensor) -> Tensor:
        return operations.mixture(outputs_BO, target_B, weight_B, grad_BO, bounds)

    return loss


class WeightSets:
    """Forward and backward of ordinary networks, each on its own sub-batch of equal size."""

    def __init__(
        self, sizes: Sequence[int], max_rows: int, like: Tensor, *, units: Units, loss: Loss
    ) -> None:
        self.units, self.loss = units, loss
        self.outs = [like.new_empty(max_rows, width) for width in sizes[1:]]
        self.grads = [like.new_empty(max_rows, width) for width in sizes[1:]]
        self.hidden = [
            out_BO if units.in_place else torch.empty_like(out_BO) for out_BO in self.outs[:-1]
        ]

    def fill(
        self, layers: Sequence[FixedLayer], gradients: Sequence[FixedLayer], batch: Batch
    ) -> Tensor:
        """Fill the gradients of the summed loss; the sum.

        Args:
            layers: Weights [S, O, F], and biases [O] that all networks share.
            gradients: Of the same shapes.
            batch: x_BF may have more rows than the others, which fill up the last sub-batch.
        """
        rows, filled = len(batch.target_B), len(batch.x_BF)
        outputs_BO = self._forward(layers, batch.x_BF)
        grad_BO = self.grads[-1][:filled]
        grad_BO[rows:].zero_()
        loss = self.loss(outputs_BO[:rows], batch.target_B, batch.weight_B, grad_BO[:rows])
        self._backward(layers, gradients, batch.x_BF)
        return loss

    def _forward(self, layers: Sequence[FixedLayer], x_BF: Tensor) -> Tensor:
        sets, last = len(layers[0].weight_OF), len(layers) - 1
        for index, layer in enumerate(layers):
            out_BO = self.outs[index][: len(x_BF)]
            out_SBO = _by_set(out_BO, sets)
            torch.baddbmm(layer.bias_O, _by_set(x_BF, sets), layer.weight_OF.mT, out=out_SBO)
            if index == last:
                break
            x_BF = self.hidden[index][: len(out_BO)]
            self.units.activate(out_BO, x_BF)
        return out_BO

    def _backward(
        self, layers: Sequence[FixedLayer], gradients: Sequence[FixedLayer], first_BF: Tensor
    ) -> None:
        rows, sets = len(first_BF), len(layers[0].weight_OF)
        for index in range(len(layers) - 1, -1, -1):
            grad_BO = self.grads[index][:rows]
            x_BF = self.hidden[index - 1][:rows] if index else first_BF
            grad_SBO = _by_set(grad_BO, sets)
            torch.bmm(grad_SBO.mT, _by_set(x_BF, sets), out=gradients[index].weight_OF)
            torch.sum(grad_BO, 0, out=gradients[index].bias_O)
            if index:
                below_BF = self.grads[index - 1][:rows]
                torch.bmm(grad_SBO, layers[index].weight_OF, out=_by_set(below_BF, sets))
                self.units.backward(below_BF, self.outs[index - 1][:rows], x_BF)


def _by_set(rows_BF: Tensor, sets: int) -> Tensor:
    return rows_BF.view(sets, -1, rows_BF.shape[1])


class PlainStep:
    """An ordinary network: theta_P holds its weights, then its biases."""

    def __init__(
        self,
        theta_P: Tensor,
        sums: GradientSums,
        sizes: Sequence[int],
        max_rows: int,
        *,
        units: Units,
        loss: Loss,
    ) -> None:
        self.layers = _one_set(theta_P.detach(), sizes)
        self.gradients = _one_set(sums.gradient_P, sizes)
        self.loss = sums.loss
        self.sets = WeightSets(sizes, max_rows, theta_P.detach(), units=units, loss=loss)

    def __call__(self, batch: Batch) -> None:
        """Fill the sums with this worker's share of a batch."""
        self.loss.copy_(self.sets.fill(self.layers, self.gradients, batch))


def _one_set(vector_P: Tensor, sizes: Sequence[int]) -> list[FixedLayer]:
    num_weights = count_weights(sizes)
    weights = split_weights(vector_P[:num_weights].unsqueeze(0), sizes)
    biases = vector_P[num_weights:].split_with_sizes(list(sizes[1:]))
    return [FixedLayer(*layer) for layer in zip(weights, biases, strict=True)]


class PairedStep:
    """Sub-batches of 128 rows; of each two, one has mean + noise as weights, one mean - noise.

    Half as many products as local reparametrisation and a noisier gradient.
    """

    def __init__(
        self,
        theta_P: Tensor,
        sums: GradientSums,
        sizes: Sequence[int],
        max_rows: int,
        *,
        bounds: Bounds,
        operations: Operations,
    ) -> None:
        num_weights = count_weights(sizes)
        pairs = -(-max_rows // PAIR_ROWS)
        theta_P, gradient_P = theta_P.detach(), sums.gradient_P
        self.mean_W, self.log_variance_W = theta_P[: 2 * num_weights].view(2, num_weights)
        self.gradient_2W = gradient_P[: 2 * num_weights].view(2, num_weights)
        self.nll = sums.loss
        self.noise_NW = theta_P.new_empty(pairs, num_weights, dtype=torch.float32)
        self.weight_SW = theta_P.new_empty(2 * pairs, num_weights)
        self.weight_gradient_SW = theta_P.new_empty(2 * pairs, num_weights)
        self.x_BF = theta_P.new_empty(pairs * PAIR_ROWS, sizes[0])
        self.sizes = sizes
        self.biases = theta_P[2 * num_weights :].split_with_sizes(list(sizes[1:]))
        self.bias_gradients = gradient_P[2 * num_weights :].split_with_sizes(list(sizes[1:]))
        self.sets = WeightSets(
            sizes,
            pairs * PAIR_ROWS,
            theta_P,
            units=rectified(operations),
            loss=mixture_loss(operations, bounds),
        )

    def __call__(self, batch: Batch) -> None:
        """Fill the sums with this worker's share of a batch."""
        rows = len(batch.x_BF)
        pairs = -(-rows // PAIR_ROWS)
        shift_NW = self._draw(batch.key, batch.first_block * PAIRS_PER_BLOCK, pairs)
        x_BF = self.x_BF[: pairs * PAIR_ROWS]
        x_BF[:rows].copy_(batch.x_BF)
        x_BF[rows:].zero_()
        weight_SW, gradient_SW = self.weight_SW[: 2 * pairs], self.weight_gradient_SW[: 2 * pairs]
        filled = Batch(x_BF, batch.target_B, batch.weight_B, batch.key, batch.first_block)
        self.nll.copy_(
            self.sets.fill(
                self._layers(weight_SW, self.biases),
                self._layers(gradient_SW, self.bias_gradients),
                filled,
            )
        )
        torch.sum(gradient_SW, 0, out=self.gradient_2W[0])
        difference_NW = gradient_SW[0::2] - gradient_SW[1::2]
        torch.sum(difference_NW.mul_(shift_NW), 0, out=self.gradient_2W[1])
        self.gradient_2W[1].mul_(0.5)

    def _draw(self, key: Tensor, first_pair: int, pairs: int) -> Tensor:
        """Fill the weights of the sub-batches; the shifts [N, W] from their means."""
        noise_NW = fill_pair_noise(self.noise_NW, key, first_pair, pairs)
        shift_NW = noise_NW * torch.exp(0.5 * self.log_variance_W)
        torch.add(self.mean_W, shift_NW, out=self.weight_SW[0 : 2 * pairs : 2])
        torch.sub(self.mean_W, shift_NW, out=self.weight_SW[1 : 2 * pairs : 2])
        return shift_NW

    def _layers(self, weight_SW: Tensor, biases: Sequence[Tensor]) -> list[FixedLayer]:
        weights = split_weights(weight_SW, self.sizes)
        return [FixedLayer(*layer) for layer in zip(weights, biases, strict=True)]
