"""One part's rows as an evaluation needs them, and the accumulators that they fill."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.axes import ResolvedAxis, ResolvedCondition
from pipeline.evaluation.binning import (
    Floats,
    Indices,
    Numbers,
    SortedRows,
    edge_bins,
    sort_rows,
    totals_on_axes,
)
from pipeline.evaluation.dense import DenseHistogram
from pipeline.evaluation.fine import Cells, FineHistogram
from pipeline.evaluation.moments import BinMoments
from pipeline.evaluation.plan import EvaluationPlan
from pipeline.evaluation.settings import ORACLE
from pipeline.evaluation.spacing import Grouped, Spacing
from pipeline.formats.columns import IDENTITY

Columns = Mapping[str, NDArray[Any]]
Leaf = FineHistogram | BinMoments
Dense = dict["Key", DenseHistogram]
Bins = NDArray[np.int16]

UNCALIBRATED = "em"  # the numerator as it is, at the electromagnetic scale
BASELINE = "histogram"
TARGET = "target"
EVERYWHERE = "all"
AXES = "axes"  # where a figure is that has the bins of all axes
VERSUS = "_vs_"  # between the names of two sets that are compared; in no set's own name
# Names that no model may have: they stand for something else in keys, tables and the report.
RESERVED_SETS = (ORACLE, UNCALIBRATED, BASELINE, TARGET, EVERYWHERE)
COVERAGES = {"coverage68": ("q16", "q84", 0.68), "coverage95": ("q025", "q975", 0.95)}


class Key(NamedTuple):
    """What an accumulator holds: a figure of a set, by axis or for a population."""

    figure: str
    name: str
    where: str


class Quantity(NamedTuple):
    """The fine cells [N] of a quantity, and the rows in their order."""

    spacing: Spacing
    cells: Numbers
    rows: SortedRows

    @classmethod
    def of(cls, values: NDArray[np.floating], spacing: Spacing) -> Self:
        """The cells of values [N]."""
        cells = spacing.index(values)
        return cls(spacing, cells, sort_rows(cells, spacing.width))

    def grouped(self, groups: Grouped) -> SortedRows:
        """The rows by groups of cells, in which they are sorted as well."""
        return self.rows._replace(cells=groups.of_cells()[self.rows.cells])


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The truth of N rows, their weights, bins and populations.

    Attributes:
        plan: Of the evaluation.
        table: The columns.
        target: [N] true values.
        numerator: [N].
        denominator: [N].
        weights: [N]; None for 1.
        bins: By axis: [N] bin of each row; the axes of spectra as well.
        numbered: By axes: [N, A] the same, numbered through them, and the bins' totals.
        populations: By name: indices of its rows; None for all rows.
        dense: What the profiles of the rows are added to.
        ratios: By set: calibrated over true values, as far as they are filled.
    """

    plan: EvaluationPlan
    table: Columns
    target: Floats
    numerator: Floats
    denominator: Floats
    weights: Floats | None
    bins: dict[str, Bins]
    numbered: dict[str, tuple[Bins, Floats]]
    populations: dict[str, Indices | None]
    dense: Dense
    ratios: dict[str, Quantity]

    @classmethod
    def of(cls, table: Columns, plan: EvaluationPlan, dense: Dense) -> Self:
        """The rows of one part of a dataset."""
        target = plan.target
        bins = {
            axis.name: edge_bins(table[axis.column], np.array(axis.edges), axis.scale == "log")
            for axis in plan.axes_of("spectrum")
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
            dense=dense,
            ratios={},
        )

    def histogram(self, figure: str, name: str, quantity: Quantity) -> Iterator[tuple[Key, Leaf]]:
        """A fine histogram for each population."""
        for population, chosen in self.populations.items():
            if chosen is None:
                leaf = FineHistogram.of_sorted(
                    quantity.rows, quantity.spacing, weights=self.weights
                )
            else:
                some, weights = self._choose(quantity.cells, chosen)
                leaf = FineHistogram.of_index(some, quantity.spacing, weights=weights)
            yield Key(figure, name, population), leaf

    def moments(self, figure: str, name: str, values: NDArray[Any]) -> Iterator[tuple[Key, Leaf]]:
        """Mean and spread of values [N] for each population."""
        for population, chosen in self.populations.items():
            some, weights = self._choose(values, chosen)
            yield Key(figure, name, population), BinMoments.of(some, weights=weights)

    def profile(self, figure: str, name: str, quantity: Quantity, groups: Grouped) -> None:
        """Adds a quantity, in groups of its cells, to its histogram in the bins of all axes."""
        self.add(Key(figure, name, AXES), groups, quantity.grouped(groups))

    def add(self, key: Key, cells: Cells, rows: SortedRows) -> None:
        """Adds rows to what is counted in the bins of all axes of a figure."""
        bins, totals = self._numbered(key.figure)
        if key not in self.dense:
            weighted = self.weights is not None
            self.dense[key] = DenseHistogram.empty(cells, len(totals), weighted=weighted)
        self.dense[key].fill(rows, bins, self.weights)

    def _numbered(self, figure: str) -> tuple[Bins, Floats]:
        """Bins [N, A] of a figure's axes, numbered through, and their totals [B, 3]."""
        places = self.plan.bins_of(figure)
        kind = ",".join(places)
        if kind not in self.numbered:
            numbered = np.empty((len(self.target), len(places)), np.int16)
            for at, (name, place) in enumerate(places.items()):
                np.add(self.bins[name], np.int16(place.start), out=numbered[:, at])
            num_bins = max(place.stop for place in places.values())
            weights = np.zeros(0) if self.weights is None else self.weights
            self.numbered[kind] = numbered, totals_on_axes(numbered, num_bins, weights)
        return self.numbered[kind]

    def on_axis(
        self, figure: str, name: str, quantity: Quantity, axis: ResolvedAxis
    ) -> tuple[Key, Leaf]:
        """A fine histogram in the bins of one axis."""
        leaf = self.binned(quantity, self.bins[axis.name], axis.num_bins)
        return Key(figure, name, axis.name), leaf

    def binned(self, quantity: Quantity, bins: Bins, num_bins: int) -> FineHistogram:
        """A fine histogram in any bins [N]."""
        return FineHistogram.of_sorted(
            quantity.rows, quantity.spacing, bins=bins, num_bins=num_bins, weights=self.weights
        )

    def means(self, figure: str, name: str, values: Sequence[Floats]) -> tuple[Key, Leaf]:
        """Means and spreads [Q, bins] of Q quantities [N] in the bins of all axes."""
        bins, totals = self._numbered(figure)
        table = np.stack(values, axis=1)
        leaf = BinMoments.on_axes(table, bins=bins, totals=totals, weights=self.weights)
        return Key(figure, name, AXES), leaf

    def plane(
        self, key: Key, across: Numbers, up: Numbers, spacings: tuple[Spacing, Spacing]
    ) -> tuple[Key, Leaf]:
        """Rows in two dimensions; those without either number are in no cell."""
        first, second = spacings
        known = np.where(across >= 0, up, -1)
        rows = sort_rows(known.astype(np.int32), second.width)
        leaf = FineHistogram.of_sorted(
            rows,
            second,
            bins=np.maximum(across, 0),
            num_bins=first.width,
            weights=self.weights,
        )
        return key, leaf

    def _choose(
        self, values: NDArray[Any], chosen: Indices | None
    ) -> tuple[NDArray[Any], Floats | None]:
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
) -> Indices:
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


def _wide(values: NDArray[Any]) -> Floats:
    return values.astype(np.float64)
