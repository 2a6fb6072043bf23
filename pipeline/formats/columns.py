"""What a column of a dataset is: name, unit, role, shape and how a network scales it."""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from pipeline.formats.records import Record

Role = Literal["feature", "target", "truth", "reference", "identity", "weight", "label"]
FeatureTransform = Literal["log10_standard", "standard", "max_abs", "none"]

IDENTITY = "cluster_id"


class Column(Record):
    """One column of a dataset.

    Attributes:
        name: Column name, as in the ROOT tree that it came from.
        unit: Physical unit; "1" for a pure number.
        role: What the column is for.
        shape: Values per row; images and ragged lists may follow.
    """

    name: str
    unit: str = "1"
    role: Role
    shape: Literal["scalar"] = "scalar"


class Feature(Record):
    """One input of a network (arXiv 2412.04370, Tables 1 and 2).

    Attributes:
        name: Column name.
        unit: Physical unit; "1" for a pure number.
        transform: Eq. 7 (log10_standard), Eq. 8 (standard), Eq. 9 (max_abs) or none.
    """

    name: str
    unit: str = "1"
    transform: FeatureTransform


class Target(Record):
    """What a network predicts: the ratio of two columns, in log10 (Eqs. 4 and 10).

    Attributes:
        name: Name of the ratio; a column of the dataset and of the calibrated set.
        numerator: Column that is known for every cluster, for example the EM-scale energy.
        denominator: Truth column, for example the deposited energy.
        unit: Unit of the ratio.
        calibrated: Name of numerator / predicted ratio (Eq. 6), a column of the calibrated set.
        calibrated_unit: Its unit.
        transform: The space in which the network works.
    """

    name: str = "response"
    numerator: str = "clusterE"
    denominator: str = "cluster_ENG_CALIB_TOT"
    unit: str = "1"
    calibrated: str = "energy"
    calibrated_unit: str = "GeV"
    transform: Literal["log10"] = "log10"


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
