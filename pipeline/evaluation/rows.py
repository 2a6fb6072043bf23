"""One part's rows as an evaluation needs them, and the accumulators that they fill."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.accumulators import AxisGroup, Figure, Key, Profiles
from pipeline.evaluation.axes import ResolvedAxis, ResolvedCondition
from pipeline.evaluation.plan import EvaluationPlan
from pipeline.evaluation.settings import ORACLE
from pipeline.formats.columns import IDENTITY
from pipeline.numerics.arrays import Columns, FloatArray, Int32Array, IntArray, RealArray
from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import (
    OUTSIDE,
    Bins,
    Grouped,
    Spacing,
    edge_bins,
    group_fine_bins,
    number_bins,
)
from pipeline.statistics.histogram import DenseHistogram, FineBins, FineHistogram
from pipeline.statistics.moments import BinMoments
from pipeline.statistics.sparse_histogram import SortedRows, sort_rows
from pipeline.statistics.sums_on_axes import totals_on_axes

Leaf = FineHistogram | BinMoments
Leaves = Iterator[tuple[Key, Leaf]]

UNCALIBRATED = "em"  # the numerator as it is, at the electromagnetic scale
BASELINE = "histogram"
TARGET = "target"
EVERYWHERE = "all"
AXES = "axes"  # where a figure is that has the bins of all axes
VERSUS = "_vs_"  # between the names of two sets that are compared; in no set's own name
# Names that no model may have: they stand for something else in keys, tables and the report.
RESERVED_SETS = (ORACLE, UNCALIBRATED, BASELINE, TARGET, EVERYWHERE)
COVERAGES = {"coverage68": ("q16", "q84", 0.68), "coverage95": ("q025", "q975", 0.95)}


@dataclass(frozen=True, eq=False)
class Quantity:
    """The fine bins [N] of a quantity."""

    spacing: Spacing
    fine_bins: Int32Array

    @classmethod
    def of(cls, values: RealArray, spacing: Spacing) -> Self:
        """The fine bin [N] of each of the values [N]."""
        return cls(spacing, spacing.index(values))

    @functools.cached_property
    def rows(self) -> SortedRows:
        """The rows in the order of their fine bins."""
        return sort_rows(self.fine_bins, self.spacing.width)

    def grouped(self, groups: Grouped) -> Int32Array:
        """The groups [N] of the fine bins."""
        return group_fine_bins(self.fine_bins, groups.of_fine_bins)


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationSlab:
    """The truth of N rows, their weights, bins and populations.

    Attributes:
        plan: Of the evaluation.
        table: The columns.
        target: [N] true values.
        numerator: [N].
        denominator: [N].
        weights: [N]; None for 1.
        bins: By axis: [N] bin of each row; the axes of spectra as well.
        numbered: By group of figures: [N, A] the same of its axes, numbered through, and totals.
        populations: By name: indices of its rows; None for all rows.
        profiles: What the rows are added to in the bins of all axes.
        ratios: By set: calibrated over true values, as far as they are filled.
        ranks: By set: [N] fine bin of the relative uncertainty, likewise.
    """

    plan: EvaluationPlan
    table: Columns
    target: FloatArray
    numerator: FloatArray
    denominator: FloatArray
    weights: FloatArray | None
    bins: dict[str, Bins]
    numbered: dict[AxisGroup, tuple[Bins, FloatArray]]
    populations: dict[str, IntArray | None]
    profiles: Profiles
    ratios: dict[str, Quantity]
    ranks: dict[str, Bins]

    @classmethod
    def of(cls, table: Columns, plan: EvaluationPlan, profiles: Profiles) -> Self:
        """The rows of one part of a dataset."""
        target = plan.target
        bins = {
            axis.name: edge_bins(table[axis.column], np.array(axis.edges), axis.scale == "log")
            for axis in plan.axes_of("spectra")
        }
        return cls(
            plan=plan,
            table=table,
            target=_wide(table[target.name]),
            numerator=_wide(table[target.numerator]),
            denominator=_wide(table[target.denominator]),
            weights=None if plan.weight is None else _wide(table[plan.weight]),
            bins=bins,
            numbered={},
            populations={EVERYWHERE: None}
            | {name: select(table, plan, where) for name, where in plan.regions.items()},
            profiles=profiles,
            ratios={},
            ranks={},
        )

    def histogram(self, figure: Figure[FineHistogram], name: str, quantity: Quantity) -> Leaves:
        """A fine histogram for each population."""
        for population, chosen in self.populations.items():
            some, weights = self._choose(quantity.fine_bins, chosen)
            leaf = FineHistogram.of_index(some, quantity.spacing, weights=weights)
            yield Key(figure, name, population), leaf

    def moments(self, figure: Figure[BinMoments], name: str, values: NDArray[Any]) -> Leaves:
        """Mean and spread of values [N] for each population."""
        for population, chosen in self.populations.items():
            some, weights = self._choose(values, chosen)
            yield Key(figure, name, population), BinMoments.of(some, weights=weights)

    def profile(
        self, figure: Figure[DenseHistogram], name: str, quantity: Quantity, groups: Grouped
    ) -> None:
        """Adds a quantity, in groups of its fine bins, to its histogram in the bins of all axes."""
        self.add(figure, name, groups, quantity.grouped(groups))

    def add(
        self, figure: Figure[DenseHistogram], name: str, spacing: FineBins, fine_bins: Int32Array
    ) -> None:
        """Adds rows by their fine bins [N] to what is counted in the bins of all axes."""
        bins, totals = self._numbered(figure.axes)
        key = Key(figure, name, AXES)
        self.profiles.add(key, spacing, fine_bins, bins, len(totals), self.weights)

    def _numbered(self, group: AxisGroup) -> tuple[Bins, FloatArray]:
        """Bins [N, A] of a group's axes, numbered through, and their totals [B, 3]."""
        if group not in self.numbered:
            places = self.plan.bins_of(group)
            starts = np.array([place.start for place in places.values()], np.uint16)
            table = np.stack([self.bins[name] for name in places])
            numbered = number_bins(table, starts)
            num_bins = max(place.stop for place in places.values())
            weights = np.zeros(0) if self.weights is None else self.weights
            self.numbered[group] = numbered, totals_on_axes(numbered, num_bins, weights)
        return self.numbered[group]

    def on_axis(
        self, figure: Figure[FineHistogram], name: str, quantity: Quantity, axis: ResolvedAxis
    ) -> tuple[Key, Leaf]:
        """A fine histogram in the bins of one axis."""
        leaf = self.binned(quantity, self.bins[axis.name], axis.num_bins)
        return Key(figure, name, axis.name), leaf

    def binned(self, quantity: Quantity, bins: Bins, num_bins: int) -> FineHistogram:
        """A fine histogram in any bins [N]."""
        return FineHistogram.of_sorted(
            quantity.rows, quantity.spacing, bins=bins, num_bins=num_bins, weights=self.weights
        )

    def means(
        self, figure: Figure[BinMoments], name: str, values: Sequence[FloatArray]
    ) -> tuple[Key, Leaf]:
        """Means and spreads [Q, bins] of Q quantities [N] in the bins of all axes."""
        bins, totals = self._numbered(figure.axes)
        leaf = BinMoments.on_axes(values, bins=bins, totals=totals, weights=self.weights)
        return Key(figure, name, AXES), leaf

    def plane(
        self, key: Key, across: Int32Array, up: Int32Array, spacings: tuple[Spacing, Spacing]
    ) -> tuple[Key, Leaf]:
        """Rows in two dimensions; those without either number are in no fine bin."""
        first, second = spacings
        leaf = FineHistogram.of_index(
            np.where(across >= 0, up, np.int32(OUTSIDE)),
            second,
            bins=np.maximum(across, 0),
            num_bins=first.width,
            weights=self.weights,
        )
        return key, leaf

    def _choose(
        self, values: NDArray[Any], chosen: IntArray | None
    ) -> tuple[NDArray[Any], FloatArray | None]:
        if chosen is None:
            return values, self.weights
        return values[chosen], None if self.weights is None else self.weights[chosen]


