"""Forward and backward of networks of one architecture that see the same rows.

On a CPU they come one after another, so that what a network computes does not depend on how many
share the worker; on a GPU all at once, in batched products. Everything is written into tensors
that are made once, and what belongs to a network begins on a cache line of its own: the rounding
of a product depends on where its matrices begin.

Shape letters: M networks here, C of them at once, B rows, F inputs of a layer, O outputs of a
layer, P parameters.

`EnsembleStep` is gradient and loss of a worker's members of a repulsive ensemble (arXiv 2412.04370,
Eq. 36). The loss is the sum over members of mean NLL + repulsion_scale / N times the repulsive term
+ |theta|^2 / (2 N sigma^2), N being the number of training rows. Members feel each other through
the values of their predictions alone: those of all members are gathered, then every worker does
the same small algebra on them and takes its members' part.

Letters of the step: M all members, C some of this worker's, B rows, O outputs (3K), F figures,
P parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from training.losses.density_nll import log_density
from training.networks.mlp import split_member
from training.settings import RepulsiveEnsembleSettings
from training.steps.operations import Operations
from training.steps.repulsion import prediction_of, repel
from training.steps.sampled import Batch

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
            self.operations.relu_backward(grad_CBF, below_CBF)
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


class Rows(Protocol):
    """Rows to judge members by: features [B, F], targets [B], and all that a module takes."""

    @property
    def x_NF(self) -> Tensor:  # noqa: N802 - its shape
        """[B, F]."""
        ...

    @property
    def target_N(self) -> Tensor:  # noqa: N802 - its shape
        """[B]."""
        ...

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Of a module."""
        ...


class MembersStep(Protocol):
    """Fills the gradients of a worker's members of an ensemble.

    Attributes:
        figures_MF: Of each member: summed loss, and squared norms of the gradients by parameters,
            and by outputs of likelihood and repulsion; zero where other workers have the member.
        bandwidth: Of the kernel of the repulsion, a scalar.
        spread: Of the members' predictions, a scalar.
    """

    figures_MF: Tensor
    bandwidth: Tensor
    spread: Tensor

    def __call__(self, batch: Batch) -> None:
        """Fill gradients and figures."""
        ...

    def log_densities(self, rows: Rows) -> Tensor:
        """Log density [M, B] of each row's target by each member of all workers; not kept long."""
        ...


FIGURES = 4  # of a member: summed NLL, and squared norms of three gradients


class EnsembleStep:
    """Fills the members' gradients, and their figures among those of all members."""

    def __init__(  # noqa: PLR0913 - what a step consists of
        self,
        theta_CP: Tensor,
        grad_CP: Tensor,
        sizes: Sequence[int],
        max_rows: int,
        *,
        settings: RepulsiveEnsembleSettings,
        num_rows: int,
        numbers: range,
        all_reduce: Callable[[Tensor], None],
        operations: Operations,
    ) -> None:
        self.settings, self.numbers, self.all_reduce = settings, numbers, all_reduce
        self.operations, self.theta_CP, self.grad_CP = operations, theta_CP, grad_CP
        self.networks = MemberNetworks(theta_CP, grad_CP, sizes, max_rows, operations)
        self.prediction = prediction_of(settings.kernel, operations)
        self.strength = settings.repulsion_scale / num_rows
        self.prior = 1.0 / (num_rows * settings.prior_sigma**2)
        width = max_rows * self.prediction.per_row(sizes[-1])
        self.room = theta_CP.new_empty(settings.members * width)
        self.figures_MF = theta_CP.new_zeros(settings.members, FIGURES, dtype=torch.float64)
        self.bandwidth = theta_CP.new_zeros((), dtype=torch.float64)
        self.spread = theta_CP.new_zeros((), dtype=torch.float64)

    def __call__(self, batch: Batch) -> None:
        """Fill gradients and figures; the latter are zero where other workers have the member."""
        bounds = self.settings.log_variance_bounds

        def predict(group: slice) -> Tensor:
            outputs_CBO = self.networks.forward(group, batch.x_BF)
            return self.prediction.predict(outputs_CBO, batch.target_B, bounds)

        per_row = self.prediction.per_row(self.networks.num_outputs)
        repulsion = repel(self.gather(predict, len(batch.x_BF) * per_row), self.strength)
        self.bandwidth.copy_(repulsion.bandwidth)
        self.spread.copy_(repulsion.spread)
        self.figures_MF.zero_()
        for group in self.networks.groups():
            self._fill_group(group, batch, repulsion.force_MD[self._place(group)])

    def log_densities(self, rows: Rows) -> Tensor:
        """Log density [M, B] of each row's target by each member of all workers."""
        bounds, x_BF, target_B = self.settings.log_variance_bounds, rows.x_NF, rows.target_N

        def of_group(group: slice) -> Tensor:
            outputs_CBO = self.networks.forward(group, x_BF)
            return log_density(outputs_CBO, target_B.expand(len(outputs_CBO), -1), bounds)

        return self.gather(of_group, len(x_BF))

    def gather(self, of_group: Callable[[slice], Tensor], width: int) -> Tensor:
        """A row of numbers for each member of all workers, [M, width]; not kept for long."""
        gathered_MD = self.room[: self.settings.members * width].view(-1, width).zero_()
        for group in self.networks.groups():
            gathered_MD[self._place(group)] += of_group(group).flatten(1)
        self.all_reduce(gathered_MD)  # to add zeros changes no bit
        return gathered_MD

    def _place(self, group: slice) -> slice:
        """Of a group of this worker's members among all."""
        return slice(self.numbers.start + group.start, self.numbers.start + group.stop)

    def _fill_group(self, group: slice, batch: Batch, force_CD: Tensor) -> None:
        rows, bounds = len(batch.x_BF), self.settings.log_variance_bounds
        outputs_CBO = self.networks.outputs(group, rows)
        grad_CBO = self.networks.output_gradients(group, rows)
        count, _, num_outputs = grad_CBO.shape
        nll = self.operations.mixture(
            outputs_CBO.view(-1, num_outputs),
            batch.target_B.repeat(count),
            batch.weight_B.repeat(count),
            grad_CBO.view(-1, num_outputs),
            bounds,
        )
        grad_CBO.div_(rows)
        likelihood = torch.linalg.vector_norm(grad_CBO)
        force_CBD = force_CD.to(grad_CBO.dtype).view(count, rows, -1)
        push_CBO = self.prediction.backward(outputs_CBO, batch.target_B, bounds, force_CBD)
        grad_CBO += push_CBO
        self.networks.backward(group, batch.x_BF)
        grad_CP = self.grad_CP[group].add_(self.theta_CP[group], alpha=self.prior)
        norms = (torch.linalg.vector_norm(grad_CP), likelihood, torch.linalg.vector_norm(push_CBO))
        figures = torch.stack([nll, *norms]).double()
        figures[1:].square_()
        self.figures_MF[self._place(group).start] = figures
