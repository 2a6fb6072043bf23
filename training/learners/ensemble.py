"""The repulsive ensemble as the training loop sees it.

The workers share the members, not the rows: each sees all rows of a batch. What a member becomes
follows from its number alone, and not from the worker that has it.

Shape letters: M all members, C this worker's, B rows, P parameters, F figures.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training.data.rows import RowSource, TrainingRows
from training.data.training_data import TrainingData
from training.networks import mlp
from training.settings import RepulsiveEnsembleSettings
from training.steps.members import FIGURES, EnsembleStep, MembersStep, aligned_rows
from training.steps.noise import plan_epoch
from training.steps.operations import operations_on
from training.steps.sampled import Batch
from training.steps.sums import MemberSums
from training.worker import Worker


def share_members(members: int, rank: int, world_size: int) -> range:
    """The numbers of a worker's members; workers may have unequal numbers of them."""
    return range(rank * members // world_size, (rank + 1) * members // world_size)


class RepulsiveEnsemble:
    """The members of a repulsive ensemble that this worker has."""

    shares_rows = False
    score = "nll"
    figures: tuple[str, ...] = ("repulsion_ratio", "bandwidth", "spread")

    def __init__(
        self,
        data: TrainingData,
        settings: RepulsiveEnsembleSettings,
        *,
        seed: int,
        worker: Worker,
    ) -> None:
        self.settings, self.worker, self.data = settings, worker, data
        self.num_rows, self.num_networks = len(data.train), settings.members
        self.numbers = share_members(settings.members, worker.rank, worker.world_size)
        self.sizes = (data.train.num_features, *settings.hidden, settings.num_outputs)
        rows = settings.rows_of_epoch(self.num_rows)
        self.plan = plan_epoch(rows, settings.batch_rows, rank=0, world_size=1)
        start_CP = self._initial(seed).to(worker.device)
        count, width = start_CP.shape
        self.theta_CP = aligned_rows(count, width, start_CP).copy_(start_CP)
        grad_CP = aligned_rows(count, width, start_CP)
        self.networks = [theta_P.detach().requires_grad_() for theta_P in self.theta_CP]
        for theta_P, grad_P in zip(self.networks, grad_CP, strict=True):
            theta_P.grad = grad_P  # each its own, so that Adam's loops begin anew with each
        zeros = torch.zeros(
            FIGURES * settings.members + 1, dtype=torch.float64, device=worker.device
        )
        self.sums = MemberSums.of(zeros, FIGURES)
        self.step: MembersStep = self._make_step(grad_CP)

    def _make_step(self, grad_CP: Tensor) -> MembersStep:
        """What fills the members' gradients [C, P]."""
        return EnsembleStep(
            self.theta_CP,
            grad_CP,
            self.sizes,
            self.plan[0].rows,
            settings=self.settings,
            num_rows=self.num_rows,
            numbers=self.numbers,
            all_reduce=self.worker.all_reduce,
            operations=operations_on(self.worker.device, fuse=self.worker.fuse),
        )

    def _initial(self, seed: int) -> Tensor:
        return torch.stack([
            self._initial_member(
                torch.Generator().manual_seed(derive_seed(seed, "initial weights", number))
            )
            for number in self.numbers
        ])

    def _initial_member(self, generator: torch.Generator) -> Tensor:
        return mlp.initial_member(self.sizes, generator)

    def renewed_at(self, epoch: int) -> Sequence[Tensor]:
        """None: there is one stage."""
        del epoch
        return ()

    def start_epoch(self, epoch: int) -> None:
        """The loss is the same in all epochs."""

    def fill(self, batch: Batch) -> None:
        """Fill the members' gradients and their part of the sums."""
        self.step(batch)
        self.sums.figures_MF.copy_(self.step.figures_MF)

    def reduce_gradients(self, batch_rows: int, figures_C: Tensor) -> None:
        """The figures; the gradient is complete."""
        del batch_rows
        nll, *squares = self.sums.figures_MF.sum(dim=0)
        total, likelihood, repulsion = (square.sqrt() for square in squares)
        tiny = torch.finfo(torch.float64).tiny
        figures_C[0] = nll / self.settings.members
        figures_C[1] = total
        figures_C[2] = repulsion / likelihood.clamp(min=tiny)
        figures_C[3] = self.step.bandwidth
        figures_C[4] = self.step.spread

    def describe(self) -> dict[str, float]:
        """The prior's term of the loss, |theta|^2 / (2 N sigma^2), averaged over the members."""
        squares_M = torch.zeros_like(self.sums.buffer[: self.settings.members])
        for number, theta_P in zip(self.numbers, self.theta_CP, strict=True):
            squares_M[number] = theta_P.double().square().sum()
        self.worker.all_reduce(squares_M)
        scale = 2.0 * self.num_rows * self.settings.prior_sigma**2
        return {"prior": squares_M.mean().item() / scale}

    @torch.no_grad()
    def validate(self, rows: RowSource) -> Tensor:
        """The NLL of the density averaged over all members."""
        total = torch.zeros((), dtype=torch.float64, device=self.worker.device)
        for slab in rows.slabs(0, 1):
            for part in slab.pieces(self.plan[0].rows):
                total -= self._log_density(part)
        return total

    def _log_density(self, part: TrainingRows) -> Tensor:
        """The sum over rows of weight times log of the averaged density."""
        log_p_MB = self.step.log_densities(part)
        log_p_B = torch.logsumexp(log_p_MB, dim=0) - math.log(self.settings.members)
        weighted_B = log_p_B if part.weight_N is None else part.weight_N * log_p_B
        return weighted_B.sum(dtype=torch.float64)
