"""What a look-up table is made of: counts and sums in its bins, of a batch of rows and merged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.columns import Target
from pipeline.lookup.bins import UNKNOWN, Floats, Indices, Quantities, num_bins
from pipeline.lookup.medians import FineSums
from pipeline.lookup.settings import LookupTableSettings

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class BinSums:
    """Rows of B bins: how many, the sum of their weights and of weight times value.

    Attributes:
        counts: [B].
        weights: [B].
        values: [B]; None where nothing but the rows is counted.
    """

    counts: Indices
    weights: Floats
    values: Floats | None

    @classmethod
    def of(
        cls, bins: Indices, size: int, weights: Floats | None, values: Floats | None = None
    ) -> Self:
        """The sums of N rows.

        Args:
            bins: [N] in [0, size).
            size: B.
            weights: [N]; 1 if None.
            values: [N]; None to count only.
        """
        counts = np.bincount(bins, minlength=size)
        total = counts.astype(np.float64)
        if weights is not None:
            total = _sums(bins, weights, size)
        if values is not None:
            values = values if weights is None else values * weights
            values = _sums(bins, values, size)
        return cls(counts, total, values)

    def __add__(self, other: "BinSums") -> "BinSums":
        return BinSums(
            self.counts + other.counts,
            self.weights + other.weights,
            None if self.values is None or other.values is None else self.values + other.values,
        )


@dataclass(frozen=True, slots=True)
class TableSums:
    """All that the tables follow from.

    Attributes:
        em: Electromagnetic rows in the bins of P_EM.
        other: All other labelled rows, likewise.
        ratios: Those in the bins of the weight, with the ratio of true to uncalibrated value.
        fine: The same ratios in fine cells, for medians; None for means.
        unlabelled: Rows without a label or a bin, which are in no sum.
    """

    em: BinSums
    other: BinSums
    ratios: BinSums
    fine: FineSums | None
    unlabelled: int

    @classmethod
    def of(
        cls,
        columns: Columns,
        settings: LookupTableSettings,
        target: Target,
        *,
        weight: str | None = None,
        log10_range: tuple[float, float] = (-2.0, 2.0),
    ) -> Self:
        """The sums of N rows.

        Args:
            columns: The axes' columns, the label, the target's two columns and the weight [N].
            settings: Of the table.
            target: What is calibrated.
            weight: Column with the rows' weights; None for 1.
            log10_range: Of the target, for medians.
        """
        label = columns[settings.em_label]
        weights = None if weight is None else columns[weight].astype(np.float64)
        quantities = Quantities.of(columns, (*settings.class_axes, *settings.weight_axes))
        at = quantities.bins(settings.class_axes)
        at_weight = quantities.bins(settings.weight_axes)
        known = (at != UNKNOWN) & (at_weight != UNKNOWN)
        is_em, is_other = known & (label >= settings.em_from), known & (label < settings.em_from)
        size = num_bins(settings.class_axes)
        row_weights = (None, None)
        if weights is not None:
            row_weights = (weights[is_em], weights[is_other])
        at_weight = at_weight[is_other]
        denominator = columns[target.denominator][is_other].astype(np.float64)
        ratio = denominator / columns[target.numerator][is_other]
        return cls(
            em=BinSums.of(at[is_em], size, row_weights[0]),
            other=BinSums.of(at[is_other], size, row_weights[1]),
            ratios=BinSums.of(at_weight, num_bins(settings.weight_axes), row_weights[1], ratio),
            fine=FineSums.of(at_weight, ratio, row_weights[1], (-log10_range[1], -log10_range[0]))
            if settings.statistic == "median"
            else None,
            unlabelled=len(label) - int(is_em.sum()) - int(is_other.sum()),
        )

    def __add__(self, other: "TableSums") -> "TableSums":
        return TableSums(
            self.em + other.em,
            self.other + other.other,
            self.ratios + other.ratios,
            None if self.fine is None or other.fine is None else self.fine + other.fine,
            self.unlabelled + other.unlabelled,
        )


def _sums(bins: Indices, values: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(bins, values, size), np.float64)
