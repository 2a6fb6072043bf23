"""Fine histograms in bins of an axis: quantiles of a stream that do not depend on its order."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.distribution import Distribution
from pipeline.evaluation.spacing import OUTSIDE, Floats, Indices, Spacing


@dataclass(frozen=True, slots=True, eq=False)
class FineHistogram:
    """Rows in fine cells of a quantity, separately for B bins of something else.

    Only occupied cells are kept, so that a wide range costs nothing; counts merge exactly.

    Attributes:
        spacing: The fine cells of the quantity.
        num_bins: B; 1 for an inclusive histogram.
        cells: [C] occupied cells in rising order: bin x (spacing.cells + 2) + index.
        counts: [C] rows.
        weights: [C] sums of w.
        squares: [C] sums of w^2.
        outside: Rows whose value was no number; they are in no cell.
    """

    spacing: Spacing
    num_bins: int
    cells: Indices
    counts: Indices
    weights: Floats
    squares: Floats
    outside: int

    @classmethod
    def empty(cls, spacing: Spacing, num_bins: int = 1) -> Self:
        """The identity of `+`."""
        none, zero = np.zeros(0, dtype=np.int64), np.zeros(0)
        return cls(spacing, num_bins, none, none, zero, zero, 0)

    @classmethod
    def of(
        cls,
        values: NDArray[np.floating],
        spacing: Spacing,
        *,
        bins: Indices | None = None,
        num_bins: int = 1,
        weights: Floats | None = None,
    ) -> Self:
        """The histogram of a batch of values [N]; `bins` and `weights` as in `of_index`."""
        return cls.of_index(
            spacing.index(values), spacing, bins=bins, num_bins=num_bins, weights=weights
        )

    @classmethod
    def of_index(
        cls,
        index: Indices,
        spacing: Spacing,
        *,
        bins: Indices | None = None,
        num_bins: int = 1,
        weights: Floats | None = None,
    ) -> Self:
        """The histogram of rows whose fine cell is known already, for use with several axes.

        Args:
            index: [N] from `spacing.index`.
            spacing: The fine cells.
            bins: [N] bin of each row in [0, num_bins); all in bin 0 if None.
            num_bins: B.
            weights: [N]; 1 if None.
        """
        width = spacing.cells + 2
        flat = index if bins is None else bins * width + index
        known = index != OUTSIDE
        if not known.all():
            flat = flat[known]
            weights = None if weights is None else weights[known]
        counts = np.bincount(flat, minlength=num_bins * width)
        cells = np.flatnonzero(counts)
        total = squares = counts[cells].astype(np.float64)
        if weights is not None:
            total = _sums(flat, weights, len(counts))[cells]
            squares = _sums(flat, weights**2, len(counts))[cells]
        outside = len(index) - len(flat)
        return cls(spacing, num_bins, cells, counts[cells], total, squares, outside)

    def __add__(self, other: "FineHistogram") -> "FineHistogram":
        if (self.spacing, self.num_bins) != (other.spacing, other.num_bins):
            msg = (
                f"histograms of {self.spacing} in {self.num_bins} bins and "
                f"{other.spacing} in {other.num_bins} bins cannot be merged"
            )
            raise ValueError(msg)
        cells = np.union1d(self.cells, other.cells)
        counts = np.zeros(len(cells), dtype=np.int64)
        weights, squares = np.zeros(len(cells)), np.zeros(len(cells))
        for part in (self, other):
            at = np.searchsorted(cells, part.cells)
            counts[at] += part.counts
            weights[at] += part.weights
            squares[at] += part.squares
        outside = self.outside + other.outside
        return FineHistogram(self.spacing, self.num_bins, cells, counts, weights, squares, outside)

    @property
    def rows(self) -> Indices:
        """Rows in each bin [B], flow cells included."""
        owner = self.cells // (self.spacing.cells + 2)
        rows = np.zeros(self.num_bins, dtype=np.int64)
        np.add.at(rows, owner, self.counts)
        return rows

    def distribution(self, bin_number: int = 0) -> Distribution:
        """What fell into one bin, ready for quantiles; flow cells have no width."""
        width = self.spacing.cells + 2
        start, stop = np.searchsorted(self.cells, [bin_number * width, (bin_number + 1) * width])
        chosen = slice(start, stop)
        inner = self.spacing.edges()
        edges = np.concatenate([inner[:1], inner, inner[-1:]])
        index = self.cells[chosen] - bin_number * width
        return Distribution(
            low=edges[index],
            high=edges[index + 1],
            weights=self.weights[chosen],
            rows=int(self.counts[chosen].sum()),
            squares=float(self.squares[chosen].sum()),
        )

    def mirrored(self) -> "FineHistogram":
        """The histogram of 1/x, exactly, for a log spacing."""
        width = self.spacing.cells + 2
        owner, index = np.divmod(self.cells, width)
        cells = owner * width + (width - 1 - index)
        order = np.argsort(cells)
        return FineHistogram(
            self.spacing.mirrored(),
            self.num_bins,
            cells[order],
            self.counts[order],
            self.weights[order],
            self.squares[order],
            self.outside,
        )

    def rebinned(self, group: int, bin_number: int = 0) -> tuple[Floats, Indices, Floats, Floats]:
        """One bin's cells in groups, without flow: edges [G + 1], rows, sums of w, of w^2 [G].

        A last group that is not full is left out.
        """
        width = self.spacing.cells + 2
        num_groups = self.spacing.cells // group
        owner, index = np.divmod(self.cells, width)
        at = (index - 1) // group
        keep = (owner == bin_number) & (index >= 1) & (at < num_groups)
        rows = np.zeros(num_groups, dtype=np.int64)
        np.add.at(rows, at[keep], self.counts[keep])
        weights = _sums(at[keep], self.weights[keep], num_groups)
        squares = _sums(at[keep], self.squares[keep], num_groups)
        return self.spacing.edges()[: num_groups * group + 1 : group], rows, weights, squares

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "spacing": self.spacing.model_dump(),
            "num_bins": self.num_bins,
            "cells": self.cells.tolist(),
            "counts": self.counts.tolist(),
            "weights": self.weights.tolist(),
            "squares": self.squares.tolist(),
            "outside": self.outside,
        }


def _sums(at: Indices, values: Floats, length: int) -> Floats:
    return np.asarray(np.bincount(at, values, length), dtype=np.float64)
