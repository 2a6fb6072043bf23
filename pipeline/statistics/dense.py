"""Histograms in the bins of all axes at once, for the many profiles of an evaluation."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.binning import Bins, Floats, Indices, Numbers
from pipeline.statistics.histogram import Cells, FineHistogram
from pipeline.statistics.sparse_histogram import Occupied, sort_rows
from pipeline.statistics.sums_on_axes import count_rows

_NO_WEIGHTS = np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class DenseHistogram:
    """Rows in cells of a quantity, in each of the B bins of all axes together.

    Cells that no part fills cost no memory: the pages of their counts are never touched.

    Attributes:
        spacing: The cells.
        counts: [cells, B] rows; 32 bits wide while parts are added, 64 once merged.
        sums: [cells, B, 2] sums of w and of w^2; [0, 0, 0] without weights.
        outside: [B] rows whose value was no number.
    """

    spacing: Cells
    counts: NDArray[np.uint32] | Indices
    sums: Floats
    outside: Indices

    @classmethod
    def empty(cls, spacing: Cells, num_bins: int, *, weighted: bool) -> Self:
        """The identity of `+`."""
        shape = (spacing.width, num_bins)
        sums = np.zeros((*shape, 2) if weighted else (0, 0, 0))
        return cls(spacing, np.zeros(shape, np.uint32), sums, np.zeros(num_bins, np.int64))

    def fill(self, cells: Numbers, bins: Bins, weights: Floats | None) -> None:
        """Adds rows.

        Args:
            cells: [N] of each row, as `Spacing.index` gives them, or UNSEEN.
            bins: [N, A] bin of each row on each axis, numbered through all axes.
            weights: [N]; 1 if None.
        """
        some = _NO_WEIGHTS if weights is None else weights
        rows = sort_rows(cells, self.spacing.width)
        count_rows(rows.order, rows.cells, bins, self.counts, self.sums, some)
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
        cells = np.flatnonzero(counts)
        weights = squares = np.zeros(0)
        if len(self.sums):
            sums = np.ascontiguousarray(self.sums[:, bins].transpose(1, 0, 2)).reshape(-1, 2)
            weights, squares = sums[cells].T.copy()
        occupied = Occupied(cells.astype(np.int32), counts.ravel()[cells], weights, squares)
        return FineHistogram(self.spacing, len(counts), occupied, self.outside[bins])

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "spacing": self.spacing.model_dump(),
            "counts": self.counts.tolist(),
            "sums": self.sums.tolist(),
            "outside": self.outside.tolist(),
        }
