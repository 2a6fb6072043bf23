"""Weighted mean and spread in bins of a stream: `of` a batch, `+`, read off.

The sums of deviations in bins and their merging are compiled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import FloatArray, IntArray, RealArray
from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import Bins
from pipeline.statistics.sums_on_axes import sums_on_axes

Sums = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]


@exact_kernel
def binned_sums(
    values: FloatArray, bins: Bins, num_bins: int, weights: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Moments of Q quantities in bins, about the plain means of their finite values.

    Args:
        values: [N, Q]; what is not finite is left out.
        bins: [N] in [0, num_bins).
        num_bins: B.
        weights: [N]; empty for 1.

    Returns:
        Each [Q, B]: rows; sums of w; of w^2; centre, the plain mean (0 without rows); sums of
        w (x - centre), exactly 0 without weights; sums of w (x - centre)^2.
    """
    num_rows, size = values.shape
    is_weighted = len(weights) > 0
    counts = np.zeros((num_bins, size))
    centre, sums, squares = np.zeros_like(counts), np.zeros_like(counts), np.zeros_like(counts)
    for i in range(num_rows):
        b = bins[i]
        w = weights[i] if is_weighted else 1.0
        for q in range(size):
            value = values[i, q]
            is_known = abs(value) < np.inf
            centre[b, q] += value if is_known else 0.0
            counts[b, q] += 1.0 if is_known else 0.0
            sums[b, q] += w if is_known else 0.0
            squares[b, q] += w * w if is_known else 0.0
    for b in range(num_bins):
        for q in range(size):
            centre[b, q] = centre[b, q] / counts[b, q] if counts[b, q] > 0.0 else 0.0
    first, second = np.zeros_like(counts), np.zeros_like(counts)
    for i in range(num_rows):
        b = bins[i]
        w = weights[i] if is_weighted else 1.0
        for q in range(size):
            value = values[i, q]
            step = value - centre[b, q] if abs(value) < np.inf else 0.0
            first[b, q] += w * step if is_weighted else 0.0
            second[b, q] += w * step * step
    return (
        counts.T.astype(np.int64),
        sums.T.copy(),
        squares.T.copy(),
        centre.T.copy(),
        first.T.copy(),
        second.T.copy(),
    )


@exact_kernel
def merge_sums(counts: IntArray, sums: Sums, other_counts: IntArray, other_sums: Sums) -> Sums:
    """Merges moments of B bins.

    Args:
        counts: [B] rows.
        sums: Each [B]: sums of w, of w^2, centres, sums of w (x - centre), of w (x - centre)^2.
        other_counts: [B].
        other_sums: As `sums`.
    """
    weights, squares, centre, tilt, spread = sums
    other_weights, other_squares, other_centre, other_tilt, other_spread = other_sums
    middle, tilts, spreads = np.empty_like(centre), np.empty_like(centre), np.empty_like(centre)
    for b in range(len(counts)):
        rows, other_rows = counts[b], other_counts[b]
        share = other_rows / max(rows + other_rows, 1)
        middle[b] = centre[b] + (other_centre[b] - centre[b]) * share
        step = centre[b] - middle[b] if rows > 0 else 0.0
        other_step = other_centre[b] - middle[b] if other_rows > 0 else 0.0
        # Where all weights are 1 no rounding may look like a tilt.
        is_plain = weights[b] == squares[b] == rows and tilt[b] == 0.0
        is_other_plain = other_weights[b] == other_squares[b] == other_rows and other_tilt[b] == 0.0
        moved = tilt[b] + weights[b] * step
        other_moved = other_tilt[b] + other_weights[b] * other_step
        tilts[b] = 0.0 if is_plain and is_other_plain else moved + other_moved
        spreads[b] = (spread[b] + 2.0 * step * tilt[b] + weights[b] * (step * step)) + (
            other_spread[b]
            + 2.0 * other_step * other_tilt[b]
            + other_weights[b] * (other_step * other_step)
        )
    return weights + other_weights, squares + other_squares, middle, tilts, spreads


ROUNDING = 1e-12  # of a variance: equal values must not seem to have a negative one

