"""Gradient and loss of one worker's rows of a batch: the products, forward and backward.

Everything is written out into tensors that are made once, without torch's automatic graph: it
would keep and fill about twice as many, and a captured CUDA graph wants fixed addresses.

Shape letters: B rows of a batch, F inputs of a layer, O outputs of a layer, P parameters,
W weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from training.networks.mlp import count_weights, split_parameters, split_weights
from training.settings import VariancePrecision
from training.steps.noise import BLOCK_ROWS, fill_layer_noise
from training.steps.operations import Bounds, Operations
from training.steps.sums import GradientSums
from training.steps.tables import Tables


@dataclass(frozen=True)
class Batch:
    """A worker's rows of one batch.

    Attributes:
        x_BF: Scaled features.
        target_B: The scaled target; several as [B, T].
        weight_B: Weights of the rows.
        key: Of the step's noise, int32 [2].
        first_block: Of the worker in the global batch.
        tables: Of lists.
    """

    x_BF: Tensor
    target_B: Tensor
    weight_B: Tensor
    key: Tensor
    first_block: int
    tables: Tables = ()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a module takes: features, then columns and rows of each table's elements."""
        return (self.x_BF, *(each for table in self.tables for each in table.inputs))


class Step(Protocol):
    """Fills the sums that it was made with: gradient [P] of the summed NLL, then that sum."""

    def __call__(self, batch: Batch) -> None:
        """Fill the sums with this worker's share of a batch."""
        ...


class SampledStep:
    """Fresh weights for every row, by local reparametrisation.

    A layer's units have mean m = x mean^T + bias and variance v = x^2 variance^T, so a unit is
    m + sqrt(v) noise.
    """

    def __init__(  # noqa: PLR0913 - what a step consists of
        self,
        theta_P: Tensor,
        sums: GradientSums,
        sizes: Sequence[int],
        max_rows: int,
        *,
        bounds: Bounds,
        operations: Operations,
        precision: VariancePrecision = "float32",
    ) -> None:
        self.bounds, self.operations, self.precision = bounds, operations, precision
        num_weights = count_weights(sizes)
        self.layers = split_parameters(theta_P.detach(), sizes)
        self.gradients = split_parameters(sums.gradient_P, sizes)
        self.nll = sums.loss
        self.log_variance_W = theta_P.detach()[num_weights : 2 * num_weights]
        self.log_variance_gradient_W = sums.gradient_P[num_weights : 2 * num_weights]
        self.variance_W = torch.empty_like(self.log_variance_W)
        self.variances = split_weights(self.variance_W, sizes)
        rows = -(-max_rows // BLOCK_ROWS) * BLOCK_ROWS

        def buffers(widths: Sequence[int], dtype: torch.dtype = theta_P.dtype) -> list[Tensor]:
            return [theta_P.new_empty(rows, width, dtype=dtype) for width in widths]

        self.outs, self.spreads = buffers(sizes[1:]), buffers(sizes[1:])
        self.grads, self.twices = buffers(sizes[1:]), buffers(sizes[1:])
        self.squares = buffers(sizes)
        self.noise = buffers(sizes[1:], torch.float32)

    def __call__(self, batch: Batch) -> None:
        """Fill the sums with this worker's share of a batch."""
        torch.exp(self.log_variance_W, out=self.variance_W)
        self._forward(batch)
        rows = len(batch.x_BF)
        out_BO, grad_BO = self.outs[-1][:rows], self.grads[-1][:rows]
        self.nll.copy_(
            self.operations.mixture(out_BO, batch.target_B, batch.weight_B, grad_BO, self.bounds)
        )
        self._backward(batch)
        self.log_variance_gradient_W.mul_(self.variance_W).mul_(0.5)

    def _forward(self, batch: Batch) -> None:
        rows, x_BF = len(batch.x_BF), batch.x_BF
        torch.mul(x_BF, x_BF, out=self.squares[0][:rows])
        noises = fill_layer_noise(self.noise, batch.key, batch.first_block, rows)
        for index, (layer, noise_BO) in enumerate(zip(self.layers, noises, strict=True)):
            out_BO, spread_BO = self.outs[index][:rows], self.spreads[index][:rows]
            torch.addmm(layer.bias_O, x_BF, layer.mean_OF.t(), out=out_BO)
            self._product(self.squares[index][:rows], self.variances[index].t(), spread_BO)
            is_last = index == len(self.layers) - 1
            square_BO = self.squares[index + 1][:rows]
            self.operations.sample(out_BO, spread_BO, square_BO, noise_BO, not is_last)
            x_BF = out_BO

    def _backward(self, batch: Batch) -> None:
        rows, last = len(batch.x_BF), len(self.layers) - 1
        torch.mul(self.grads[last][:rows], self.spreads[last][:rows], out=self.twices[last][:rows])
        for index in range(last, -1, -1):
            grad_BO, twice_BO = self.grads[index][:rows], self.twices[index][:rows]
            x_BF = self.outs[index - 1][:rows] if index else batch.x_BF
            gradient = self.gradients[index]
            torch.mm(grad_BO.t(), x_BF, out=gradient.mean_OF)
            self._product(twice_BO.t(), self.squares[index][:rows], gradient.log_variance_OF)
            torch.sum(grad_BO, 0, out=gradient.bias_O)
            if index:
                below_BF, twice_below_BF = (
                    self.grads[index - 1][:rows],
                    self.twices[index - 1][:rows],
                )
                torch.mm(grad_BO, self.layers[index].mean_OF, out=below_BF)
                self._product(twice_BO, self.variances[index], twice_below_BF)
                self.operations.backward(
                    below_BF, twice_below_BF, x_BF, self.spreads[index - 1][:rows]
                )

    def _product(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        """A product of the variances' path, whose error only changes the noise's width."""
        if self.precision == "bfloat16":
            out.copy_(left.bfloat16() @ right.bfloat16())
            return
        matmul: Any = torch.backends.cuda.matmul
        before = matmul.fp32_precision
        matmul.fp32_precision = "tf32" if self.precision == "tf32" else before
        torch.mm(left, right, out=out)
        matmul.fp32_precision = before
