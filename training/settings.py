"""Settings of the trained networks; no torch here, so that a study is checked without it."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipeline.formats.records import Record

VariancePrecision = Literal["float32", "tf32", "bfloat16"]
Kernel = Literal["mixture_mean", "nll", "outputs"]


class OptimizerSettings(Record):
    """Adam without weight decay and a learning rate that falls at milestones.

    The rate is a function of the epoch alone, so that nothing of it needs to be saved.

    Attributes:
        learning_rate: Before the first milestone.
        milestones: Completed epochs after which the rate is multiplied by gamma.
        gamma: The factor of each milestone.
    """

    learning_rate: PositiveFloat = 1e-4
    milestones: tuple[NonNegativeInt, ...] = (25, 100)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _milestones_rise(self) -> Self:
        if any(late <= early for early, late in pairwise(self.milestones)):
            msg = f"milestones must rise, got {list(self.milestones)}"
            raise ValueError(msg)
        return self

    def rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        passed = sum(milestone <= epoch for milestone in self.milestones)
        return float(self.learning_rate * self.gamma**passed)


class NetworkSettings(Record):
    """What all networks with a Gaussian-mixture output share; defaults of arXiv 2412.04370.

    Attributes:
        features: Inputs, a subset of the dataset's features; None means all of them.
        hidden: Units of each hidden layer.
        components: Gaussians of the mixture.
        prior_sigma: Width of the Gaussian prior.
        log_variance_bounds: Limits of the mixture's own log sigma^2, in (log10 of the target)^2.
        epochs: Passes over the training rows.
        batch_rows: Rows of a global batch, over all workers.
        steps_per_epoch: Updates that count as an epoch, on rows from an endless row of
            permutations; all batches are full. None: an epoch is one pass over the rows.
        memory_mib: What each worker may use for rows, in MiB. If training and validation rows
            need more they are streamed from disk, row group by row group. It belongs to the model
            and not to the site, because it then decides which rows are shuffled together.
        optimizer: How the weights are updated.
    """

    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64, 64, 64)
    components: PositiveInt = 3
    prior_sigma: PositiveFloat = 1.0
    log_variance_bounds: tuple[
        Annotated[float, Field(ge=-40, le=20)], Annotated[float, Field(ge=-40, le=20)]
    ] = (-14.0, 0.0)
    epochs: PositiveInt = 150
    batch_rows: PositiveInt = 4096
    # not written where it is not set: models from before it existed stay up to date
    steps_per_epoch: PositiveInt | None = Field(
        default=None, exclude_if=lambda steps: steps is None
    )
    memory_mib: PositiveFloat = 4096.0
    optimizer: OptimizerSettings = OptimizerSettings()

    @model_validator(mode="after")
    def _bounds_and_names(self) -> Self:
        low, high = self.log_variance_bounds
        if low >= high:
            msg = f"log_variance_bounds must be (low, high) with low < high, got ({low}, {high})"
            raise ValueError(msg)
        if self.features is not None and len(set(self.features)) < len(self.features):
            msg = f"features must differ, got {list(self.features)}"
            raise ValueError(msg)
        return self

    def rows_of_epoch(self, num_rows: int) -> int:
        """The rows that an epoch sees of a training set of so many."""
        return num_rows if self.steps_per_epoch is None else self.steps_per_epoch * self.batch_rows

    def updates(self, num_rows: int) -> int:
        """The steps of a whole training on so many rows."""
        return self.epochs * -(-self.rows_of_epoch(num_rows) // self.batch_rows)


class BnnSettings(NetworkSettings):
    """A Bayesian network; its weights have the prior, its biases none.

    Attributes:
        samples: Weight sets that are drawn once and exported.
        initial_log_variance: Where log sigma^2 of the weights starts.
        estimator: How a step draws weights. "local_reparametrisation": fresh ones for every row.
            "antithetic": one set for each 128 rows, in pairs of mean + noise and mean - noise;
            about half the arithmetic and a noisier gradient.
        variance_precision: Of the products that make the noise's width, with local
            reparametrisation. tf32 differs from float32 on a GPU alone.
    """

    kind: Literal["bnn"] = "bnn"
    samples: PositiveInt = 50
    initial_log_variance: Annotated[float, Field(ge=-30, le=10)] = -9.0
    estimator: Literal["local_reparametrisation", "antithetic"] = "local_reparametrisation"
    variance_precision: VariancePrecision = "float32"

    @property
    def num_networks(self) -> int:
        """Networks that are exported."""
        return self.samples


class RepulsiveEnsembleSettings(NetworkSettings):
    """Networks that are trained side by side and repel each other (Eq. 36).

    All weights and biases have the prior.

    Attributes:
        members: How many networks.
        repulsion_scale: Factor of the repulsive term. 1 is the paper's, which is some 1e-6 of the
            likelihood's gradient; 0 a plain ensemble of networks with a prior.
        kernel: What tells how far two members are apart, over all rows of a batch: the mean of
            the mixture, the rows' NLL, or the raw outputs, where equal densities whose components
            stand in another order look far apart.
    """

    kind: Literal["repulsive_ensemble"] = "repulsive_ensemble"
    members: PositiveInt = 50
    repulsion_scale: NonNegativeFloat = 1.0
    kernel: Kernel = "mixture_mean"

    @property
    def num_networks(self) -> int:
        """Networks that are exported."""
        return self.members


ModelSettings = Annotated[BnnSettings | RepulsiveEnsembleSettings, Field(discriminator="kind")]
