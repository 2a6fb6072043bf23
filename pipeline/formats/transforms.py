"""Feature scaling: what a network sees of a raw physical value (arXiv 2412.04370, Eqs. 7 to 9)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.columns import Feature, Target
from pipeline.formats.records import Record


class ColumnStatistics(Record):
    """Streamed statistics of one column over the training rows.

    Attributes:
        count: Rows.
        sum_of_weights: Sum of the rows' weights; equal to count without weights.
        mean: Weighted mean.
        std: Weighted standard deviation, divided by the sum of weights (no N - 1).
        minimum: Smallest value.
        maximum: Largest value.
        max_abs: Largest absolute value.
        log10_mean: The same mean of log10 x; None unless all values are positive.
        log10_std: The same standard deviation of log10 x.
    """

    count: int
    sum_of_weights: float
    mean: float
    std: float
    minimum: float
    maximum: float
    max_abs: float
    log10_mean: float | None = None
    log10_std: float | None = None


class Scaling(Record):
    """(f(max(x, floor)) - shift) / factor, with f = log10 or the identity.

    The rows of a dataset are floored already; those of somebody who uses the model are not.
    """

    name: str
    floor: float | None = None
    function: Literal["log10", "identity"]
    shift: float
    factor: float


def scaling_of(
    feature: Feature, statistics: ColumnStatistics, floor: float | None = None
) -> Scaling:
    """The scaling that a feature's transform asks for, given its training statistics.

    A constant column is shifted only (factor 1), so that it stays finite.
    """
    shift, factor = 0.0, 1.0
    function: Literal["log10", "identity"] = "identity"
    if feature.transform == "log10_standard":
        if statistics.log10_mean is None or statistics.log10_std is None:
            msg = f"column {feature.name} holds values <= 0, so log10 of it has no statistics"
            raise ValueError(msg)
        function, shift, factor = "log10", statistics.log10_mean, statistics.log10_std
    elif feature.transform == "standard":
        shift, factor = statistics.mean, statistics.std
    elif feature.transform == "max_abs":
        factor = statistics.max_abs
    return Scaling(
        name=feature.name, floor=floor, function=function, shift=shift, factor=factor or 1.0
    )


def target_scaling(target: Target, statistics: ColumnStatistics) -> Scaling:
    """What networks are trained on: log10 of a target as it is, any other standardised.

    Their initial weights and the limits of their log variances are made for values of order one.
    """
    if target.transform == "log10":
        return Scaling(name=target.name, function="log10", shift=0.0, factor=1.0)
    return Scaling(
        name=target.name,
        function="identity",
        shift=statistics.mean,
        factor=statistics.std or 1.0,
    )


def scale(
    columns: Mapping[str, NDArray[np.floating]], scalings: Sequence[Scaling]
) -> NDArray[np.float32]:
    """Scaled features [rows, features] in float32, computed in float64."""
    scaled = [_scale_column(columns[scaling.name], scaling) for scaling in scalings]
    return np.stack(scaled, axis=1)


def _scale_column(values: NDArray[np.floating], scaling: Scaling) -> NDArray[np.float32]:
    wide = values.astype(np.float64)
    if scaling.floor is not None:
        wide = np.maximum(wide, np.float32(scaling.floor))
    if scaling.function == "log10":
        wide = np.log10(wide)
    return ((wide - scaling.shift) / scaling.factor).astype(np.float32)
