"""Settings of the trained networks; no torch here, so that a study is checked without it."""

import itertools
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.formats.families import FAMILIES, GAUSSIAN_MIXTURE
from pipeline.formats.records import ModelSettings, Record

VariancePrecision = Literal["float32", "tf32", "bfloat16"]
Kernel = Literal["mixture_mean", "nll", "outputs"]
Activation = Literal["relu", "swish"]


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
        if any(late <= early for early, late in itertools.pairwise(self.milestones)):
            msg = f"milestones must rise, got {list(self.milestones)}"
            raise ValueError(msg)
        return self

    def rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        passed = sum(milestone <= epoch for milestone in self.milestones)
        return float(self.learning_rate * self.gamma**passed)


class DeepSetsSettings(Record):
    """A network for each element of a table of lists, the sums of whose outputs are a row's inputs.

    Deep Sets (Zaheer et al., arXiv 1703.06114): the order of the elements does not matter. All
    elements share its weights, which are therefore plain in a Bayesian network too.

    Attributes:
        table: Of lists in the dataset; all its columns are taken.
        hidden: Units of each hidden layer.
        outputs: Numbers that are summed over the elements.
    """

    kind: Literal["deep_sets"] = "deep_sets"
    table: str
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32,)
    outputs: PositiveInt = 16


class NetworkSettings(ModelSettings):
    """What all networks share.

    Attributes:
        features: Inputs of one number a row, a subset of the dataset's features; None means all of
            these.
        hidden: Units of each hidden layer.
        batch_rows: Rows of a global batch, over all workers.
        steps_per_epoch: Updates that count as an epoch, on rows sampled without replacement, one
            pass after another; all batches are full. None: an epoch is one pass over the rows.
        memory_mib: What each worker may use for rows, in MiB. If training and validation rows
            need more they are streamed from disk, row group by row group. It belongs to the model
            and not to the site, because it then decides which rows are shuffled together.
        optimizer: How the weights are updated.
    """

    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64, 64, 64)
    batch_rows: PositiveInt = 4096
    # not written where it is not set: models from before it existed stay up to date
    steps_per_epoch: PositiveInt | None = Field(
        default=None, exclude_if=lambda steps: steps is None
    )
    memory_mib: PositiveFloat = 4096.0
    optimizer: OptimizerSettings = OptimizerSettings()
    only_log_ratio: ClassVar[bool] = True  # unless a kind knows how to scale another target

    @model_validator(mode="after")
    def _features_differ(self) -> Self:
        if self.features is not None and len(set(self.features)) < len(self.features):
            msg = f"features must differ, got {list(self.features)}"
            raise ValueError(msg)
        return self

    if TYPE_CHECKING:  # a field here would change the order of keys in the files

        @property
        def epochs(self) -> int:
            """Passes over the training rows, in all stages."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables of lists that are inputs too."""
        return ()

    @property
    def num_networks(self) -> int:
        """Networks that are exported, and averaged if there are several."""
        return 1

    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences for the log about choices that are allowed and seldom meant."""
        return ()

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Completed epochs at the end of each part of the training with settings of its own."""
        return (self.epochs,)

    def in_stage(self, stage: int) -> Self:
        """The settings that hold in one of those parts."""
        del stage
        return self

    def rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.optimizer.rate_at(epoch)

    def rows_of_epoch(self, num_rows: int) -> int:
        """The rows that an epoch sees of a training set of so many."""
        return num_rows if self.steps_per_epoch is None else self.steps_per_epoch * self.batch_rows


