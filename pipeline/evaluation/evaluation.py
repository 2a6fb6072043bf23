"""The evaluation of a study: one accumulator that holds every figure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self, cast

import numpy as np

from pipeline.evaluation.accumulators import (
    RATIO_IN,
    RATIO_MEANS,
    Accumulator,
    Figure,
    Key,
    Profiles,
)
from pipeline.evaluation.baseline import BaselineHistogram
from pipeline.evaluation.fill import (
    fill_baseline,
    fill_pair,
    fill_selection,
    fill_set,
    fill_truth,
)
from pipeline.evaluation.plan import EvaluationPlan
from pipeline.evaluation.rows import AXES, UNCALIBRATED, EvaluationSlab, Leaf, Leaves, check_aligned
from pipeline.numerics.arrays import Columns
from pipeline.statistics.histogram import DenseHistogram, FineHistogram
from pipeline.statistics.moments import BinMoments


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All figures of the parts merged so far.

    A figure that does not apply (a set without a density, no reference) has no key.

    Attributes:
        plan: What is measured.
        histograms: Fine histograms by figure, set, and axis or population.
        moments: Means and spreads, likewise; in the bins of all axes where that is `AXES`.
        dense: Histograms in the bins of all axes.
    """

    plan: EvaluationPlan
    histograms: dict[Key, FineHistogram]
    moments: dict[Key, BinMoments]
    dense: dict[Key, DenseHistogram]

    @classmethod
    def empty(cls, plan: EvaluationPlan) -> Self:
        """An evaluation of no rows, which `+` leaves every other as it is with."""
        return cls(plan, {}, {}, {})

    @classmethod
    def of(
        cls,
        table: Columns,
        calibrated: Mapping[str, Columns],
        plan: EvaluationPlan,
        *,
        baseline: BaselineHistogram | None = None,
    ) -> Self:
        """The evaluation of one part.

        Args:
            table: The columns [N] of a dataset's part that `needed_columns` names.
            calibrated: By name: the columns [N] of a calibrated set, row by row.
            plan: From `plan_evaluation`.
            baseline: Filled from the training split; None for none.

        Raises:
            ValueError: A calibrated set does not belong to the rows.
        """
        return cls.of_parts([(table, calibrated)], plan, baseline=baseline)

    @classmethod
    def of_parts(
        cls,
        parts: Iterable[tuple[Columns, Mapping[str, Columns]]],
        plan: EvaluationPlan,
        *,
        baseline: BaselineHistogram | None = None,
    ) -> Self:
        """The evaluation of parts one after the other, merged in their order.

        The profiles of all are collected in the same memory.

        Args:
            parts: Of each, table and calibrated sets as in `of`.
            plan: From `plan_evaluation`.
            baseline: Filled from the training split; None for none.

        Raises:
            ValueError: A calibrated set does not belong to the rows.
        """
        merged: dict[Key, Leaf] = {}
        profiles = Profiles()
        for table, calibrated in parts:
            for name, columns in calibrated.items():
                check_aligned(table, name, columns, plan)
            # Values that are no numbers are counted as such.
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                leaves = _leaves(EvaluationSlab.of(table, plan, profiles), calibrated, baseline)
                for key, leaf in leaves:
                    merged[key] = merged[key] + leaf if key in merged else leaf  # type: ignore[operator]
            profiles.end_part(len(table[plan.target.name]))
        profiles.count()
        return cls(
            plan,
            {key: leaf for key, leaf in merged.items() if isinstance(leaf, FineHistogram)},
            {key: leaf for key, leaf in merged.items() if isinstance(leaf, BinMoments)},
            profiles.histograms,
        )

    def __add__(self, other: "Evaluation") -> "Evaluation":
        if self.plan != other.plan:
            msg = "evaluations of different plans cannot be merged"
            raise ValueError(msg)
        return Evaluation(
            self.plan,
            _merge(self.histograms, other.histograms),
            _merge(self.moments, other.moments),
            _merge(self.dense, other.dense),
        )

    @property
    def sets(self) -> tuple[str, ...]:
        """The calibrated sets, in the order in which they were given."""
        names = dict.fromkeys(k.name for k in self.moments if k.figure == RATIO_MEANS)
        return tuple(name for name in names if name != UNCALIBRATED)

    @property
    def populations(self) -> tuple[str, ...]:
        """The names of all rows together, then of the regions."""
        return tuple(dict.fromkeys(k.where for k in self.histograms if k.figure == RATIO_IN))

    def find(self, figure: Figure[Accumulator], name: str, where: str = AXES) -> Accumulator | None:
        """An accumulator; None if the figure does not apply to the set.

        Args:
            figure: What it holds.
            name: Of the set.
            where: The population or axis; the bins of all axes if left out.
        """
        held = {
            FineHistogram: self.histograms,
            BinMoments: self.moments,
            DenseHistogram: self.dense,
        }
        return cast("dict[Key, Accumulator]", held[figure.accumulator]).get(
            Key(figure, name, where)
        )

    def histograms_of(self, *figures: Figure[FineHistogram]) -> Iterator[tuple[Key, FineHistogram]]:
        """All fine histograms of some figures, in the order in which they were filled."""
        return ((key, found) for key, found in self.histograms.items() if key.figure in figures)

    def profile(self, figure: Figure[DenseHistogram], name: str, axis: str) -> FineHistogram | None:
        """A quantity's histogram in the bins of an axis, the finest there is; None for none."""
        if figure.finer is not None and (fine := self.find(figure.finer, name, axis)) is not None:
            return fine
        dense = self.find(figure, name)
        return None if dense is None else dense.on_axis(self.plan.bins_of(figure.axes)[axis])

    def means(self, figure: Figure[BinMoments], name: str, axis: str, number: int) -> BinMoments:
        """The moments of one of a figure's quantities in the bins of an axis."""
        places = self.plan.bins_of(figure.axes)
        return self.moments[Key(figure, name, AXES)].quantity(number, places[axis])


def _leaves(
    rows: EvaluationSlab, calibrated: Mapping[str, Columns], baseline: BaselineHistogram | None
) -> Leaves:
    reference = rows.plan.settings.reference
    yield from fill_truth(rows)
    for name, columns in calibrated.items():
        other = None if name == reference else calibrated.get(reference)
        yield from fill_set(rows, name, columns, other)
        for ranking in dict.fromkeys((name, reference)):
            if "sigma_tot" in calibrated.get(ranking, ()):
                yield from fill_selection(rows, name, ranking, calibrated)
    if baseline is not None:
        yield from fill_baseline(rows, baseline, calibrated.get(reference))
    for first, second in rows.plan.settings.pairs:
        if first in calibrated and second in calibrated:
            yield from fill_pair(rows, first, second, calibrated)


def _merge(first: dict[Key, Accumulator], second: dict[Key, Accumulator]) -> dict[Key, Accumulator]:
    merged = dict(first)
    for key, leaf in second.items():
        merged[key] = merged[key] + leaf if key in merged else leaf
    return merged
