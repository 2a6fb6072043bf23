"""The scores of a calibrated set: numbers of each row; their means are of all rows and in bins.

`SCORES` is the one list of them: what a part fills, the columns of the tables `scores` and
`score_profile`, and what the summary can say all follow from it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.accumulators import PIT, PIT_ON_AXES, SCORE_MEANS, Figure
from pipeline.evaluation.rows import COVERAGES, EvaluationSlab, Leaves, Quantity, quotient, wide
from pipeline.formats.calibrated_set import QUANTILES
from pipeline.numerics.arrays import Columns, FloatArray
from pipeline.statistics.binning import Spacing, evenly
from pipeline.statistics.moments import BinMoments


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """A calibrated set beside the truth, as its scores are computed from.

    Attributes:
        rows: The truth of N rows.
        columns: [N] of the set.
        reference: [N] of the set that scores are compared with; None for none.
        is_comparable: Whether an excess over the reference's score means anything.
    """

    rows: EvaluationSlab
    columns: Columns
    reference: Columns | None
    is_comparable: bool = True

    def column(self, name: str) -> NDArray[Any] | None:
        """A column of the set as it is; None where the set lacks it."""
        return self.columns.get(name)

    @property
    def nll(self) -> FloatArray | None:
        """-log of the density of the transformed target, in nats."""
        return -wide(self.columns, "log_density") if "log_density" in self.columns else None

    @property
    def nll_excess(self) -> FloatArray | None:
        """-log density of the set minus the reference's, in nats; its mean is a KL divergence."""
        reference = self.reference
        if reference is None or not self.is_comparable or "log_density" not in reference:
            return None
        return None if self.nll is None else self.nll + wide(reference, "log_density")

    def is_inside(self, interval: str) -> FloatArray | None:
        """1 where the true value lies in a central interval, else 0; NaN without an interval."""
        width = self.width(interval)
        if width is None:
            return None
        low, high, _ = COVERAGES[interval]
        target = self.rows.target
        inside = (target >= self.columns[low]) & (target <= self.columns[high])
        return np.where(np.isnan(width), np.nan, inside)

    def width(self, interval: str) -> FloatArray | None:
        """Width of a central interval of the transformed target."""
        return self._widths.get(interval)

    @functools.cached_property
    def _widths(self) -> dict[str, FloatArray]:
        return {
            name: self._distance(wide(self.columns, low), wide(self.columns, high))
            for name, (low, high, _) in COVERAGES.items()
            if low in self.columns and high in self.columns
        }

    def _distance(self, low: FloatArray, high: FloatArray) -> FloatArray:
        """How far apart two values of the target are when transformed."""
        if self.rows.plan.target.transform == "log10":
            return np.asarray(np.log10(quotient(high, low)))
        return high - low

    @property
    def crps(self) -> FloatArray:
        """The CRPS, on the rows of which the reference has one, so that all sets have the same."""
        excess = self._crps_excess
        return self._crps if excess is None else np.where(np.isnan(excess), np.nan, self._crps)

    @property
    def crps_excess(self) -> FloatArray | None:
        """The same minus the reference's; quantiles have none, see `_crps`."""
        is_density = "log_density" in self.columns
        is_like_density = is_density or len(self._quantiles) < 3
        return self._crps_excess if self.is_comparable and is_like_density else None

    @functools.cached_property
    def _crps_excess(self) -> FloatArray | None:
        reference = self.reference
        if reference is None or "crps" not in reference:
            return None
        return self._crps - wide(reference, "crps")

    @functools.cached_property
    def _crps(self) -> FloatArray:
        """The continuous ranked probability score of the transformed target.

        Of quantiles it is twice the mean of their pinball losses, each standing for the
        probabilities that are nearest to its own: of the five of a calibrated set, 7 per cent less
        than the score of their Gaussian, so there is no excess over a density's. Of a single number
        it is the absolute error.
        """
        columns, rows = self.columns, self.rows
        if "crps" in columns:
            return wide(columns, "crps")
        if "log_density" in columns:
            return np.full(len(rows.target), np.nan)
        target = rows.plan.target
        truth, known = target.transformed(rows.target), self._quantiles
        if len(known) < 3:
            return np.asarray(np.abs(target.transformed(wide(columns, target.name)) - truth))
        levels = np.array(sorted(QUANTILES[name] for name in known))
        ends = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
        score = np.zeros(len(truth))
        for name in known:
            level = QUANTILES[name]
            step = truth - target.transformed(wide(columns, name))
            share = np.diff(ends)[np.searchsorted(levels, level)]
            score += 2 * share * np.maximum(level * step, (level - 1) * step)
        return score

    @property
    def _quantiles(self) -> list[str]:
        return [name for name in QUANTILES if name in self.columns]


