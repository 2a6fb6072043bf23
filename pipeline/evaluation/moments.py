"""Weighted mean and spread in bins of a stream: `of` a batch, `+`, read off."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.spacing import Floats, Indices


@dataclass(frozen=True, slots=True, eq=False)
class BinMoments:
    """Weighted moments of one quantity in B bins.

    `spread` is the weighted sum of squared deviations from the mean. Merging keeps deviations
    instead of sums of squares, since those cancel (Chan, Golub, LeVeque 1979); counts merge
    exactly, floats to rounding and identically for one order of merging.

    Attributes:
        counts: [B] rows.
        weights: [B] sums of w.
        squares: [B] sums of w^2.
        mean: [B]; 0 without rows.
        spread: [B].
    """

    counts: Indices
    weights: Floats
    squares: Floats
    mean: Floats
    spread: Floats

    @classmethod
    def empty(cls, num_bins: int = 1) -> Self:
        """The identity of `+`."""
        zero = np.zeros(num_bins)
        return cls(np.zeros(num_bins, dtype=np.int64), zero, zero, zero, zero)

    @classmethod
    def of(
        cls,
        values: NDArray[np.floating],
        *,
        bins: Indices | None = None,
        num_bins: int = 1,
        weights: Floats | None = None,
    ) -> Self:
        """The moments of a batch; values that are not finite are left out.

        Args:
            values: [N].
            bins: [N] bin of each value in [0, num_bins); None if there is one bin only.
            num_bins: B.
            weights: [N]; 1 if None.
        """
        wide = np.asarray(values, dtype=np.float64)
        keep = np.isfinite(wide)
        if not keep.all():
            wide = wide[keep]
            bins = None if bins is None else bins[keep]
            weights = None if weights is None else weights[keep]
        w = np.ones_like(wide) if weights is None else weights
        counts = np.array([len(wide)]) if bins is None else np.bincount(bins, minlength=num_bins)
        total, squares = counts.astype(np.float64), counts.astype(np.float64)
        if weights is not None:
            total, squares = _sums(w, bins, num_bins), _sums(w**2, bins, num_bins)
        mean = _divide(_sums(w * wide, bins, num_bins), total)
        centre = mean[0] if bins is None else mean[bins]
        spread = _sums(w * (wide - centre) ** 2, bins, num_bins)
        return cls(counts, total, squares, mean, spread)

    def __add__(self, other: "BinMoments") -> "BinMoments":
        total = self.weights + other.weights
        share = _divide(other.weights, total)
        step = other.mean - self.mean
        return BinMoments(
            counts=self.counts + other.counts,
            weights=total,
            squares=self.squares + other.squares,
            mean=self.mean + step * share,
            spread=self.spread + other.spread + step**2 * self.weights * share,
        )

    @property
    def std(self) -> Floats:
        """Standard deviation [B], divided by the sum of weights."""
        return np.sqrt(_divide(self.spread, self.weights))

    @property
    def effective_rows(self) -> Floats:
        """(sum w)^2 / sum w^2 [B]: rows of equal weight with the same statistical power."""
        return _divide(self.weights**2, self.squares)

    @property
    def mean_error(self) -> Floats:
        """Statistical error of the mean [B]: std / sqrt(effective rows)."""
        return _divide(self.std, np.sqrt(self.effective_rows))

    def to_dict(self) -> dict[str, Any]:
        """The state as plain lists."""
        return {name: getattr(self, name).tolist() for name in self.__slots__}


def _sums(values: Floats, bins: Indices | None, num_bins: int) -> Floats:
    """Sum of the values of each bin [num_bins]; of all of them [1] without bins."""
    if bins is None:
        return np.array([values.sum()])
    return np.asarray(np.bincount(bins, values, num_bins), dtype=np.float64)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient where the denominator is positive, else 0."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, 0.0)
