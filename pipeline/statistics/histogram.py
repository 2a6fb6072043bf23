"""Fine histograms in bins of an axis: quantiles of a stream that do not depend on its order.

`DenseHistogram` holds the bins of all axes at once, for the many profiles of an evaluation.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import FloatArray, Int32Array, IntArray, RealArray
from pipeline.statistics.binning import Grouped, Spacing
from pipeline.statistics.distribution import Distribution
from pipeline.statistics.sparse_histogram import (
    Occupied,
    SortedRows,
    count_fine_bins,
    group_rows,
    merge_occupied,
    sort_rows,
)
from pipeline.statistics.sums_on_axes import count_rows

FineBins = Spacing | Grouped
BinNumbers = NDArray[np.integer]

_NONE = np.zeros(0)
_ONE_BIN = np.zeros(0, np.uint16)
_FEW_FINE_BINS = 1 << 17  # whose counts stay in the second-level cache


@dataclass(frozen=True, slots=True, eq=False)
class FineHistogram:
    """Rows in fine bins of a quantity, separately for B bins of something else.

    Only occupied fine bins are kept, so that a wide range costs nothing; counts merge exactly.

    Attributes:
        spacing: The fine bins of the quantity.
        num_bins: B; 1 for an inclusive histogram.
        occupied: The fine bins that hold rows: bin x spacing.width + index.
        outside: [B] rows whose value was no number; they are in no fine bin.
    """

    spacing: FineBins
    num_bins: int
    occupied: Occupied
    outside: IntArray

    @classmethod
    def empty(cls, spacing: FineBins, num_bins: int = 1) -> Self:
        """A histogram of no rows, which `+` leaves every other as it is with."""
        none = Occupied(np.zeros(0, np.int32), np.zeros(0, np.int64), _NONE, _NONE)
        return cls(spacing, num_bins, none, np.zeros(num_bins, np.int64))

    @classmethod
    def of(
        cls,
        values: RealArray,
        spacing: FineBins,
        *,
        bins: BinNumbers | None = None,
        num_bins: int = 1,
        weights: FloatArray | None = None,
    ) -> Self:
        """The histogram of a batch of values [N]; the rest as in `of_index`."""
        return cls.of_index(
            spacing.index(values), spacing, bins=bins, num_bins=num_bins, weights=weights
        )

    @classmethod
    def of_index(
        cls,
        index: Int32Array,
        spacing: FineBins,
        *,
        bins: BinNumbers | None = None,
        num_bins: int = 1,
        weights: FloatArray | None = None,
    ) -> Self:
        """The histogram of rows whose fine bin is known already; the rest as in `of_sorted`."""
        index = index.astype(np.int32, copy=False)
        if num_bins * spacing.width > _FEW_FINE_BINS:
            rows = sort_rows(index, spacing.width)
            return cls.of_sorted(rows, spacing, bins=bins, num_bins=num_bins, weights=weights)
        at, some = _arrays(bins, weights)
        occupied, outside = count_fine_bins(index, at, num_bins, spacing.width, some)
        return cls(spacing, num_bins, occupied, outside)

    @classmethod
    def of_sorted(
        cls,
        rows: SortedRows,
        spacing: FineBins,
        *,
        bins: BinNumbers | None = None,
        num_bins: int = 1,
        weights: FloatArray | None = None,
    ) -> Self:
        """The histogram of rows that are sorted already, for use with several axes.

        Args:
            rows: From `occupied.sort_rows` of the rows' fine bins.
            spacing: The fine bins.
            bins: [N] bin of each row in [0, num_bins); all in bin 0 if None.
            num_bins: B.
            weights: [N], of either sign; 1 if None.
        """
        at, some = _arrays(bins, weights)
        occupied, outside = group_rows(rows, at, num_bins, spacing.width, some)
        return cls(spacing, num_bins, occupied, outside)

    def __add__(self, other: "FineHistogram") -> "FineHistogram":
        if (self.spacing, self.num_bins) != (other.spacing, other.num_bins):
            msg = (
                f"histograms of {self.spacing} in {self.num_bins} bins and "
                f"{other.spacing} in {other.num_bins} bins cannot be merged"
            )
            raise ValueError(msg)
        one, two = self.occupied, other.occupied
        if len(one.weights) + len(two.weights):
            one, two = _weighted(one), _weighted(two)
        merged = merge_occupied(one, two)
        return FineHistogram(self.spacing, self.num_bins, merged, self.outside + other.outside)

    @property
    def fine_bins(self) -> Int32Array:
        """[C] occupied fine bins in rising order."""
        return self.occupied.fine_bins

    @property
    def counts(self) -> IntArray:
        """Number of rows in each of the C occupied fine bins."""
        return self.occupied.counts

    @property
    def weights(self) -> FloatArray:
        """Sum of the weights w in each of the C occupied fine bins."""
        return _weighted(self.occupied).weights

    @property
    def squares(self) -> FloatArray:
        """Sum of w^2 in each of the C occupied fine bins, the variance of the sum of w."""
        return _weighted(self.occupied).squares

    @property
    def rows(self) -> IntArray:
        """Rows in each bin [B], flow bins included."""
        rows = np.bincount(self._owner, self.counts, self.num_bins)  # exact below 2^53
        return rows.astype(np.int64)

    def distribution(self, bin_number: int = 0) -> Distribution:
        """What fell into one bin, ready for quantiles; flow bins have no width."""
        chosen = self._fine_bins_of(bin_number)
        edges = self.spacing.edges()
        index = self.fine_bins[chosen] - bin_number * self.spacing.width
        last = len(edges) - 1
        occupied = _weighted(_take(self.occupied, chosen))
        return Distribution(
            low=edges[np.maximum(index - 1, 0)],
            high=edges[np.minimum(index, last)],
            weights=occupied.weights,
            rows=int(occupied.counts.sum()),
            squares=float(occupied.squares.sum()),
        )

    def rebinned(
        self, group: int, bin_number: int = 0
    ) -> tuple[FloatArray, IntArray, FloatArray, FloatArray]:
        """One bin's fine bins in groups, without flow: edges [G + 1], rows, sums of w, of w^2 [G].

        A last group that is not full is left out.
        """
        num_groups = self.spacing.cells // group
        chosen = self._fine_bins_of(bin_number)
        index = self.fine_bins[chosen] - bin_number * self.spacing.width
        at = (index - 1) // group
        keep = (index >= 1) & (at < num_groups)
        rows, weights, squares = (
            np.asarray(np.bincount(at[keep], each[chosen][keep], num_groups), np.float64)
            for each in (self.counts, self.weights, self.squares)
        )
        edges = self.spacing.edges()[: num_groups * group + 1 : group]
        return edges, rows.astype(np.int64), weights, squares

    def up_to(self, bin_number: int) -> "FineHistogram":
        """The inclusive histogram of all bins up to one of them, that one included."""
        end = int(np.searchsorted(self.fine_bins, (bin_number + 1) * self.spacing.width))
        index = self.fine_bins[:end] % self.spacing.width
        rows, weights, squares = (
            np.asarray(np.bincount(index, each[:end], self.spacing.width), np.float64)
            for each in (self.counts, self.weights, self.squares)
        )
        fine_bins = np.flatnonzero(rows)
        occupied = Occupied(
            fine_bins.astype(np.int32),
            rows[fine_bins].astype(np.int64),
            weights[fine_bins],
            squares[fine_bins],
        )
        outside = self.outside[: bin_number + 1].sum(keepdims=True)
        return FineHistogram(self.spacing, 1, occupied, outside)

    @property
    def _owner(self) -> Int32Array:
        return np.asarray(self.fine_bins // self.spacing.width)

    def _fine_bins_of(self, bin_number: int) -> slice:
        width = self.spacing.width
        ends = np.searchsorted(self.fine_bins, [bin_number * width, (bin_number + 1) * width])
        return slice(int(ends[0]), int(ends[1]))


def _arrays(
    bins: BinNumbers | None, weights: FloatArray | None
) -> tuple[NDArray[np.uint16], FloatArray]:
    """As kernels take them: empty for none."""
    at = _ONE_BIN if bins is None else bins.astype(np.uint16, copy=False)
    return at, _NONE if weights is None else weights


def _weighted(occupied: Occupied) -> Occupied:
    """With sums of weights, which are the counts where no row has a weight."""
    if len(occupied.weights) == len(occupied.fine_bins):
        return occupied
    plain = occupied.counts.astype(np.float64)
    return occupied._replace(weights=plain, squares=plain)


def _take(occupied: Occupied, at: slice | IntArray) -> Occupied:
    """Some of the fine bins."""
    fine_bins, counts, weights, squares = occupied
    if len(weights) == len(fine_bins):
        weights, squares = weights[at], squares[at]
    return Occupied(fine_bins[at], counts[at], weights, squares)


_NO_WEIGHTS = np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class DenseHistogram:
    """Rows in fine bins of a quantity, in each of the B bins of all axes together.

    Fine bins that no part fills cost no memory: the pages of their counts are never touched.

    boost_histogram 1.8 was tried for `fill`, one Histogram(Integer, Integer) for all axes, filled
    axis after axis with the same numbers (262,144 rows, 16 axes, 1,718 fine bins): 140 ns a row
    with `Unlimited` storage and 201 with `Int64`, 153 here; with weights 260 and as much again for
    the number of rows, which `Weight` does not keep, 241 here. What it would replace is
    `sums_on_axes.count_rows`. `evaluation.tables.plottable` gives the tables as UHI histograms.

    Attributes:
        spacing: The fine bins.
        counts: [fine bins, B] rows; 32 bits wide while parts are added, 64 once merged.
        sums: [fine bins, B, 2] sums of w and of w^2; [0, 0, 0] without weights.
        outside: [B] rows whose value was no number.
    """

    spacing: FineBins
    counts: NDArray[np.uint32] | IntArray
    sums: FloatArray
    outside: IntArray

    @classmethod
    def empty(cls, spacing: FineBins, num_bins: int, *, weighted: bool) -> Self:
        """A histogram of no rows, which `+` leaves every other as it is with."""
        shape = (spacing.width, num_bins)
        sums = np.zeros((*shape, 2) if weighted else (0, 0, 0))
        return cls(spacing, np.zeros(shape, np.uint32), sums, np.zeros(num_bins, np.int64))

    def fill(
        self, fine_bins: Int32Array, bins: NDArray[np.uint16], weights: FloatArray | None
    ) -> None:
        """Adds rows.

        Args:
            fine_bins: [N] of each row, as `Spacing.index` gives them, or UNSEEN.
            bins: [N, A] bin of each row on each axis, numbered through all axes.
            weights: [N]; 1 if None.
        """
        some = _NO_WEIGHTS if weights is None else weights
        rows = sort_rows(fine_bins, self.spacing.width)
        count_rows(rows.order, rows.fine_bins, bins, self.counts, self.sums, some)
        missing = bins[rows.outside].ravel()
        self.outside[:] += np.bincount(missing, minlength=len(self.outside))

    def __add__(self, other: "DenseHistogram") -> "DenseHistogram":
        if (self.spacing, self.counts.shape) != (other.spacing, other.counts.shape):
            msg = f"histograms of {self.spacing} and {other.spacing} cannot be merged"
            raise ValueError(msg)
        return DenseHistogram(
            self.spacing,
            self.counts.astype(np.int64) + other.counts,
            self.sums + other.sums,
            self.outside + other.outside,
        )

    def on_axis(self, bins: slice) -> FineHistogram:
        """The histogram in some of the bins."""
        counts = np.ascontiguousarray(self.counts[:, bins].T).astype(np.int64)
        fine_bins = np.flatnonzero(counts)
        weights = squares = np.zeros(0)
        if len(self.sums):
            sums = np.ascontiguousarray(self.sums[:, bins].transpose(1, 0, 2)).reshape(-1, 2)
            weights, squares = sums[fine_bins].T.copy()
        occupied = Occupied(fine_bins.astype(np.int32), counts.ravel()[fine_bins], weights, squares)
        return FineHistogram(self.spacing, len(counts), occupied, self.outside[bins])