@dataclass(frozen=True, slots=True)
class RowScore:
    """A number of each row of a calibrated set, of which the weighted mean is shown.

    Attributes:
        name: Its column in the tables; the error of the mean is beside it.
        values: Its values [N], NaN where a row has none; None where the set has no such score.
        in_bins: Whether it is shown in the bins of axes too.
    """

    name: str
    values: Callable[[ScoredSet], NDArray[Any] | None]
    in_bins: bool = True

    @property
    def figure(self) -> Figure[BinMoments]:
        """What holds its means of whole populations."""
        return Figure(self.name, BinMoments)

    @property
    def columns(self) -> tuple[str, str]:
        """The columns of the mean and of its error."""
        return self.name, f"{self.name}_error"


NLL = RowScore("nll", lambda scored: scored.nll)
NLL_EXCESS = RowScore("nll_excess", lambda scored: scored.nll_excess)
CRPS = RowScore("crps", lambda scored: scored.crps)
SCORES = (
    NLL,
    NLL_EXCESS,
    RowScore("coverage68", lambda scored: scored.is_inside("coverage68")),
    RowScore("sharpness68", lambda scored: scored.width("coverage68")),
    RowScore("coverage95", lambda scored: scored.is_inside("coverage95")),
    RowScore("sharpness95", lambda scored: scored.width("coverage95"), in_bins=False),
    CRPS,
    RowScore("crps_excess", lambda scored: scored.crps_excess),
    RowScore("in_domain", lambda scored: scored.column("in_domain"), in_bins=False),
)
SCORES_IN_BINS = tuple(score for score in SCORES if score.in_bins)


def fill_scores(
    rows: EvaluationSlab, name: str, columns: Columns, reference: Columns | None
) -> Leaves:
    """What the scores say of a calibrated set; see `fill.fill_set`."""
    # Rows to which a density gives no weight at all have an infinite score; they are left out
    # of the mean, and counted: the moments then hold fewer rows than the population, for which
    # the summary has no score.
    scored = ScoredSet(rows, columns, reference, is_comparable=name not in rows.plan.partial)
    values = {score: score.values(scored) for score in SCORES}
    for score, found in values.items():
        if found is not None:
            yield from rows.moments(score.figure, name, found)
    missing = np.full(len(rows.target), np.nan)
    binned = [missing if (found := values[score]) is None else found for score in SCORES_IN_BINS]
    yield rows.means(SCORE_MEANS, name, [np.asarray(each, np.float64) for each in binned])
    if "pit" in columns:
        spacing = pit_spacing(rows.plan.settings.fine.pit_cells)
        # A value of exactly 1 belongs to the last fine bin, not beyond it.
        pit = np.minimum(wide(columns, "pit"), np.nextafter(1.0, 0.0))
        quantity = Quantity.of(pit, spacing)
        yield from rows.histogram(PIT, name, quantity)
        groups = evenly(spacing, rows.plan.settings.fine.score_group)
        rows.profile(PIT_ON_AXES, name, quantity, groups)


def pit_spacing(fine_bins: int) -> Spacing:
    """The fine bins of a probability integral transform."""
    return Spacing(scale="linear", low=0.0, high=1.0, cells=fine_bins)
