"""Axes and regions of one dataset: columns by name, edges from settings or training rows."""

import math
from typing import Literal

import numpy as np

from pipeline.evaluation.settings import Axis, Column, Condition
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import Record
from pipeline.numerics.arrays import FloatArray
from pipeline.statistics.binning import Spacing

BINS_PER_DECADE = 10
LINEAR_BINS = 50
LOG_SPAN = 30.0
TRUTH_ROLES = ("truth", "target", "label")

Scale = Literal["log", "linear"]


class ResolvedAxis(Record):
    """An axis with its column and edges."""

    name: str
    column: str
    unit: str
    scale: Scale
    edges: tuple[float, ...]

    @property
    def num_bins(self) -> int:
        """Bins with both flow bins: 0 is below the first edge."""
        return len(self.edges) + 1


class ResolvedCondition(Record):
    """A condition on rows, with the dataset's column that it is about."""

    column: str
    lower: float | None
    upper: float | None
    absolute: bool


def resolve_condition(
    where: str, condition: Condition, manifest: DatasetManifest
) -> ResolvedCondition:
    """One condition of a region, its column checked.

    Args:
        where: The region's key, for messages.
        condition: As given.
        manifest: Of the dataset.

    Raises:
        UserError: The dataset lacks the column.
    """
    return ResolvedCondition(
        column=_column_name(where, condition, manifest),
        lower=condition.lower,
        upper=condition.upper,
        absolute=condition.absolute,
    )


def refuse_truth(where: str, condition: ResolvedCondition, manifest: DatasetManifest) -> None:
    """Refuse a population that truth selects: figures of it are biased, also the exact density's.

    Args:
        where: The region's key, for the message.
        condition: Of the region.
        manifest: Of the dataset.

    Raises:
        UserError: The condition's column is truth, the target or a label.
    """
    role = next(known.role for known in manifest.columns if known.name == condition.column)
    if role in TRUTH_ROLES:
        msg = (
            f"{where}: selects on {condition.column}, a {role} that no calibration can know, which "
            "biases every figure; select on features, show figures against it with "
            "evaluate.axes, and leave out clusters that cannot be learned with the tagger "
            "(section tag, dataset.drop_tagged)"
        )
        raise UserError(msg)


def has_column(given: Column, manifest: DatasetManifest) -> bool:
    """Whether the dataset has the column that an axis or a condition names."""
    return _given_name(given, manifest) in {column.name for column in manifest.columns}


def resolve_axis(where: str, name: str, axis: Axis, manifest: DatasetManifest) -> ResolvedAxis:
    """An axis with its edges.

    Args:
        where: The axis' key, for messages.
        name: Of the axis.
        axis: As given.
        manifest: Of the dataset.

    Raises:
        UserError: The dataset lacks the column, or its range is neither given nor known, or a
            log axis does not start above 0.
    """
    column = _column_name(where, axis, manifest)
    remedy = "so its range must be given: range: [low, high]"
    low, high = axis.range or _known_range(where, column, manifest, remedy)
    scale = axis.scale or _feature_scale(column, manifest) or _natural_scale(low, high)
    if scale == "log" and low <= 0:
        msg = f"{where}: a log axis starts above 0, its range is [{low:g}, {high:g}]"
        raise UserError(msg)
    edges = _edges(low, high, scale, axis)
    unit = next(c.unit for c in manifest.columns if c.name == column)
    return ResolvedAxis(
        name=name, column=column, unit=unit, scale=scale, edges=tuple(edges.tolist())
    )


def even_spacing(column: str, fine_bins: int, manifest: DatasetManifest) -> Spacing:
    """Fine bins over the training range of a column.

    Raises:
        UserError: The range is not known.
    """
    remedy = "so it has no bins: evaluate.baseline=null leaves the baseline out"
    low, high = _known_range("evaluate.baseline", column, manifest, remedy)
    return Spacing(scale=_natural_scale(low, high), low=low, high=high, cells=fine_bins)


def slightly_above(value: float) -> float:
    """A little more, so that the largest value lies below the last edge."""
    return value + max(abs(value) * 1e-6, 1e-12)


def _edges(low: float, high: float, scale: Scale, axis: Axis) -> FloatArray:
    if scale == "linear":
        return np.linspace(low, high, (axis.bins or LINEAR_BINS) + 1)
    if axis.bins is not None or axis.range is not None:
        bins = axis.bins or max(1, round(BINS_PER_DECADE * math.log10(high / low)))
        return np.geomspace(low, high, bins + 1)
    # Edges at whole tenths of a decade are the same in every study.
    first = math.floor(BINS_PER_DECADE * math.log10(low))
    last = math.ceil(BINS_PER_DECADE * math.log10(high))
    return np.asarray(10 ** (np.arange(first, last + 1) / BINS_PER_DECADE))


def _known_range(
    where: str, column: str, manifest: DatasetManifest, remedy: str
) -> tuple[float, float]:
    statistics = manifest.statistics.get(column)
    if statistics is None:
        msg = f"{where}: the dataset keeps no statistics of {column}, {remedy}"
        raise UserError(msg)
    return statistics.minimum, slightly_above(statistics.maximum)


def _feature_scale(column: str, manifest: DatasetManifest) -> Scale | None:
    """A feature is shown as a network sees it."""
    transforms = {feature.name: feature.transform for feature in manifest.features}
    if column not in transforms:
        return None
    return "log" if transforms[column] == "log10_standard" else "linear"


def _natural_scale(low: float, high: float) -> Scale:
    return "log" if low > 0 and high > LOG_SPAN * low else "linear"


def _given_name(given: Column, manifest: DatasetManifest) -> str | None:
    target = manifest.require_target()
    places: dict[str, str] = {
        "target": target.name,
        "numerator": target.numerator,
        "denominator": target.denominator,
    }
    return places[given.of] if given.of is not None else given.column


def _column_name(where: str, given: Column, manifest: DatasetManifest) -> str:
    name = _given_name(given, manifest)
    known = [column.name for column in manifest.columns if column.shape == "scalar"]
    if name is None or name not in known:
        msg = f"{where}: the dataset has no column {name} of numbers; it has {', '.join(known)}"
        raise UserError(msg)
    return name