def check_aligned(table: Columns, name: str, columns: Columns, plan: EvaluationPlan) -> None:
    """A check that a calibrated set belongs to the rows.

    Raises:
        ValueError: Its name is taken, it lacks the central value or its rows are others.
    """
    if (name in RESERVED_SETS and name != ORACLE) or VERSUS in name:
        msg = f"a calibrated set cannot be called {name}: the evaluation uses that name itself"
        raise ValueError(msg)
    missing = {plan.target.name, plan.target.calibrated} - set(columns)
    if missing:
        msg = f"the calibrated set {name} has no column {' and no '.join(sorted(missing))}"
        raise ValueError(msg)
    got, expected = len(columns[plan.target.name]), len(table[plan.target.name])
    same = got == expected
    if same and IDENTITY in columns and IDENTITY in table:
        same = bool(np.array_equal(columns[IDENTITY], table[IDENTITY]))
    if not same:
        msg = (
            f"the calibrated set {name} ({got} rows) does not hold the rows of this part "
            f"({expected} rows); calibrate the dataset again"
        )
        raise ValueError(msg)


def select(
    table: Columns, plan: EvaluationPlan, conditions: Iterable[ResolvedCondition]
) -> IntArray:
    """The rows that meet all conditions."""
    keep = np.ones(len(table[plan.target.name]), dtype=bool)
    for condition in conditions:
        values = table[condition.column]
        values = np.abs(values) if condition.absolute else values
        if condition.lower is not None:
            keep &= values >= condition.lower
        if condition.upper is not None:
            keep &= values < condition.upper
    return np.flatnonzero(keep)


def _wide(values: NDArray[Any]) -> FloatArray:
    return values.astype(np.float64)


@exact_kernel
def quotients(above: FloatArray, below: FloatArray) -> FloatArray:
    """The quotient of each row [N]; NaN where the divisor is not positive."""
    out = np.empty_like(above)
    for i in range(len(above)):
        out[i] = above[i] / below[i] if below[i] > 0.0 else np.nan
    return out


def wide(columns: Columns, name: str) -> FloatArray:
    """A column [N] as contiguous float64, as kernels take it."""
    return np.ascontiguousarray(columns[name], np.float64)


def quotient(above: NDArray[Any], below: NDArray[Any]) -> FloatArray:
    """The quotient; NaN, which no histogram counts, where the divisor is not positive."""
    return quotients(*(np.ascontiguousarray(each, np.float64) for each in (above, below)))
