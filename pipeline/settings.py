"""The sections of a study that the data side reads: simulate, dataset and calibrate."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.features import TOPO_CLUSTER_EXTRAS, TOPO_CLUSTER_FEATURES
from pipeline.formats.calibrated import calibrated_columns
from pipeline.formats.card import SEARCH_MARGIN
from pipeline.formats.columns import Column, Feature, Target
from pipeline.formats.manifest import Split
from pipeline.formats.records import PathText, Record
from pipeline.generator.settings import GeneratorSettings

STATISTICS_BLOCK = 65_536  # entries; part of the definition of a dataset, hence no setting


class SimulateSettings(Record):
    """The simulated sample: how many clusters, in files of which size, from which generator."""

    num_clusters: Annotated[int, Field(gt=0)]
    clusters_per_file: Annotated[int, Field(gt=0)] = 50_000
    generator: GeneratorSettings = GeneratorSettings()


class Cut(Record):
    """Keep rows with `above < column < below` (both strict, either may be left out)."""

    column: str
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.above is None and self.below is None:
            msg = "a cut needs `above` or `below`"
            raise ValueError(msg)
        return self

    @property
    def rule(self) -> str:
        """The cut as a reader would write it, for example `clusterE > 0`."""
        low = f"{self.above:g} < " if self.above is not None and self.below is not None else ""
        high = f" < {self.below:g}" if self.below is not None else f" > {self.above:g}"
        return f"{low}{self.column}{high}"


class SplitSettings(Record):
    """Fractions of the clusters by split, chosen by a hash of `cluster_id` and the seed."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.600
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.034
    test: Annotated[float, Field(gt=0, lt=1)] = 0.366
    seed: int = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            msg = f"train + validation + test must be 1, they sum to {total:.12g}"
            raise ValueError(msg)
        return self


class DatasetSettings(Record):
    """What `ingest` reads and keeps (selection: arXiv 2412.04370, Sec. 3.1).

    Attributes:
        inputs: ROOT files or globs; empty: what `simulate` wrote.
        tree: Name of the flat tree, one entry a cluster.
        features: The networks' inputs.
        target: The networks' target.
        extras: Columns kept where the inputs have them.
        cuts: In order, after the cut on finite values.
        floors: By column, values below are raised to the floor and counted. The cell-time
            variance is exactly zero for many clusters with one timed cell; cutting them away
            would bias the sample.
        identity: Columns whose values name a cluster for ever; where an input lacks them the
            file's own identity, the entry and the index take their place.
        split: Fractions and seed.
        rows_per_part: Entries that go into one part before cuts, in whole blocks of 65,536.
    """

    inputs: tuple[PathText, ...] = ()
    tree: str = "ClusterTree"
    features: Annotated[tuple[Feature, ...], Field(min_length=1)] = TOPO_CLUSTER_FEATURES
    target: Target = Target()
    extras: tuple[Column, ...] = TOPO_CLUSTER_EXTRAS
    cuts: tuple[Cut, ...] = (
        Cut(column="cluster_ENG_CALIB_TOT", above=0.3),
        Cut(column="clusterE", above=0.0),
        Cut(column="cluster_SIGNIFICANCE", above=0.0),
        Cut(column="cluster_CENTER_LAMBDA", above=0.0),
        Cut(column="cluster_FIRST_ENG_DENS", above=0.0),
    )
    floors: dict[str, Annotated[float, Field(gt=0)]] = Field(default={"cluster_SECOND_TIME": 1e-3})
    identity: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "runNumber",
        "eventNumber",
        "clusterIndex",
    )
    split: SplitSettings = SplitSettings()
    rows_per_part: Annotated[int, Field(gt=0)] = 2 * STATISTICS_BLOCK

    @model_validator(mode="after")
    def _logarithms_are_safe(self) -> Self:
        positive = {cut.column for cut in self.cuts if cut.above is not None and cut.above >= 0}
        ratio = {self.target.numerator, self.target.denominator}
        logs = {f.name for f in self.features if f.transform == "log10_standard"}
        unsafe = sorted(logs - positive - self.floors.keys() - ratio)
        if unsafe:
            msg = f"log10 is taken of {', '.join(unsafe)}: give each a cut `above: 0` or a floor"
            raise ValueError(msg)
        if ratio - positive or ratio & self.floors.keys():
            names = ", ".join(sorted((ratio - positive) | (ratio & self.floors.keys())))
            msg = f"log10 is taken of the ratio of {names}: each needs a cut `above: 0`, no floor"
            raise ValueError(msg)
        return self

    @property
    def weight(self) -> str | None:
        """The column with the rows' weights; None where every row counts 1."""
        return next((column.name for column in self.extras if column.role == "weight"), None)

    @model_validator(mode="after")
    def _one_weight_at_most(self) -> Self:
        weights = [column.name for column in self.extras if column.role == "weight"]
        if len(weights) > 1:
            msg = f"one column may have the role weight, got {', '.join(weights)}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [f.name for f in self.features]
        names += [c.name for c in self.extras] + [self.target.name]
        made = [column.name for column in calibrated_columns(self.target, has_truth=True)]
        twice = sorted({n for given in (names, made) for n in given if given.count(n) > 1})
        if twice:
            msg = f"a column may be named once, got {', '.join(twice)} more than once"
            raise ValueError(msg)
        return self


class CalibrateSettings(Record):
    """How a density becomes numbers.

    Attributes:
        split: The split that is calibrated.
        central: The functional that becomes the calibrated value (mode of the density of the
            target, of log10 of the target, median or mean).
        sigma: Linear sigmas as moments of the density, or linearised from those of log10
            (arXiv 2412.04370, footnote 13).
        margin: Modes are searched and moments integrated within the training range of the
            log10 target plus this on both sides.
    """

    split: Split = "test"
    central: Literal["mode_linear", "mode_log10", "median", "mean"] = "mode_linear"
    sigma: Literal["moments", "linearised"] = "moments"
    margin: Annotated[float, Field(ge=0)] = SEARCH_MARGIN
