"""A network with one output as the training loop sees it: a regression or a classifier.

Every worker takes its blocks of each global batch, as for a Bayesian network; there is no noise
and no prior.

Shape letters: B rows, C figures of a step, P parameters.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training.data.rows import RowSource
from training.data.training_data import TrainingData
from training.losses.point import CrossEntropy, LeakyKernel, PointLoss
from training.networks import mlp
from training.settings import DnnSettings, TaggerSettings
from training.steps.noise import plan_epoch
from training.steps.operations import operations_on
from training.steps.sums import GradientSums
from training.steps.weight_sets import SWISH, PlainStep, rectified
from training.worker import Worker


class PlainNetwork(ABC):
    """One network, the same in each worker; its subclasses say with which loss."""

    numbers = range(1)
    num_networks = 1
    shares_rows = True
    score = "loss"
    figures: tuple[str, ...] = ()

    def __init__(
        self,
        data: TrainingData,
        settings: DnnSettings | TaggerSettings,
        *,
        seed: int,
        worker: Worker,
    ) -> None:
        self.settings, self.worker = settings, worker
        self.sizes = (data.train.num_features, *settings.hidden, 1)
        rows = settings.rows_of_epoch(len(data.train))
        self.plan = plan_epoch(rows, settings.batch_rows, worker.rank, worker.world_size)
        theta_P = self._initial(seed).to(worker.device)
        self.loss = self._make_loss(theta_P)
        self.sums = GradientSums.of(torch.zeros(len(theta_P) + 2, device=worker.device))
        self.theta_P, self.networks = theta_P, [theta_P.detach().requires_grad_()]
        self.networks[0].grad = self.sums.gradient_P
        operations = operations_on(worker.device, fuse=worker.fuse)
        self.fill = PlainStep(
            theta_P,
            self.sums,
            self.sizes,
            max(step.rows for step in self.plan),
            units=rectified(operations) if settings.activation == "relu" else SWISH,
            loss=self.loss,
        )

    def _initial(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(seed, "initial weights"))
        return mlp.initial_member(self.sizes, generator)

    @abstractmethod
    def _make_loss(self, like: Tensor) -> PointLoss:
        """The loss, on the device of a tensor."""

    def start_epoch(self, epoch: int) -> None:
        """The loss of the epoch's stage."""
        self.loss.start_epoch(epoch)

    def reduce_gradients(self, batch_rows: int, figures_C: Tensor) -> None:
        """The gradient of the mean loss of the global batch."""
        grad_P = self.sums.gradient_P.div_(batch_rows)
        figures_C[0] = self.sums.loss
        figures_C[1] = torch.linalg.vector_norm(grad_P)

    def describe(self) -> dict[str, float]:
        """No figures: the loss tells all there is of one network."""
        return {}

    @torch.no_grad()
    def validate(self, rows: RowSource) -> Tensor:
        """The loss with what it is in the epoch, each worker on its rows."""
        layers = mlp.split_member(self.theta_P, self.sizes)
        total = torch.zeros((), dtype=torch.float64, device=self.theta_P.device)
        for slab in rows.slabs(self.worker.rank, self.worker.world_size):
            for part in slab.pieces(self.plan[0].batch_rows):
                output_B = mlp.forward_fixed(layers, part.x_NF, self.settings.activation)[:, 0]
                loss_B = self.loss.of_rows(output_B, part.target_N)
                weighted_B = loss_B if part.weight_N is None else part.weight_N * loss_B
                total += weighted_B.sum(dtype=torch.float64)
        self.worker.all_reduce(total)
        return total


class Regression(PlainNetwork):
    """Predicts one value of the target."""

    settings: DnnSettings

    def _initial(self, seed: int) -> Tensor:
        theta_P = super()._initial(seed)
        if self.settings.output == "log10":
            # the loss is exponential in such an output: begin close to a ratio of 1
            mlp.split_member(theta_P, self.sizes)[-1].weight_OF.mul_(0.1)
        return theta_P

    def _make_loss(self, like: Tensor) -> LeakyKernel:
        return LeakyKernel(self.settings, like)


class Classifier(PlainNetwork):
    """Predicts the probability of a label."""

    def _make_loss(self, like: Tensor) -> CrossEntropy:
        del like  # it has nothing of its own on a device
        return CrossEntropy()
