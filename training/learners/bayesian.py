"""The Bayesian network as the training loop sees it.

Every worker takes its blocks of each global batch. The gradient is the sum of the workers' sums
over the rows of the batch; the KL term is added by each worker alike, so all workers keep the
same parameters.

Shape letters: P parameters, W weights, C figures of a step.

Its validation loss is the NLL of the density averaged over drawn weight sets, as it will be used.

Shape letters: S weight sets, F features, O outputs.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training.data.rows import RowSource, TrainingRows
from training.data.training_data import TrainingData
from training.losses.density_nll import log_density
from training.networks import mlp
from training.networks.mlp import FixedLayer, Layer, draw_weights, forward_fixed
from training.settings import BnnSettings
from training.steps.noise import BLOCK_ROWS, plan_epoch
from training.steps.operations import operations_on
from training.steps.sampled import SampledStep, Step
from training.steps.sums import GradientSums
from training.steps.weight_sets import PairedStep
from training.worker import Worker

WEIGHT_SETS = 8
CPU_ROWS, GPU_ROWS = BLOCK_ROWS, 128 * BLOCK_ROWS  # of one forward pass


@torch.no_grad()
def validation_nll(
    layers: Sequence[Layer], slabs: Iterable[TrainingRows], bounds: tuple[float, float], seed: int
) -> Tensor:
    """The sum over rows of weight times NLL of the density averaged over eight weight sets.

    The sets are drawn with the same numbers in each epoch, so that epochs differ by the
    posterior alone.

    Args:
        layers: The posterior.
        slabs: Rows, on the device of the layers.
        bounds: Limits of the components' log sigma^2.
        seed: Of the training.
    """
    device = layers[0].mean_OF.device
    sets = stack_sets(layers, seed)
    total = torch.zeros((), dtype=torch.float64, device=device)
    rows = CPU_ROWS if device.type == "cpu" else GPU_ROWS
    for slab in slabs:
        for part in slab.pieces(rows):
            outputs_SBO = forward_fixed(sets, part.x_NF.unsqueeze(0))
            target_SB = part.target_N.expand(WEIGHT_SETS, -1)
            log_p_SB = log_density(outputs_SBO, target_SB, bounds)
            log_p_B = torch.logsumexp(log_p_SB, dim=0) - math.log(WEIGHT_SETS)
            weighted_B = log_p_B if part.weight_N is None else part.weight_N * log_p_B
            total -= weighted_B.sum(dtype=torch.float64)
    return total


def stack_sets(layers: Sequence[Layer], seed: int) -> list[FixedLayer]:
    """The drawn weights [S, O, F] of each layer, and its biases with two axes in front."""
    there = [Layer(*(tensor.detach().cpu() for tensor in layer)) for layer in layers]
    sets = [
        draw_weights(there, torch.Generator().manual_seed(derive_seed(seed, "validation", index)))
        for index in range(WEIGHT_SETS)
    ]
    device = layers[0].mean_OF.device
    return [
        FixedLayer(
            torch.stack([layer.weight_OF for layer in drawn]).to(device),
            drawn[0].bias_O.to(device),
        )
        for drawn in zip(*sets, strict=True)
    ]


QUANTILES = (0.05, 0.5, 0.95)  # of the weights' log sigma^2, in the history


class BayesianNetwork:
    """A network with Gaussian weights, the same in each worker."""

    numbers = range(1)
    num_networks = 1
    shares_rows = True
    score = "nll"
    figures: tuple[str, ...] = ()

    def __init__(
        self, data: TrainingData, settings: BnnSettings, *, seed: int, worker: Worker
    ) -> None:
        self.settings, self.seed, self.worker, self.data = settings, seed, worker, data
        self.num_rows = len(data.train)
        self.sizes = (data.train.num_features, *settings.hidden, settings.num_outputs)
        self.num_weights = mlp.count_weights(self.sizes)
        rows = settings.rows_of_epoch(self.num_rows)
        self.plan = plan_epoch(rows, settings.batch_rows, worker.rank, worker.world_size)
        generator = torch.Generator().manual_seed(derive_seed(seed, "initial weights"))
        theta_P = self._initial(generator).to(worker.device)
        self.sums = GradientSums.of(torch.zeros(len(theta_P) + 2, device=worker.device))
        self.theta_P, self.networks = theta_P, [theta_P.detach().requires_grad_()]
        self.networks[0].grad = self.sums.gradient_P
        self.fill: Step = self._make_step()

    def _initial(self, generator: torch.Generator) -> Tensor:
        """Parameters [P] before the first step."""
        return mlp.initial_parameters(self.sizes, self.settings.initial_log_variance, generator)

    def renewed_at(self, epoch: int) -> Sequence[Tensor]:
        """None: there is one stage."""
        del epoch
        return ()

    def start_epoch(self, epoch: int) -> None:
        """The loss is the same in all epochs."""

    def reduce_gradients(self, batch_rows: int, figures_C: Tensor) -> None:
        """The gradient of the mean NLL of the global batch plus KL / N."""
        grad_P = self.sums.gradient_P.div_(batch_rows)
        self._add_kl(grad_P)
        figures_C[0] = self.sums.loss
        figures_C[1] = torch.linalg.vector_norm(grad_P)

    def _add_kl(self, grad_P: Tensor) -> None:
        mlp.add_kl_gradient(
            grad_P,
            self.theta_P,
            num_weights=self.num_weights,
            prior_sigma=self.settings.prior_sigma,
            num_rows=self.num_rows,
        )

    def _kl(self) -> float:
        """KL(q | prior) in nats."""
        kl = mlp.kl_divergence(self.theta_P, self.num_weights, self.settings.prior_sigma)
        return kl.item()

    def _log_variances(self) -> Tensor:
        """Log sigma^2 of all weights [W]."""
        return self.theta_P[self.num_weights : 2 * self.num_weights]

    def describe(self) -> dict[str, float]:
        """KL per row and quantiles of the weights' log sigma^2."""
        levels = torch.tensor(QUANTILES, device=self.theta_P.device)
        spread = torch.quantile(self._log_variances(), levels)
        return {
            "kl": self._kl() / self.num_rows,
            **{
                f"log_variance_q{100 * level:02.0f}": value
                for level, value in zip(QUANTILES, spread.tolist(), strict=True)
            },
        }

    def validate(self, rows: RowSource) -> Tensor:
        """The NLL of the density averaged over drawn weight sets, each worker on its rows."""
        slabs = rows.slabs(self.worker.rank, self.worker.world_size)
        total = torch.zeros((), dtype=torch.float64, device=self.theta_P.device)
        total += self._validation_nll(slabs)
        self.worker.all_reduce(total)
        return total

    def _validation_nll(self, slabs: Iterable[TrainingRows]) -> Tensor:
        layers = mlp.split_parameters(self.theta_P, self.sizes)
        return validation_nll(layers, slabs, self.settings.log_variance_bounds, self.seed)

    def _make_step(self) -> Step:
        operations = operations_on(self.worker.device, fuse=self.worker.fuse)
        rows, bounds = max(step.rows for step in self.plan), self.settings.log_variance_bounds
        if self.settings.estimator == "antithetic":
            return PairedStep(
                self.theta_P, self.sums, self.sizes, rows, bounds=bounds, operations=operations
            )
        return SampledStep(
            self.theta_P,
            self.sums,
            self.sizes,
            rows,
            bounds=bounds,
            operations=operations,
            precision=self.settings.variance_precision,
        )
