"""One network without noise as the training loop sees it: a density, a regression or a classifier.

Every worker takes its blocks of each global batch, as for a Bayesian network.

Shape letters: B rows, C figures of a step, O outputs, P parameters.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training.data.rows import RowSource, TrainingRows
from training.data.training_data import TrainingData
from training.losses.density_nll import log_density
from training.losses.point import CrossEntropy, LeakyKernel, PointLoss
from training.networks import mlp
from training.settings import (
    Activation,
    DnnSettings,
    MixtureDensitySettings,
    NetworkSettings,
    PointSettings,
)
from training.steps.noise import plan_epoch
from training.steps.operations import Operations, operations_on
from training.steps.sampled import Step
from training.steps.sums import GradientSums
from training.steps.weight_sets import SWISH, Loss, PlainStep, mixture_loss, rectified
from training.worker import Worker


class PlainNetwork(ABC):
    """One network, the same in each worker; its subclasses say with which loss."""

    numbers = range(1)
    num_networks = 1
    shares_rows = True
    score = "loss"
    figures: tuple[str, ...] = ()
    activation: Activation = "relu"

    def __init__(
        self, data: TrainingData, settings: NetworkSettings, *, seed: int, worker: Worker
    ) -> None:
        self.settings, self.seed, self.worker, self.data = settings, seed, worker, data
        self.num_rows = len(data.train)
        self.sizes = (data.train.num_features, *settings.hidden, self._num_outputs())
        rows = settings.rows_of_epoch(self.num_rows)
        self.plan = plan_epoch(rows, settings.batch_rows, worker.rank, worker.world_size)
        theta_P = self._initial(seed).to(worker.device)
        self.sums = GradientSums.of(torch.zeros(len(theta_P) + 2, device=worker.device))
        self.theta_P, self.networks = theta_P, [theta_P.detach().requires_grad_()]
        self.networks[0].grad = self.sums.gradient_P
        self.fill: Step = self._make_step(max(step.rows for step in self.plan))

    def _make_step(self, max_rows: int) -> Step:
        """What fills the sums with a worker's share of a batch, of at most so many rows."""
        operations = operations_on(self.worker.device, fuse=self.worker.fuse)
        return PlainStep(
            self.theta_P,
            self.sums,
            self.sizes,
            max_rows,
            units=rectified(operations) if self.activation == "relu" else SWISH,
            loss=self._make_loss(operations),
        )

    def _initial(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(seed, "initial weights"))
        return mlp.initial_member(self.sizes, generator)

    @abstractmethod
    def _num_outputs(self) -> int:
        """Outputs of the network for a row."""

    @abstractmethod
    def _make_loss(self, operations: Operations) -> Loss:
        """The summed loss of a step, with its gradient."""

    @abstractmethod
    def _loss_of_rows(self, outputs_BO: Tensor, target_B: Tensor) -> Tensor:
        """The loss [B] of each row, for validation."""

    def _outputs(self, rows: TrainingRows) -> Tensor:
        """Outputs [B, O] of the network."""
        layers = mlp.split_member(self.theta_P, self.sizes)
        return mlp.forward_fixed(layers, rows.x_NF, self.activation)

    def renewed_at(self, epoch: int) -> Sequence[Tensor]:
        """None: there is one stage."""
        del epoch
        return ()

    def start_epoch(self, epoch: int) -> None:
        """The loss is the same in all epochs."""
        del epoch

    def reduce_gradients(self, batch_rows: int, figures_C: Tensor) -> None:
        """The gradient of the mean loss of the global batch."""
        grad_P = self.sums.gradient_P.div_(batch_rows)
        self._add_prior(grad_P)
        figures_C[0] = self.sums.loss
        figures_C[1] = torch.linalg.vector_norm(grad_P)

    def _add_prior(self, grad_P: Tensor) -> None:
        """Add the gradient of a prior's term; there is none."""
        del grad_P

    def describe(self) -> dict[str, float]:
        """No figures: the loss tells all there is of one network."""
        return {}

    @torch.no_grad()
    def validate(self, rows: RowSource) -> Tensor:
        """The loss with what it is in the epoch, each worker on its rows."""
        total = torch.zeros((), dtype=torch.float64, device=self.theta_P.device)
        for slab in rows.slabs(self.worker.rank, self.worker.world_size):
            for part in slab.pieces(self.plan[0].batch_rows):
                loss_B = self._loss_of_rows(self._outputs(part), part.target_N)
                weighted_B = loss_B if part.weight_N is None else part.weight_N * loss_B
                total += weighted_B.sum(dtype=torch.float64)
        self.worker.all_reduce(total)
        return total


class PointNetwork(PlainNetwork):
    """A network with one output; its subclasses say with which loss."""

    settings: PointSettings

    def __init__(
        self,
        data: TrainingData,
        settings: PointSettings,
        *,
        seed: int,
        worker: Worker,
    ) -> None:
        self.settings, self.activation = settings, settings.activation
        self.loss = self._make_point_loss(torch.zeros((), device=worker.device))
        super().__init__(data, settings, seed=seed, worker=worker)

    @abstractmethod
    def _make_point_loss(self, like: Tensor) -> PointLoss:
        """The loss, on the device of a tensor."""

    def _num_outputs(self) -> int:
        return 1

    def _make_loss(self, operations: Operations) -> Loss:
        del operations  # it is written out in torch
        return self.loss

    def _loss_of_rows(self, outputs_BO: Tensor, target_B: Tensor) -> Tensor:
        return self.loss.of_rows(outputs_BO[:, 0], target_B)

    def start_epoch(self, epoch: int) -> None:
        """The loss of the epoch's stage."""
        self.loss.start_epoch(epoch)


class Regression(PointNetwork):
    """Predicts one value of the target."""

    settings: DnnSettings

    def _initial(self, seed: int) -> Tensor:
        theta_P = super()._initial(seed)
        if self.settings.output == "log10":
            # the loss is exponential in such an output: begin close to a ratio of 1
            mlp.split_member(theta_P, self.sizes)[-1].weight_OF.mul_(0.1)
        return theta_P

    def _make_point_loss(self, like: Tensor) -> LeakyKernel:
        return LeakyKernel(self.settings, like)


class Classifier(PointNetwork):
    """Predicts the probability of a label."""

    def _make_point_loss(self, like: Tensor) -> CrossEntropy:
        del like  # it has nothing of its own on a device
        return CrossEntropy()


class DensityNetwork(PlainNetwork):
    """Predicts a density of log10 of the target; a Gaussian mixture if not in a subclass."""

    settings: MixtureDensitySettings
    score = "nll"

    def _num_outputs(self) -> int:
        return self.settings.num_outputs

    def _make_loss(self, operations: Operations) -> Loss:
        return mixture_loss(operations, self.settings.log_variance_bounds)

    def _loss_of_rows(self, outputs_BO: Tensor, target_B: Tensor) -> Tensor:
        return -log_density(outputs_BO, target_B, self.settings.log_variance_bounds)

    def _add_prior(self, grad_P: Tensor) -> None:
        """Of |theta|^2 / (2 N sigma^2), if there is a prior."""
        if self.settings.prior_sigma is not None:
            scale = 1.0 / (self.num_rows * self.settings.prior_sigma**2)
            grad_P.add_(self.theta_P, alpha=scale)

    def describe(self) -> dict[str, float]:
        """The prior's term of the loss, if there is a prior."""
        if self.settings.prior_sigma is None:
            return {}
        scale = 2.0 * self.num_rows * self.settings.prior_sigma**2
        return {"prior": self.theta_P.double().square().sum().item() / scale}
