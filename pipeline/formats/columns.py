"""What a column of a dataset is: name, unit, role, shape and how a network scales it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.formats.records import Record

Role = Literal["feature", "target", "truth", "reference", "identity", "weight", "label"]
FeatureTransform = Literal["log10_standard", "standard", "max_abs", "none"]
Shape = Literal["scalar", "ragged"]

IDENTITY = "cluster_id"


class Column(Record):
    """One column of a dataset.

    Attributes:
        name: Column name, as in the ROOT tree that it came from.
        unit: Physical unit; "1" for a pure number.
        role: What the column is for.
        shape: "scalar": one number a row; "ragged": a list of any length.
    """

    name: str
    unit: str = "1"
    role: Role
    shape: Shape = "scalar"


class Feature(Record):
    """One input of a network (arXiv 2412.04370, Tables 1 and 2).

    Attributes:
        name: Column name.
        unit: Physical unit; "1" for a pure number.
        transform: Eq. 7 (log10_standard), Eq. 8 (standard), Eq. 9 (max_abs) or none; of a list
            with the statistics of all elements of all rows.
        shape: Of the column.
        table: Of a list: what its elements are, for example "cells". Lists of one table have
            equally many elements in each row, and are the columns of one input of a network. Not
            given: a table of its own, with its name.
    """

    name: str
    unit: str = "1"
    transform: FeatureTransform
    # not written where they are not set: datasets from before they existed stay up to date
    shape: Shape = Field(default="scalar", exclude_if="scalar".__eq__)
    table: str | None = Field(default=None, exclude_if=lambda table: table is None)

    @model_validator(mode="after")
    def _tables_hold_lists(self) -> Self:
        if self.table is not None and self.shape != "ragged":
            msg = f"table: {self.name} is no list; give it `shape: ragged`, or leave the key out"
            raise ValueError(msg)
        return self

    @property
    def is_ragged(self) -> bool:
        """Whether a row has a list of it."""
        return self.shape == "ragged"

    @property
    def table_name(self) -> str:
        """The table that a list is a column of; "" for one number a row."""
        return (self.table or self.name) if self.is_ragged else ""


def tables_of(features: Sequence[Feature]) -> dict[str, tuple[Feature, ...]]:
    """The columns of each table of lists among some features, in their order."""
    names = dict.fromkeys(feature.table_name for feature in features if feature.is_ragged)
    return {name: tuple(f for f in features if f.table_name == name) for name in names}


class Target(Record):
    """What a model predicts: the ratio of two columns, or a truth column (Eqs. 4, 6 and 10).

    Densities are those of the transformed target, l = log10 of it or itself.

    Attributes:
        name: Name of the predicted quantity; a column of the dataset and of the calibrated set.
        numerator: Column that is known for every cluster, for example the EM-scale energy.
        denominator: Truth column, for example the deposited energy.
        unit: Unit of the target.
        calibrated: Name of the calibrated value, a column of the calibrated set.
        calibrated_unit: Its unit, and that of numerator and denominator.
        transform: The space in which the density is: "log10" of a positive target, or "identity".
        inverse: What makes the calibrated value. "divide": the target is numerator / denominator
            and the calibrated value numerator / predicted (Eq. 6). "none": the target is the
            denominator, and the calibrated value what is predicted.
    """

    name: str = "response"
    numerator: str = "clusterE"
    denominator: str = "cluster_ENG_CALIB_TOT"
    unit: str = "1"
    calibrated: str = "energy"
    calibrated_unit: str = "GeV"
    transform: Literal["log10", "identity"] = "log10"
    # not written where it is not set: datasets from before it existed stay up to date
    inverse: Literal["divide", "none"] = Field(default="divide", exclude_if="divide".__eq__)

    @property
    def is_log_ratio(self) -> bool:
        """Whether it is log10 of a ratio, which is all that some kinds of models predict."""
        return self.transform == "log10" and self.inverse == "divide"

    @property
    def definition(self) -> str:
        """What it is in terms of columns, for a reader."""
        if self.inverse == "none":
            return self.denominator
        return f"{self.numerator} / {self.denominator}"

    @property
    def inversion(self) -> str:
        """How the calibrated value follows from a prediction, for a reader."""
        predicted = f"predicted {self.name}"
        return predicted if self.inverse == "none" else f"{self.numerator} / {predicted}"

    @property
    def space(self) -> str:
        """The transformed target in words."""
        return f"log10 {self.name}" if self.transform == "log10" else self.name

    @property
    def space_unit(self) -> str:
        """Unit of the transformed target."""
        return f"log10({self.unit})" if self.transform == "log10" else self.unit

    @property
    def sigma(self) -> str:
        """Column of the total uncertainty of the transformed target in a calibrated set."""
        return "sigma_tot_log10" if self.transform == "log10" else "sigma_tot"

    def transformed(self, values: NDArray[Any] | float) -> NDArray[np.float64]:
        """The transform of values of the target, in float64."""
        wide = np.asarray(values, np.float64)
        return np.log10(wide) if self.transform == "log10" else wide

    def restored(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The inverse of the transform, in float64."""
        wide = np.asarray(values, np.float64)
        return np.asarray(10.0**wide if self.transform == "log10" else wide)

    def value_of(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The true target [N] from its columns, in float64."""
        denominator = columns[self.denominator].astype(np.float64)
        if self.inverse == "none":
            return denominator
        return columns[self.numerator].astype(np.float64) / denominator

    def calibrate(
        self, columns: Mapping[str, NDArray[Any]], predicted: NDArray[Any]
    ) -> NDArray[Any]:
        """The calibrated value [N] that follows from predictions of the target [N]."""
        return predicted if self.inverse == "none" else columns[self.numerator] / predicted


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

    def keeps(self, values: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which of the values [N] pass the cut; NaN never does."""
        keep = np.ones(len(values), dtype=bool)
        if self.above is not None:
            keep &= values > self.above
        if self.below is not None:
            keep &= values < self.below
        return keep