class DensitySettings(NetworkSettings):
    """What all networks whose output is a density share; defaults of arXiv 2412.04370.

    A network of several targets gives the parameters of each one's density, one after the other,
    and its loss is the sum of theirs: given the features, the targets are taken as independent.

    Attributes:
        family: Of the density of the transformed target: "gaussian_mixture" or "split_normal", two
            half Gaussians about one mode.
        encoder: Networks before the hidden layers, one for each table of lists that is an input;
            one may be written without brackets.
        components: Gaussians of a mixture.
        autocast: "bfloat16": the network is trained by automatic gradient, and its products have so
            few digits, which is faster on a GPU; loss and updates stay float32.
        log_variance_bounds: Limits of the density's own log sigma^2: of log10 of a target, of any
            other in units of its standard deviation among the training rows.
        epochs: Passes over the training rows.
    """

    predicts_several: ClassVar[bool] = True
    only_log_ratio: ClassVar[bool] = False

    # not written where it is not set: models from before it existed stay up to date
    family: str = Field(default=GAUSSIAN_MIXTURE.name, exclude_if=GAUSSIAN_MIXTURE.name.__eq__)

    encoder: tuple[DeepSetsSettings, ...] = Field(default=(), exclude_if=lambda each: not each)
    components: PositiveInt = 3
    autocast: Literal["bfloat16"] | None = Field(default=None, exclude_if=lambda each: each is None)
    log_variance_bounds: tuple[
        Annotated[float, Field(ge=-40, le=20)], Annotated[float, Field(ge=-40, le=20)]
    ] = (-14.0, 0.0)
    epochs: PositiveInt = 150

    @field_validator("family")
    @classmethod
    def _family_is_known(cls, family: str) -> str:
        if family not in FAMILIES:
            msg = f"expected one of {', '.join(FAMILIES)}"
            raise ValueError(msg)
        return family

    @model_validator(mode="before")
    @classmethod
    def _single_density_has_one_component(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("family") in FAMILIES:
            has_components = FAMILIES[given["family"]].has_components
            return given if has_components else {"components": 1, **given}
        return given

    @field_validator("encoder", mode="before")
    @classmethod
    def _one_or_several_encoders(cls, given: object) -> object:
        return (given,) if isinstance(given, dict) else given

    @field_validator("encoder")
    @classmethod
    def _tables_differ(cls, encoder: tuple[DeepSetsSettings, ...]) -> tuple[DeepSetsSettings, ...]:
        names = [each.table for each in encoder]
        if len(set(names)) < len(names):
            msg = f"each table has one encoder, got {names}"
            raise ValueError(msg)
        return encoder

    @model_validator(mode="after")
    def _components_make_sense(self) -> Self:
        if self.components > 1 and not FAMILIES[self.family].has_components:
            msg = f"components: a {self.family} has one, got {self.components}; leave the key out"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        low, high = self.log_variance_bounds
        if low >= high:
            msg = f"log_variance_bounds must be (low, high) with low < high, got ({low}, {high})"
            raise ValueError(msg)
        return self

    @property
    def is_handwritten(self) -> bool:
        """Whether it is trained by a step written for it, and not by automatic gradient."""
        is_usual = self.family == GAUSSIAN_MIXTURE.name and self.num_targets == 1
        return is_usual and not self.encoder and self.autocast is None

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables of lists that are inputs too."""
        return tuple(each.table for each in self.encoder)

    @property
    def num_targets(self) -> int:
        """Number T of targets that a network predicts."""
        return len(self.targets or ("the only one",))

    @property
    def target_outputs(self) -> int:
        """Numbers P that a network gives for a row and target."""
        return FAMILIES[self.family].num_outputs(self.components)

    @property
    def num_outputs(self) -> int:
        """Numbers that a network gives for a row, T x P."""
        return self.num_targets * self.target_outputs

    def updates(self, num_rows: int) -> int:
        """The steps of a whole training on so many rows."""
        total, before = 0, 0
        for number, end in enumerate(self.stage_ends):
            rows = self.in_stage(number).batch_rows
            total += (end - before) * -(-self.rows_of_epoch(num_rows) // rows)
            before = end
        return total


Part = Literal["hidden", "output"]


class DensityStage(Record):
    """A part of the training of a density.

    Attributes:
        epochs: Passes over the training rows.
        loss: "nll", or "squared_error": that of the density's location, of a mixture its mean, in
            the transformed target; it leaves the widths as they are.
        trained: The parts of the network that are trained; the others keep their values.
        batch_rows: Instead of the network's own.
        optimizer: Instead of the network's own; milestones are counted from the stage's start.
    """

    epochs: PositiveInt
    loss: Literal["nll", "squared_error"] = "nll"
    trained: Annotated[tuple[Part, ...], Field(min_length=1)] = get_args(Part)
    batch_rows: PositiveInt | None = None
    optimizer: OptimizerSettings | None = None

    def renewed(self, before: "DensityStage | None") -> tuple[Part, ...]:
        """The parts for which Adam's moments of the stage before mean nothing."""
        if before is None or before.loss != self.loss:
            return self.trained
        return tuple(part for part in self.trained if part not in before.trained)


class MixtureDensitySettings(DensitySettings):
    """One plain network with a density as output (Bishop, NCRG/94/004, 1994), without sigma_stat.

    Attributes:
        prior_sigma: Width of a Gaussian prior of all weights and biases, whose most probable values
            are then trained for; None: those of maximum likelihood.
        stages: Parts of the training, one after the other; none: one of `epochs`. With stages
            `epochs` is their sum.
    """

    kind: Literal["mixture_density"] = "mixture_density"
    prior_sigma: PositiveFloat | None = None
    stages: tuple[DensityStage, ...] = Field(default=(), exclude_if=lambda stages: not stages)

    @model_validator(mode="before")
    @classmethod
    def _epochs_are_those_of_the_stages(cls, given: object) -> object:
        stages = given.get("stages") if isinstance(given, dict) else None
        if not isinstance(given, dict) or not isinstance(stages, list | tuple) or not stages:
            return given
        epochs = [
            stage.get("epochs") if isinstance(stage, dict) else getattr(stage, "epochs", None)
            for stage in stages
        ]
        if not all(isinstance(count, int) for count in epochs):
            return given  # a stage's own check says what is wrong
        total = sum(count for count in epochs if isinstance(count, int))
        if given.get("epochs", total) != total:
            msg = f"epochs: the stages have {total}, got {given['epochs']}; leave the key out"
            raise ValueError(msg)
        return given | {"epochs": total}

    @property
    def is_handwritten(self) -> bool:
        """Whether it is trained by a step written for it."""
        return super().is_handwritten and not self.stages

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Completed epochs at the end of each stage."""
        return tuple(itertools.accumulate(stage.epochs for stage in self.stages)) or (self.epochs,)

    def stage_at(self, epoch: int) -> int:
        """The number of the stage that an epoch, counted from 0, belongs to."""
        return sum(end <= epoch for end in self.stage_ends[:-1])

    def in_stage(self, stage: int) -> Self:
        """The same with the batches of a stage."""
        rows = self.stages[stage].batch_rows if self.stages else None
        return self if rows is None else self.model_copy(update={"batch_rows": rows})

    def rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if not self.stages:
            return super().rate_at(epoch)
        number = self.stage_at(epoch)
        started = (0, *self.stage_ends)[number]
        return (self.stages[number].optimizer or self.optimizer).rate_at(epoch - started)


class BnnSettings(DensitySettings):
    """A Bayesian network; its weights have the prior, its biases none.

    Attributes:
        prior_sigma: Width of the Gaussian prior.
        samples: Weight sets that are drawn once and exported.
        initial_log_variance: Where log sigma^2 of the weights starts.
        estimator: How a step draws weights. "local_reparametrisation": fresh ones for every row.
            "antithetic": one set for each 128 rows, in pairs of mean + noise and mean - noise;
            about half the arithmetic and a noisier gradient.
        variance_precision: Of the products that make the noise's width, with local
            reparametrisation. tf32 differs from float32 on a GPU alone.
        gaussian_layers: The layers whose weights are Gaussian, by number, from the end if negative:
            [-1] is the output layer alone. The others are plain, without prior. None: all.
    """

    kind: Literal["bnn"] = "bnn"
    prior_sigma: PositiveFloat = 1.0
    samples: PositiveInt = 50
    initial_log_variance: Annotated[float, Field(ge=-30, le=10)] = -9.0
    estimator: Literal["local_reparametrisation", "antithetic"] = "local_reparametrisation"
    variance_precision: VariancePrecision = "float32"
    gaussian_layers: Annotated[tuple[int, ...], Field(min_length=1)] | None = Field(
        default=None, exclude_if=lambda layers: layers is None
    )

    @model_validator(mode="after")
    def _gaussian_layers_are_there(self) -> Self:
        count = len(self.hidden) + 1
        absent = [each for each in self.gaussian_layers or () if not -count <= each < count]
        if absent:
            msg = f"gaussian_layers: there are {count} layers, 0 to {count - 1}, got {absent}"
            raise ValueError(msg)
        return self

    @property
    def is_handwritten(self) -> bool:
        """Whether it is trained by a step written for it."""
        return super().is_handwritten and self.gaussian_layers is None

    @model_validator(mode="after")
    def _step_knows_the_family(self) -> Self:
        special = {
            "estimator": self.estimator != "local_reparametrisation",
            "variance_precision": self.variance_precision != "float32",
        }
        if not self.is_handwritten and any(special.values()):
            key = next(key for key, is_set in special.items() if is_set)
            msg = (
                f"{key}: {getattr(self, key)} is for networks of Gaussian weights, features and "
                f"one target alone, of family {GAUSSIAN_MIXTURE.name} and without autocast"
            )
            raise ValueError(msg)
        return self

    @property
    def num_networks(self) -> int:
        """Number of weight sets that are drawn and exported."""
        return self.samples


class RepulsiveEnsembleSettings(DensitySettings):
    """Networks that are trained side by side and repel each other (Eq. 36).

    All weights and biases have the prior.

    Attributes:
        prior_sigma: Width of the Gaussian prior.
        members: How many networks.
        repulsion_scale: Factor of the repulsive term. 1 is the paper's, which is some 1e-6 of the
            likelihood's gradient; 0 a plain ensemble of networks with a prior.
        kernel: What tells how far two members are apart, over all rows of a batch: the mean of
            the mixture, the rows' NLL, or the raw outputs, where equal densities whose components
            stand in another order look far apart.
    """

    kind: Literal["repulsive_ensemble"] = "repulsive_ensemble"
    prior_sigma: PositiveFloat = 1.0
    members: PositiveInt = 50
    repulsion_scale: NonNegativeFloat = 1.0
    kernel: Kernel = "mixture_mean"

    @property
    def num_networks(self) -> int:
        """Number of members, all of which are exported."""
        return self.members

    @property
    def cautions(self) -> tuple[str, ...]:
        """About the kernel that sees the order of components."""
        if self.kernel != "outputs":
            return ()
        return (
            "kernel outputs: members whose components stand in another order look far apart "
            "though their densities agree; mixture_mean does not see the order",
        )


class TrainingStage(Record):
    """A part of a training with a loss of its own.

    Attributes:
        epochs: Passes over the training rows.
        leakiness: Factor of the absolute term of the loss.
    """

    epochs: PositiveInt
    leakiness: NonNegativeFloat = 0.0


class PointSettings(NetworkSettings):
    """What all networks with one output share; each kind has a field `activation`."""

    if TYPE_CHECKING:  # a field here would change the order of keys in the files

        @property
        def activation(self) -> Activation:
            """Of the hidden layers."""


class DnnSettings(PointSettings):
    """An ordinary network that predicts one number, as ATL-PHYS-PUB-2023-019 is understood.

    The loss of a row is -exp(-r^2 / (2 h^2)) / (h sqrt(2 pi)) + a |r|, with r = predicted / true
    target - 1: for a small h its minimum is the mode of the density of log10 of the target. The
    term with a draws in rows that are too far off for the kernel to notice.

    A prediction of 1 where the truth is 50 has r = -0.98 and hardly feels that term, so that a
    network that starts near 1 never gets there, whatever its output can reach. With r = ln
    (predicted / true), the same to first order within the kernel's width, the pull does not fade;
    to get from 1 to 50 takes it and a first stage whose leakiness outweighs the kernel, 20 say.

    Inputs are scaled as for all other networks. The note's own scaling is the same but for the
    cluster time, of which it takes the signed cube root.

    Attributes:
        activation: Of the hidden layers; "swish" is 2 x sigmoid(x).
        output: "bounded" is 2 (tanh x + 1), within 0 and 4; "log10" predicts log10 of the target,
            of any size.
        residual: r: "ratio", as in the note, or "log_ratio".
        width: h.
        stages: One after the other: epochs, and a as leakiness.
        optimizer: Adam's rate is constant where not given.
    """

    kind: Literal["dnn"] = "dnn"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128, 64, 8)
    activation: Activation = "swish"
    output: Literal["bounded", "log10"] = "bounded"
    residual: Literal["ratio", "log_ratio"] = "ratio"
    width: PositiveFloat = 0.1
    stages: Annotated[tuple[TrainingStage, ...], Field(min_length=1)] = (
        TrainingStage(epochs=100, leakiness=0.05),
        TrainingStage(epochs=100),
    )
    optimizer: OptimizerSettings = OptimizerSettings(milestones=())

    @property
    def epochs(self) -> int:
        """Passes over the training rows, in all stages."""
        return sum(stage.epochs for stage in self.stages)

    def leakiness_at(self, epoch: int) -> float:
        """The leakiness in an epoch, counted from 0; after the last stage that of the last."""
        ends = itertools.accumulate(stage.epochs for stage in self.stages)
        running = (stage for stage, end in zip(self.stages, ends, strict=True) if epoch < end)
        return next(running, self.stages[-1]).leakiness


class TaggerSettings(PointSettings):
    """A classifier with one output, trained with the binary cross-entropy.

    Attributes:
        activation: Of the hidden layers.
        epochs: Passes over the training rows.
    """

    kind: Literal["tagger"] = "tagger"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64)
    activation: Activation = "relu"
    epochs: PositiveInt = 30
    batch_rows: PositiveInt = 1024
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=1e-3, milestones=(20, 26))