_NO_WEIGHTS = np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class BinMoments:
    """Weighted moments of one quantity in B bins, or of Q quantities [Q, B].

    Deviations are kept instead of sums of squares, since those cancel (Chan, Golub, LeVeque
    1979), and from the plain mean of the rows, which weights of either sign always leave defined:
    all sums of weights stay linear, so that parts whose weights cancel merge like others. Counts
    merge exactly, floats to rounding and identically for one order of merging.

    Attributes:
        counts: [B] rows.
        weights: [B] sums of w.
        squares: [B] sums of w^2.
        centre: [B] plain means; 0 without rows.
        tilt: [B] sums of w (x - centre); exactly 0 without weights.
        spread: [B] sums of w (x - centre)^2.
    """

    counts: IntArray
    weights: FloatArray
    squares: FloatArray
    centre: FloatArray
    tilt: FloatArray
    spread: FloatArray

    @classmethod
    def empty(cls, num_bins: int = 1) -> Self:
        """Moments of no rows, which `+` leaves all others as they are with."""
        zero = np.zeros(num_bins)
        return cls(np.zeros(num_bins, dtype=np.int64), zero, zero, zero, zero, zero)

    @classmethod
    def of(
        cls,
        values: RealArray,
        *,
        bins: NDArray[np.integer] | None = None,
        num_bins: int = 1,
        weights: FloatArray | None = None,
    ) -> Self:
        """The moments of a batch; values that are not finite are left out.

        Args:
            values: [N].
            bins: [N] bin of each value in [0, num_bins); None if there is one bin only.
            num_bins: B.
            weights: [N]; 1 if None.
        """
        if bins is not None:
            table = cls.of_several([values], bins=bins, num_bins=num_bins, weights=weights)
            return cls(*(getattr(table, name)[0] for name in cls.__slots__))
        wide = np.asarray(values, dtype=np.float64)
        total = wide.sum()
        if not np.isfinite(total):
            keep = np.isfinite(wide)
            wide = wide[keep]
            weights = None if weights is None else weights[keep]
            total = wide.sum()
        counts = np.array([len(wide)])
        centre = np.array([total / len(wide) if len(wide) else 0.0])
        steps = wide - centre
        if weights is None:
            plain, none = counts.astype(np.float64), np.zeros(1)
            return cls(
                counts, plain, plain, centre, none, np.array([np.square(steps, out=steps).sum()])
            )
        sums = (weights, weights**2, weights * steps, weights * steps**2)
        total, squares, tilt, spread = (np.array([each.sum()]) for each in sums)
        return cls(counts, total, squares, centre, tilt, spread)

    @classmethod
    def of_several(
        cls,
        values: Sequence[RealArray],
        *,
        bins: NDArray[np.integer],
        num_bins: int,
        weights: FloatArray | None = None,
    ) -> Self:
        """The moments [Q, B] of several quantities [N] in the same bins."""
        table = np.stack(values, axis=1).astype(np.float64, copy=False)
        return cls.of_table(table, bins=bins, num_bins=num_bins, weights=weights)

    @classmethod
    def of_table(
        cls,
        table: FloatArray,
        *,
        bins: NDArray[np.integer],
        num_bins: int,
        weights: FloatArray | None = None,
    ) -> Self:
        """The same for quantities in the columns of a table [N, Q]."""
        some = _NO_WEIGHTS if weights is None else weights
        return cls(*binned_sums(table, bins.astype(np.uint16, copy=False), num_bins, some))

    @classmethod
    def on_axes(
        cls,
        values: Sequence[FloatArray],
        *,
        bins: Bins,
        totals: FloatArray,
        weights: FloatArray | None = None,
    ) -> Self:
        """The moments [Q, B] of quantities in the bins of several axes at once.

        Deviations are taken from one centre for each quantity: the bins of one axis lie within
        the spread of most rows, so little of them cancels.

        Args:
            values: Q times [N]; what is not finite is left out.
            bins: [N, A] bin of each row on each axis, numbered through all axes.
            totals: [B, 3] from `on_axes.totals_on_axes`.
            weights: [N]; 1 if None.
        """
        some = _NO_WEIGHTS if weights is None else weights
        sums, centre = sums_on_axes(values, bins, totals, some)
        counts = sums[0].astype(np.int64)
        centres = np.where(counts > 0, centre[:, None], 0.0)
        if weights is not None:
            return cls(counts, sums[1], sums[2], centres, sums[3], sums[4])
        plain = sums[0].copy()
        shift = sums[3] / np.maximum(plain, 1)
        spread = np.maximum(sums[4] - shift * sums[3], 0.0)
        return cls(counts, plain, plain, centres + shift, np.zeros_like(plain), spread)

    def __add__(self, other: "BinMoments") -> "BinMoments":
        sums = merge_sums(self.counts.ravel(), self._sums, other.counts.ravel(), other._sums)
        shape = self.counts.shape
        return BinMoments(self.counts + other.counts, *(each.reshape(shape) for each in sums))

    @property
    def _sums(self) -> Sums:
        """All besides the counts, flat."""
        parts = self.weights, self.squares, self.centre, self.tilt, self.spread
        one, two, three, four, five = (part.ravel() for part in parts)
        return one, two, three, four, five

    @property
    def mean(self) -> FloatArray:
        """Weighted mean [B]; NaN without rows, and where the weights do not add up to any."""
        return self.centre + _divide(self.tilt, self.weights)

    @property
    def std(self) -> FloatArray:
        """Standard deviation [B], divided by the sum of weights; NaN where it has no square."""
        whole = _divide(self.spread, self.weights)
        square = whole - _divide(self.tilt, self.weights) ** 2
        known = square >= -ROUNDING * np.abs(whole)
        return np.sqrt(np.where(known, np.maximum(square, 0.0), np.nan))

    @property
    def effective_rows(self) -> FloatArray:
        """(sum w)^2 / sum w^2 [B]: rows of equal weight with the same statistical power."""
        return np.asarray(
            np.where(self.squares > 0, self.weights**2 / np.maximum(self.squares, 1e-300), 0.0)
        )

    @property
    def mean_error(self) -> FloatArray:
        """Statistical error of the mean [B]: std / sqrt(effective rows); NaN for a single row."""
        error = self.std / np.sqrt(np.maximum(self.effective_rows, 1e-300))
        return np.where(self.counts > 1, error, np.nan)

    def quantity(self, number: int, bins: slice = slice(None)) -> "BinMoments":
        """One of Q quantities, in all bins or some."""
        return BinMoments(*(getattr(self, name)[number, bins] for name in self.__slots__))


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """The quotient where the denominator is positive, else NaN."""
    safe = np.where(denominator > 0, denominator, np.nan)
    return np.asarray(numerator / safe)
