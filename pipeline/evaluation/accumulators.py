"""What an evaluation accumulates, each kind as a typed `Figure`, and the rows that wait for it.

Whoever fills a figure and whoever reads it name it by the same object of this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np

from pipeline.numerics.arrays import FloatArray, Int32Array
from pipeline.statistics.binning import Bins
from pipeline.statistics.histogram import DenseHistogram, FineBins, FineHistogram
from pipeline.statistics.moments import BinMoments

Accumulator = TypeVar("Accumulator", FineHistogram, BinMoments, DenseHistogram)

# Figures of one group share their axes, whose bins are numbered through.
AxisGroup = Literal["profiles", "spectra", "planes", "scores"]


@dataclass(frozen=True, slots=True)
class Figure(Generic[Accumulator]):
    """One quantity of each calibrated set, and what accumulates it.

    Attributes:
        name: As the tables and the CSV files say it.
        accumulator: Its class.
        axes: Whose axes it has, if it is accumulated in the bins of all of them.
        finer: The same quantity with all its fine bins on one axis, read where it is there.
    """

    name: str
    accumulator: type[Accumulator]
    axes: AxisGroup = "profiles"
    finer: "Figure[FineHistogram] | None" = None


class Key(NamedTuple):
    """Names one accumulator.

    Attributes:
        figure: What it holds.
        name: Of the set, or of the two that are compared.
        where: The population, the axis, `AXES` for the bins of all, or the set that ranks rows.
    """

    figure: Figure[FineHistogram] | Figure[BinMoments] | Figure[DenseHistogram]
    name: str
    where: str


def _histogram(name: str) -> Figure[FineHistogram]:
    return Figure(name, FineHistogram)


# Calibrated over true numerator: in each population, on the axis of closure, and on all axes.
RATIO_IN = _histogram("ratio_in")
RATIO_ON_TRUTH = _histogram("ratio")
RATIO = Figure("ratio", DenseHistogram, finer=RATIO_ON_TRUTH)
# Means of ratio - 1 and 1 / ratio - 1, each of all rows and of those within `truncate`; the
# quantities of the accumulator in this order.
RATIO_MEANS = Figure("ratio_means", BinMoments)
DEVIATIONS = ("delta_e", "delta_e_truncated", "delta_r", "delta_r_truncated")

# Pulls: (central - true) / sigma_tot, and the same in log10, which is on axes too.
PULL_LINEAR, PULL_LOG = _histogram("t_tot"), _histogram("t_log")
PULL = Figure("pull", DenseHistogram, "scores")
PIT = _histogram("pit")
PIT_ON_AXES = Figure("pit_in", DenseHistogram, "scores")
# Of each of `scores.SCORES`, in their order on axes.
SCORE_MEANS = Figure("score_means", BinMoments, "scores")

SIGMAS = tuple(_histogram(name) for name in ("sigma_tot", "sigma_syst", "sigma_stat"))
SIGMA_RATIO = _histogram("sigma_ratio")  # sigma_tot_log10 over the reference's
SELECTION = _histogram("selection")  # the ratio in bins of the relative uncertainty

# Rows by class, rows in the window of uncertainties, and target against axis.
SPECTRUM = Figure("spectrum", DenseHistogram, "spectra")
WINDOW = Figure("window", DenseHistogram, "spectra")
PLANE = Figure("plane", DenseHistogram, "planes")
MAP = _histogram("map")  # r against |z|

# Two sets: relative differences of sigma_tot and of the central value; both sets' sigma_tot over
# central value and both sets' pulls, in two dimensions and with the sums of a correlation.
PAIR_SIGMA, PAIR_CENTRAL = _histogram("pair_sigma"), _histogram("pair_central")
PAIR_PLANES = {name: _histogram(f"pair_{name}") for name in ("sigma_rel", "t_log")}
CORRELATIONS = {name: Figure(f"correlation_{name}", BinMoments) for name in PAIR_PLANES}


# A histogram is far larger than the cache, and each filling passes through all of it.
ROWS_AT_ONCE = 1 << 18


class _Waiting(NamedTuple):
    """Rows of one part that are not yet counted, as `DenseHistogram.fill` takes them."""

    fine_bins: Int32Array
    bins: Bins
    weights: FloatArray | None


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
        spacing: FineBins,
        fine_bins: Int32Array,
        bins: Bins,
        num_bins: int,
        weights: FloatArray | None,
    ) -> None:
        """Adds rows to a histogram, which is made if it is the first time.

        Args:
            key: Of the histogram.
            spacing: Its fine bins.
            fine_bins: [N] of each row.
            bins: [N, A] of each row on each axis, numbered through all axes. Rows of several
                histograms are joined only once if they share this array.
            num_bins: Of all axes together.
            weights: [N]; 1 if None.
        """
        if key not in self.histograms:
            weighted = weights is not None
            self.histograms[key] = DenseHistogram.empty(spacing, num_bins, weighted=weighted)
        self._waiting.setdefault(key, []).append(_Waiting(fine_bins, bins, weights))

    def end_part(self, rows: int) -> None:
        """All rows of a part are added: counts them if enough wait."""
        self._rows += rows
        if self._rows >= ROWS_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Adds the rows that wait to their histograms, and forgets them."""
        joined: dict[tuple[int, ...], tuple[Bins, FloatArray | None]] = {}
        for key, parts in self._waiting.items():
            same = tuple(id(part.bins) for part in parts)
            if same not in joined:
                joined[same] = _join(parts)
            fine_bins = np.concatenate([part.fine_bins for part in parts])
            self.histograms[key].fill(fine_bins, *joined[same])
        self._waiting.clear()
        self._rows = 0


def _join(parts: Sequence[_Waiting]) -> tuple[Bins, FloatArray | None]:
    if len(parts) == 1:
        return parts[0].bins, parts[0].weights
    weights = [part.weights for part in parts if part.weights is not None]
    return np.concatenate([part.bins for part in parts]), np.concatenate(
        weights
    ) if weights else None
