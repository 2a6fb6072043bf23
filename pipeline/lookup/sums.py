"""What a look-up table is made of: counts and sums in its bins, of a batch of rows and merged.

Medians come from rows in fine bins of log10 of the ratio, so that batches add up in any order.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.formats.columns import Target
from pipeline.lookup.bins import UNKNOWN, Quantities, num_bins
from pipeline.lookup.settings import LookupTableSettings
from pipeline.numerics.arrays import Columns, FloatArray, IntArray

FINE_BINS = 4096  # over the range of the training rows: some thousandths of the ratio each


@dataclass(frozen=True, slots=True)
class FineSums:
    """Weights by bin and fine bin; only occupied fine bins are kept.

    Attributes:
        low: log10 of the ratio at the first fine bin's lower edge.
        high: At the last fine bin's upper edge; rows beyond are in the end fine bins.
        fine_bins: [C] bin x FINE_BINS + fine bin, rising.
        weights: [C] sums.
    """

    low: float
    high: float
    fine_bins: IntArray
    weights: FloatArray

    @classmethod
    def of(
        cls,
        bins: IntArray,
        ratio: FloatArray,
        weights: FloatArray | None,
        log10_range: tuple[float, float],
    ) -> Self:
        """The sums of N rows with a positive ratio; their weights are 1 if None."""
        low, high = log10_range
        place = (np.log10(ratio) - low) * (FINE_BINS / (high - low))
        fine_bins = bins * FINE_BINS + np.clip(place, 0, FINE_BINS - 1).astype(np.int64)
        return cls(
            low, high, *_sum_equal(fine_bins, np.ones(len(bins)) if weights is None else weights)
        )

    def __add__(self, other: "FineSums") -> "FineSums":
        fine_bins = np.concatenate([self.fine_bins, other.fine_bins])
        weights = np.concatenate([self.weights, other.weights])
        return FineSums(self.low, self.high, *_sum_equal(fine_bins, weights))

    def medians(self, num_bins: int, stride: int) -> FloatArray:
        """The median of the ratio [num_bins / stride] with `stride` bins after each other as one.

        Interpolated within its fine bin; NaN where the weights do not add up to any.
        """
        owner, fine_bin = np.divmod(self.fine_bins, FINE_BINS)
        keys, weights = _sum_equal(owner // stride * FINE_BINS + fine_bin, self.weights)
        owner, fine_bin = np.divmod(keys, FINE_BINS)
        first = np.searchsorted(owner, np.arange(num_bins // stride))
        last = np.searchsorted(owner, np.arange(num_bins // stride), side="right") - 1
        reached = np.concatenate([[0.0], np.cumsum(weights)])
        half = (reached[last + 1] + reached[first]) / 2
        medians = np.full(len(half), np.nan)
        known = np.flatnonzero(reached[last + 1] > reached[first])
        at = np.searchsorted(reached[1:], half[known])
        at = np.clip(at, first[known], last[known])
        share = (half[known] - reached[at]) / weights[at]
        step = (self.high - self.low) / FINE_BINS
        medians[known] = 10.0 ** (self.low + (fine_bin[at] + share) * step)
        return medians


def _sum_equal(fine_bins: IntArray, weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Each fine bin once, rising, with the sum of its weights."""
    each, place = np.unique(fine_bins, return_inverse=True)
    return each, np.asarray(np.bincount(place, weights, len(each)), np.float64)


@dataclass(frozen=True, slots=True)
class BinSums:
    """Rows of B bins: how many, the sum of their weights and of weight times value.

    Attributes:
        counts: [B].
        weights: [B].
        values: [B]; None where nothing but the rows is counted.
    """

    counts: IntArray
    weights: FloatArray
    values: FloatArray | None

    @classmethod
    def of(
        cls, bins: IntArray, size: int, weights: FloatArray | None, values: FloatArray | None = None
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
        fine: The same ratios in fine bins, for medians; None for means.
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


def _sums(bins: IntArray, values: FloatArray, size: int) -> FloatArray:
    return np.asarray(np.bincount(bins, values, size), np.float64)
