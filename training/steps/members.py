"""Forward and backward of networks of one architecture that see the same rows.

On a CPU they come one after another, so that what a network computes does not depend on how many
share the worker; on a GPU all at once, in batched products. Everything is written into tensors
that are made once, and what belongs to a network begins on a cache line of its own: the rounding
of a product depends on where its matrices begin.

Shape letters: M networks here, C of them at once, B rows, F inputs of a layer, O outputs of a
layer, P parameters.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from training.networks.mlp import split_member
from training.steps.operations import Operations

LINE = 64  # bytes


def aligned_rows(count: int, width: int, like: Tensor) -> Tensor:
    """Room for [count, width], each row of which begins on a cache line."""
    step = LINE // like.element_size()
    return like.new_zeros(count, -(-width // step) * step)[:, :width]


def networks_at_once(theta_MP: Tensor) -> int:
    """How many networks are computed in one batched product."""
    return 1 if theta_MP.device.type == "cpu" else len(theta_MP)


class MemberNetworks:
    """Networks [M, P], the room for their outputs and gradients."""

    def __init__(
        self,
        theta_MP: Tensor,
        grad_MP: Tensor,
        sizes: Sequence[int],
        max_rows: int,
        operations: Operations,
    ) -> None:
        self.layers = split_member(theta_MP, sizes)
        self.gradients = split_member(grad_MP, sizes)
        self.operations, self.num_outputs = operations, sizes[-1]
        count = self.num_networks = len(theta_MP)
        self.at_once = networks_at_once(theta_MP)

        def room(networks: int, width: int) -> Tensor:
            return aligned_rows(networks // self.at_once, self.at_once * max_rows * width, theta_MP)

        self.outs = [room(count, width) for width in sizes[1:]]
        self.output_grads = room(count, sizes[-1])
        self.grads = [room(self.at_once, max(sizes[1:])) for _ in range(2)]

    def groups(self) -> Iterator[slice]:
        """The networks that are computed at once."""
        starts = range(0, self.num_networks, self.at_once)
        return (slice(first, first + self.at_once) for first in starts)

    def outputs(self, group: slice, rows: int) -> Tensor:
        """Outputs [C, B, 3K] of a group, as forward has left them."""
        return self._layer_outputs(len(self.layers) - 1, group, rows)

    def output_gradients(self, group: slice, rows: int) -> Tensor:
        """Room for the gradient by those outputs, which backward reads."""
        return self._view(self.output_grads[group.start // self.at_once], rows, self.num_outputs)

    def forward(self, group: slice, x_BF: Tensor) -> Tensor:
        """Outputs [C, B, 3K] of a group."""
        rows, last = len(x_BF), len(self.layers) - 1
        h_CBF = x_BF.expand(self.at_once, -1, -1)
        for index, layer in enumerate(self.layers):
            weight_COF, bias_C1O = layer.weight_OF[group], layer.bias_O[group].unsqueeze(1)
            out_CBO = self._layer_outputs(index, group, rows)
            torch.baddbmm(bias_C1O, h_CBF, weight_COF.mT, out=out_CBO)
            h_CBF = out_CBO.relu_() if index < last else out_CBO
        return h_CBF

    def backward(self, group: slice, x_BF: Tensor) -> None:
        """Fill a group's gradient from that by its outputs."""
        rows, grad_CBO = len(x_BF), self.output_gradients(group, len(x_BF))
        for index in range(len(self.layers) - 1, 0, -1):
            below_CBF = self._layer_outputs(index - 1, group, rows)
            self._sum_up(index, group, grad_CBO, below_CBF)
            grad_CBF = self._view(self.grads[index % 2][0], rows, below_CBF.shape[-1])
            torch.bmm(grad_CBO, self.layers[index].weight_OF[group], out=grad_CBF)
            self.operations.rectify_back(grad_CBF, below_CBF)
            grad_CBO = grad_CBF
        self._sum_up(0, group, grad_CBO, x_BF.expand(self.at_once, -1, -1))

    def _sum_up(self, index: int, group: slice, grad_CBO: Tensor, below_CBF: Tensor) -> None:
        """A layer's gradient, summed over the rows."""
        gradient = self.gradients[index]
        torch.bmm(grad_CBO.mT, below_CBF, out=gradient.weight_OF[group])
        torch.sum(grad_CBO, 1, out=gradient.bias_O[group])

    def _layer_outputs(self, index: int, group: slice, rows: int) -> Tensor:
        width = self.layers[index].weight_OF.shape[-2]
        return self._view(self.outs[index][group.start // self.at_once], rows, width)

    def _view(self, room: Tensor, rows: int, width: int) -> Tensor:
        return room[: self.at_once * rows * width].view(self.at_once, rows, width)
