"""The histograms in the bins of all axes, filled with the rows of many parts at a time.

An accumulator is named by a `Key`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipeline.statistics.binning import Bins, Floats, Numbers
from pipeline.statistics.histogram import Cells, DenseHistogram


class Key(NamedTuple):
    """What an accumulator holds: a figure of a set, by axis or for a population."""

    figure: str
    name: str
    where: str


# A histogram is far larger than the cache, and each filling passes through all of it.
ROWS_AT_ONCE = 1 << 18


class _Waiting(NamedTuple):
    """Rows of one part that are not yet counted, as `DenseHistogram.fill` takes them."""

    cells: Numbers
    bins: Bins
    weights: Floats | None


@dataclass(slots=True, eq=False)
class Profiles:
    """Rows that wait, and the histograms of those that are counted.

    Attributes:
        histograms: By key: complete after `count`.
    """

    histograms: dict[Key, DenseHistogram] = field(default_factory=dict)
    _waiting: dict[Key, list[_Waiting]] = field(default_factory=dict)
    _rows: int = 0

    def add(
        self,
        key: Key,
        spacing: Cells,
        cells: Numbers,
        bins: Bins,
        num_bins: int,
        weights: Floats | None,
    ) -> None:
        """Adds rows to a histogram, which is made if it is the first time.

        Args:
            key: Of the histogram.
            spacing: Its cells.
            cells: [N] of each row.
            bins: [N, A] of each row on each axis, numbered through all axes. Rows of several
                histograms are joined only once if they share this array.
            num_bins: Of all axes together.
            weights: [N]; 1 if None.
        """
        if key not in self.histograms:
            weighted = weights is not None
            self.histograms[key] = DenseHistogram.empty(spacing, num_bins, weighted=weighted)
        self._waiting.setdefault(key, []).append(_Waiting(cells, bins, weights))

    def end_part(self, rows: int) -> None:
        """All rows of a part are added: counts them if enough wait."""
        self._rows += rows
        if self._rows >= ROWS_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Counts the rows that wait."""
        joined: dict[tuple[int, ...], tuple[Bins, Floats | None]] = {}
        for key, parts in self._waiting.items():
            same = tuple(id(part.bins) for part in parts)
            if same not in joined:
                joined[same] = _join(parts)
            cells = np.concatenate([part.cells for part in parts])
            self.histograms[key].fill(cells, *joined[same])
        self._waiting.clear()
        self._rows = 0


def _join(parts: Sequence[_Waiting]) -> tuple[Bins, Floats | None]:
    if len(parts) == 1:
        return parts[0].bins, parts[0].weights
    weights = [part.weights for part in parts if part.weights is not None]
    return np.concatenate([part.bins for part in parts]), np.concatenate(
        weights
    ) if weights else None
