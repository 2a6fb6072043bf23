"""Where in the detector clusters are tagged: bins of |z| and r.

Shape letters: N rows, C bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from pipeline.numerics.arrays import BoolArray, Columns, FloatArray, IntArray

_R_BINS = 1_000  # more than any detector has of a bin's width


@dataclass(frozen=True, slots=True, eq=False)
class PositionMap:
    """Rows and tagged rows in occupied bins of |z| and r.

    Attributes:
        width: Of a bin, mm.
        bins: [C] in rising order: number along |z| x 1000 + number along r.
        rows: [C].
        weights: [C] sums of w.
        tagged: [C] sums of w of tagged rows.
    """

    width: float
    bins: IntArray
    rows: IntArray
    weights: FloatArray
    tagged: FloatArray

    @classmethod
    def of(
        cls,
        columns: Columns,
        names: Sequence[str],
        is_tagged: BoolArray,
        weight: FloatArray | None,
        *,
        width: float,
    ) -> Self:
        """The map of N rows; names are those of x, y and z in mm."""
        x, y, z = (columns[name].astype(np.float64) for name in names)
        along_z = np.floor(np.abs(z) / width).astype(np.int64)
        along_r = np.minimum(np.floor(np.hypot(x, y) / width), _R_BINS - 1).astype(np.int64)
        bins, place = np.unique(along_z * _R_BINS + along_r, return_inverse=True)
        weight_N = np.ones(len(place)) if weight is None else weight
        count = len(bins)
        return cls(
            width,
            bins,
            np.bincount(place, minlength=count),
            np.bincount(place, weight_N, count).astype(np.float64),
            np.bincount(place, weight_N * is_tagged, count).astype(np.float64),
        )

    def __add__(self, other: "PositionMap") -> "PositionMap":
        bins = np.union1d(self.bins, other.bins)
        rows = np.zeros(len(bins), np.int64)
        weights, tagged = np.zeros(len(bins)), np.zeros(len(bins))
        for part in (self, other):
            at = np.searchsorted(bins, part.bins)
            rows[at] += part.rows
            weights[at] += part.weights
            tagged[at] += part.tagged
        return PositionMap(self.width, bins, rows, weights, tagged)

    def table(self) -> pa.Table:
        """Occupied bins with their rate of tags; null where the weights sum to 0 or less."""
        along_z, along_r = np.divmod(self.bins, _R_BINS)
        known = self.weights > 0
        rate = np.divide(self.tagged, self.weights, out=np.zeros(len(known)), where=known)
        return pa.table({
            "rows": self.rows,
            "low": along_z * self.width,
            "high": (along_z + 1) * self.width,
            "r_low": along_r * self.width,
            "r_high": (along_r + 1) * self.width,
            "weight": self.weights,
            "rate": pa.array(rate, mask=~known),
        })
