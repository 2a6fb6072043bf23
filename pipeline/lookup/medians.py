"""Medians in the bins of a table, of a stream: rows in fine cells of log10 of the ratio."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.lookup.bins import Floats, Indices

CELLS = 4096  # over the range of the training rows: some thousandths of the ratio each


@dataclass(frozen=True, slots=True)
class FineSums:
    """Weights by bin and fine cell; only occupied cells are kept.

    Attributes:
        low: log10 of the ratio at the first cell's lower edge.
        high: At the last cell's upper edge; rows beyond are in the end cells.
        cells: [C] bin x CELLS + cell, rising.
        weights: [C] sums.
    """

    low: float
    high: float
    cells: Indices
    weights: Floats

    @classmethod
    def of(
        cls, bins: Indices, ratio: Floats, weights: Floats | None, log10_range: tuple[float, float]
    ) -> Self:
        """The sums of N rows with a positive ratio; their weights are 1 if None."""
        low, high = log10_range
        place = (np.log10(ratio) - low) * (CELLS / (high - low))
        cells = bins * CELLS + np.clip(place, 0, CELLS - 1).astype(np.int64)
        return cls(
            low, high, *_sum_equal(cells, np.ones(len(bins)) if weights is None else weights)
        )

    def __add__(self, other: "FineSums") -> "FineSums":
        cells = np.concatenate([self.cells, other.cells])
        weights = np.concatenate([self.weights, other.weights])
        return FineSums(self.low, self.high, *_sum_equal(cells, weights))

    def medians(self, num_bins: int, stride: int) -> Floats:
        """The median of the ratio [num_bins / stride] with `stride` bins after each other as one.

        Interpolated within its cell; NaN where the weights do not add up to any.
        """
        owner, cell = np.divmod(self.cells, CELLS)
        keys, weights = _sum_equal(owner // stride * CELLS + cell, self.weights)
        owner, cell = np.divmod(keys, CELLS)
        first = np.searchsorted(owner, np.arange(num_bins // stride))
        last = np.searchsorted(owner, np.arange(num_bins // stride), side="right") - 1
        reached = np.concatenate([[0.0], np.cumsum(weights)])
        half = (reached[last + 1] + reached[first]) / 2
        medians = np.full(len(half), np.nan)
        known = np.flatnonzero(reached[last + 1] > reached[first])
        at = np.searchsorted(reached[1:], half[known])
        at = np.clip(at, first[known], last[known])
        share = (half[known] - reached[at]) / weights[at]
        step = (self.high - self.low) / CELLS
        medians[known] = 10.0 ** (self.low + (cell[at] + share) * step)
        return medians


def _sum_equal(cells: Indices, weights: Floats) -> tuple[Indices, Floats]:
    """Each cell once, rising, with the sum of its weights."""
    each, place = np.unique(cells, return_inverse=True)
    return each, np.asarray(np.bincount(place, weights, len(each)), np.float64)
