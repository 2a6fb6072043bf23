"""One part's rows as an evaluation needs them, and the accumulators that they fill."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.fine import FineHistogram
from pipeline.evaluation.moments import BinMoments
from pipeline.evaluation.plan import EvaluationPlan
from pipeline.evaluation.settings import ORACLE
from pipeline.evaluation.spacing import Floats, Indices, Spacing
from pipeline.formats.columns import IDENTITY

Columns = Mapping[str, NDArray[Any]]
Leaf = FineHistogram | BinMoments

UNCALIBRATED = "em"  # the numerator as it is, at the electromagnetic scale
BASELINE = "histogram"
TARGET = "target"
EVERYWHERE = "all"
VERSUS = "_vs_"  # between the names of two sets that are compared; in no set's own name
# Names that no model may have: they stand for something else in keys, tables and the report.
RESERVED_SETS = (ORACLE, UNCALIBRATED, BASELINE, TARGET, EVERYWHERE)
COVERAGES = {"coverage68": ("q16", "q84", 0.68), "coverage95": ("q025", "q975", 0.95)}


class Key(NamedTuple):
    """What an accumulator holds: a figure of a set, by axis or for a population."""

    figure: str
    name: str
    where: str


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The truth of N rows, their weights, bins and populations.

    Attributes:
        plan: Of the evaluation.
        target: [N] true values.
        numerator: [N].
        denominator: [N].
        weights: [N]; None for 1.
        bins: By axis: [N] bin of each row.
        populations: By name: indices of its rows; None for all rows.
    """

    plan: EvaluationPlan
    target: Floats
    numerator: Floats
    denominator: Floats
    weights: Floats | None
    bins: dict[str, Indices]
    populations: dict[str, Indices | None]

    @classmethod
    def of(cls, table: Columns, plan: EvaluationPlan) -> Self:
        """The rows of one part of a dataset."""
        target = plan.target
        return cls(
            plan=plan,
            target=_wide(table[target.name]),
            numerator=_wide(table[target.numerator]),
            denominator=_wide(table[target.denominator]),
            weights=None if plan.weight is None else _wide(table[plan.weight]),
            bins={
                axis.name: np.searchsorted(axis.edges, table[axis.column], side="right")
                for axis in plan.axes
            },
            populations={EVERYWHERE: None}
            | {name: _select(table, plan, name) for name in plan.regions},
        )

    def histogram(
        self, figure: str, name: str, values: Floats, spacing: Spacing
    ) -> Iterator[tuple[Key, Leaf]]:
        """A fine histogram of values [N] for each population."""
        index = spacing.index(values)
        for population, chosen in self.populations.items():
            some, weights = self._choose(index, chosen)
            leaf = FineHistogram.of_index(some, spacing, weights=weights)
            yield Key(figure, name, population), leaf

    def moments(self, figure: str, name: str, values: NDArray[Any]) -> Iterator[tuple[Key, Leaf]]:
        """Mean and spread of values [N] for each population."""
        for population, chosen in self.populations.items():
            some, weights = self._choose(values, chosen)
            yield Key(figure, name, population), BinMoments.of(some, weights=weights)

    def profile(
        self, figure: str, name: str, index: Indices, spacing: Spacing
    ) -> Iterator[tuple[Key, Leaf]]:
        """A fine histogram in the bins of each axis, from the fine cells [N] of a quantity."""
        for axis in self.plan.axes:
            leaf = FineHistogram.of_index(
                index,
                spacing,
                bins=self.bins[axis.name],
                num_bins=axis.num_bins,
                weights=self.weights,
            )
            yield Key(figure, name, axis.name), leaf

    def mean_profile(self, figure: str, name: str, values: Floats) -> Iterator[tuple[Key, Leaf]]:
        """Mean and spread in the bins of each axis; truncated as well, for less weight of tails."""
        low, high = self.plan.settings.truncate
        inside = np.where((values > low) & (values < high), values, np.nan)
        for axis in self.plan.axes:
            for kind, these in ((figure, values), (figure + "_truncated", inside)):
                leaf = BinMoments.of(
                    these,
                    bins=self.bins[axis.name],
                    num_bins=axis.num_bins,
                    weights=self.weights,
                )
                yield Key(kind, name, axis.name), leaf

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


def _select(table: Columns, plan: EvaluationPlan, region: str) -> Indices:
    keep = np.ones(len(table[plan.target.name]), dtype=bool)
    for condition in plan.regions[region]:
        values = table[condition.column]
        values = np.abs(values) if condition.absolute else values
        if condition.lower is not None:
            keep &= values >= condition.lower
        if condition.upper is not None:
            keep &= values < condition.upper
    return np.flatnonzero(keep)


def _wide(values: NDArray[Any]) -> Floats:
    return values.astype(np.float64)
