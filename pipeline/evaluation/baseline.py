"""The density that a network must beat: a histogram of the target in bins of the numerator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.plan import EvaluationPlan
from pipeline.formats.columns import Target
from pipeline.numerics.arrays import FloatArray, RealArray
from pipeline.statistics.binning import Spacing
from pipeline.statistics.histogram import FineHistogram


@dataclass(frozen=True, slots=True, eq=False)
class BaselineHistogram:
    """Training rows in bins of the numerator and fine bins of the transformed target.

    Attributes:
        bins: Of the numerator; the flow bins count as bins.
        rows: The histogram.
        target: Of which it is.
    """

    bins: Spacing
    rows: FineHistogram
    target: Target

    @classmethod
    def empty(cls, plan: EvaluationPlan) -> Self:
        """The identity of `+`.

        Raises:
            ValueError: The plan has no baseline.
        """
        if plan.baseline_bins is None or plan.baseline_fine_bins is None:
            msg = "the settings ask for no baseline (evaluate.baseline is null)"
            raise ValueError(msg)
        bins = plan.baseline_bins
        rows = FineHistogram.empty(plan.baseline_fine_bins, bins.cells + 2)
        return cls(bins, rows, plan.target)

    @classmethod
    def of(cls, table: Mapping[str, NDArray[Any]], plan: EvaluationPlan) -> Self:
        """The histogram of one part of the training split.

        Args:
            table: Columns [N]: the target, its numerator and the weight, if there is one.
            plan: From `plan_evaluation`.
        """
        bins, rows = (empty := cls.empty(plan)).bins, empty.rows
        weights = None if plan.weight is None else table[plan.weight].astype(np.float64)
        filled = FineHistogram.of(
            plan.target.transformed(table[plan.target.name]),
            rows.spacing,
            bins=bins.index(table[plan.target.numerator]),
            num_bins=rows.num_bins,
            weights=weights,
        )
        return cls(bins, filled, plan.target)

    def __add__(self, other: "BaselineHistogram") -> "BaselineHistogram":
        return BaselineHistogram(self.bins, self.rows + other.rows, self.target)

    def log_density(self, numerator: RealArray, target: RealArray) -> FloatArray:
        """Natural log of the density of the transformed target [N], finite for every row."""
        log_table = np.log(self._density())
        fine_bin = self.rows.spacing.index(self.target.transformed(target)) - 1
        fine_bin = np.clip(fine_bin, 0, self.rows.spacing.cells - 1)
        return np.asarray(log_table[self.bins.index(numerator), fine_bin])

    def _density(self) -> FloatArray:
        """[bins, fine bins], each bin integrating to 1 over the fine bins.

        So that no fine bin is empty, one row of mean weight is added to the inclusive histogram,
        spread evenly, and one to each bin, spread as the inclusive histogram. Rows beyond the
        outermost fine bins, a margin past the training range, count as in those fine bins.
        """
        spacing, num_bins = self.rows.spacing, self.rows.num_bins
        dense = np.zeros(num_bins * (spacing.cells + 2))
        dense[self.rows.fine_bins] = self.rows.weights
        table = dense.reshape(num_bins, -1)[:, 1:-1].copy()
        num_rows = int(self.rows.counts.sum())
        unit = float(self.rows.weights.sum()) / num_rows if num_rows else 1.0
        inclusive = table.sum(axis=0) + unit / spacing.cells
        table += unit * inclusive / inclusive.sum()
        return np.asarray(table / (table.sum(axis=1, keepdims=True) * spacing.resolution))
