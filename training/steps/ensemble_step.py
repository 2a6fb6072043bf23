"""Gradient and loss of a worker's members of a repulsive ensemble (arXiv 2412.04370, Eq. 36).

The loss is the sum over members of mean NLL + repulsion_scale / N times the repulsive term +
|theta|^2 / (2 N sigma^2), N being the number of training rows. Members feel each other through
the values of their predictions alone: those of all members are gathered, then every worker does
the same small algebra on them and takes its members' part.

Shape letters: M all members, C some of this worker's, B rows, O outputs (3K), F figures, P
parameters.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.settings import RepulsiveEnsembleSettings
from training.steps.members import MemberNetworks
from training.steps.operations import Operations
from training.steps.repulsion import prediction_of, repel
from training.steps.sampled import Batch

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
        push_CBO = self.prediction.pull_back(outputs_CBO, batch.target_B, bounds, force_CBD)
        grad_CBO += push_CBO
        self.networks.backward(group, batch.x_BF)
        grad_CP = self.grad_CP[group].add_(self.theta_CP[group], alpha=self.prior)
        norms = (torch.linalg.vector_norm(grad_CP), likelihood, torch.linalg.vector_norm(push_CBO))
        figures = torch.stack([nll, *norms]).double()
        figures[1:].square_()
        self.figures_MF[self._place(group).start] = figures
