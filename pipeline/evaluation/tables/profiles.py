"""Tables of estimates in the bins of an axis."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.accumulators import (
    DEVIATIONS,
    PIT_ON_AXES,
    PULL,
    RATIO,
    RATIO_MEANS,
    RATIO_ON_TRUTH,
    SCORE_MEANS,
    SELECTION,
    Key,
)
from pipeline.evaluation.axes import ResolvedAxis
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.rows import UNCALIBRATED
from pipeline.evaluation.scores import SCORES_IN_BINS
from pipeline.evaluation.summary import ks_distance
from pipeline.evaluation.tables.schemas import BlockTable, Row, RowTable, schema
from pipeline.numerics.arrays import FloatArray, IntArray
from pipeline.statistics.distribution import Distribution
from pipeline.statistics.histogram import FineHistogram
from pipeline.statistics.moments import BinMoments

SLICE_GROUP = 20  # fine bins of the ratio in a bin of a slice: 2 per cent with the default
KEPT_SHARES = 50  # steps of the share of clusters that is kept


def profile_rows(evaluation: Evaluation, figure: str) -> Iterator[Row]:
    """Delta_E = x - 1, and Delta_R = 1/x - 1 from the same fine bins (Eqs. 15 and 16)."""
    names = evaluation.sets if figure == "delta_r" else (UNCALIBRATED, *evaluation.sets)
    reference = evaluation.plan.settings.reference
    for axis in evaluation.plan.axes:
        by_set = {name: list(_profile(evaluation, figure, axis, name)) for name in names}
        exact = [row.get("median", math.nan) for row in by_set.get(reference, ())]
        for name, rows in by_set.items():
            if exact and name not in {reference, UNCALIBRATED}:
                _compare(rows, exact)
            yield from rows


def pull_profile_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Median and width of the logarithmic pull in the bins of each axis."""
    enough = evaluation.plan.settings.min_rows_per_bin
    for axis in evaluation.plan.axes_of(PULL.axes):
        for name in evaluation.sets:
            if (histogram := evaluation.profile(PULL, name, axis.name)) is None:
                continue
            for row, number in _bins(axis, name, histogram):
                known = row["rows"] >= enough
                yield row | (_estimates(histogram.distribution(number), shift=0.0) if known else {})


def score_profile_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Mean scores in the bins of each axis."""
    names = [key.name for key in evaluation.moments if key.figure == SCORE_MEANS]
    for axis in evaluation.plan.axes_of(SCORE_MEANS.axes):
        for name in names:
            yield from _score_profile(evaluation, axis, name)


def _score_profile(evaluation: Evaluation, axis: ResolvedAxis, name: str) -> Iterator[Row]:
    enough = evaluation.plan.settings.min_rows_per_bin
    means = [
        (score.name, _Means.of(evaluation.means(SCORE_MEANS, name, axis.name, at)))
        for at, score in enumerate(SCORES_IN_BINS)
    ]
    ratio = evaluation.profile(RATIO, name, axis.name)
    pit = evaluation.profile(PIT_ON_AXES, name, axis.name)
    full = np.zeros(axis.num_bins) if pit is None else pit.rows
    for row, number in _bins(axis, name, ratio) if ratio else ():
        scores: Row = {}
        for column, mean in means:
            scores |= mean.row(number, column, enough)
        if pit is not None and full[number] >= enough:
            scores["pit_ks"] = ks_distance(pit, number)
        yield row | scores


def slice_rows(evaluation: Evaluation) -> Iterator[Row]:
    """The distribution of Delta_E in single bins of the denominator (Fig. 19)."""
    axis = evaluation.plan.truth_axis
    edges = np.asarray(axis.edges)
    for at in evaluation.plan.settings.slices:
        number = int(np.searchsorted(edges, at, side="right"))
        if not 0 < number < len(edges):
            continue
        ends = {"at": at, "slice_low": edges[number - 1], "slice_high": edges[number]}
        for name in (UNCALIBRATED, *evaluation.sets):
            histogram = evaluation.histograms[Key(RATIO_ON_TRUTH, name, axis.name)]
            fine, rows, weights, squares = histogram.rebinned(SLICE_GROUP, number)
            total = float(histogram.distribution(number).weights.sum())
            if total <= 0:
                continue
            for i in _seen(rows):
                yield ends | {
                    "axis": axis.name,
                    "set": name,
                    "rows": int(rows[i]),
                    "low": fine[i] - 1,
                    "high": fine[i + 1] - 1,
                    "fraction": weights[i] / total,
                    "fraction_error": math.sqrt(squares[i]) / total,
                }


def selection_rows(evaluation: Evaluation) -> Iterator[Row]:
    """What is left when clusters of large relative uncertainty are dropped.

    The thresholds are edges of the fine bins of the relative uncertainty.
    """
    for key, histogram in evaluation.histograms_of(SELECTION):
        yield from _selected(evaluation, key, histogram)


def _selected(evaluation: Evaluation, key: Key, histogram: FineHistogram) -> Iterator[Row]:
    rank, tail = evaluation.plan.settings.fine.rank, evaluation.plan.settings.tail
    owner = histogram.fine_bins // histogram.spacing.width
    kept = np.cumsum(np.bincount(owner, histogram.weights, histogram.num_bins))
    counts = np.cumsum(histogram.rows)
    if not kept[-1] > 0:
        return
    shares = kept / kept[-1]
    steps = np.searchsorted(shares, np.arange(1, KEPT_SHARES + 1) / KEPT_SHARES - 1e-12)
    for number in dict.fromkeys(np.minimum(steps, len(shares) - 1).tolist()):
        row: Row = {"set": key.name, "ranked_by": key.where, "rows": int(counts[number])}
        row |= {"kept": shares[number], "threshold": _upper_edge(rank.edges(), number)}
        if counts[number] >= evaluation.plan.settings.min_rows_per_bin:
            distribution = histogram.up_to(number).distribution()
            row["median"] = distribution.quantile(0.5) - 1
            row["sigma_rel"], row["sigma_rel_error"] = distribution.relative_resolution()
            row["tail_below"] = distribution.share_below(1 - tail)
            row["tail_above"] = 1 - distribution.share_below(1 + tail)
        yield row


def _upper_edge(edges: np.ndarray, number: int) -> float:
    """Of a fine bin with flow bins on both sides; NaN: nothing is dropped."""
    return float(edges[number]) if number < len(edges) else math.nan


def _profile(evaluation: Evaluation, figure: str, axis: ResolvedAxis, name: str) -> Iterator[Row]:
    enough = evaluation.plan.settings.min_rows_per_bin
    histogram = evaluation.profile(RATIO, name, axis.name)
    if histogram is None:
        return
    means = [
        _Means.of(evaluation.means(RATIO_MEANS, name, axis.name, DEVIATIONS.index(quantity)))
        for quantity in (figure, f"{figure}_truncated")
    ]
    for row, number in _bins(axis, name, histogram):
        estimates: Row = {}
        if row["rows"] >= enough:
            distribution = histogram.distribution(number)
            inverse = figure == "delta_r"
            estimates |= _estimates(distribution.inverse() if inverse else distribution, shift=-1.0)
            estimates |= means[0].row(number, "mean", enough)
            estimates |= means[1].row(number, "mean_truncated", enough)
        yield row | estimates


def _compare(rows: list[Row], exact: list[float]) -> None:
    for row, median in zip(rows, exact, strict=True):
        row["median_minus_reference"] = row.get("median", math.nan) - median


def _bins(axis: ResolvedAxis, name: str, histogram: FineHistogram) -> Iterator[tuple[Row, int]]:
    """All bins between the edges, empty ones as well."""
    rows = histogram.rows
    for number in range(1, len(axis.edges)):
        yield (
            {
                "axis": axis.name,
                "set": name,
                "low": axis.edges[number - 1],
                "high": axis.edges[number],
                "rows": int(rows[number]),
                "rows_missing": int(histogram.outside[number]),
            },
            number,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Means:
    """Means and their errors in all bins of an axis."""

    counts: IntArray
    mean: FloatArray
    error: FloatArray

    @classmethod
    def of(cls, moments: BinMoments) -> "_Means":
        return cls(moments.counts, moments.mean, moments.mean_error)

    def row(self, number: int, column: str, enough: int) -> Row:
        if self.counts[number] < enough:
            return {}
        return {column: self.mean[number], f"{column}_error": self.error[number]}


def _estimates(distribution: Distribution, *, shift: float) -> Row:
    """Median and narrowest interval; missing where they lie beyond the fine bins."""
    row: Row = {"effective_rows": distribution.effective_rows}
    found = distribution.estimates()
    if found is None:
        return row
    if not math.isinf(found.median_bound):
        row |= {"median": found.median + shift, "median_error": found.median_error}
        row["median_bound"] = found.median_bound
    if not math.isinf(found.width_bound):
        row |= {"left68": found.left + shift, "right68": found.right + shift}
        row |= {"width68": found.width, "width68_error": found.width_error}
        row["width68_bound"] = found.width_bound
    if shift and "median" in row and "width68" in row:
        resolution = found.width / (2 * found.median)
        error = math.hypot(found.width_error / 2, resolution * found.median_error) / found.median
        row |= {"sigma_rel": resolution, "sigma_rel_error": error}
    return row


def _seen(rows: np.ndarray) -> range:
    """From the first bin that has rows to the last."""
    seen = np.flatnonzero(rows)
    return range(int(seen[0]), int(seen[-1]) + 1) if len(seen) else range(0)


_MEDIAN = (
    "low high effective_rows median median_error median_bound left68 right68 width68 width68_error "
    "width68_bound "
)
_DEVIATION = schema(
    "axis set",
    "rows rows_missing",
    _MEDIAN + "sigma_rel sigma_rel_error median_minus_reference mean mean_error mean_truncated "
    "mean_truncated_error",
)

PROFILE_TABLES: dict[str, RowTable | BlockTable] = {
    "delta_e": RowTable(_DEVIATION, functools.partial(profile_rows, figure="delta_e")),
    "delta_r": RowTable(_DEVIATION, functools.partial(profile_rows, figure="delta_r")),
    "pull_profile": RowTable(schema("axis set", "rows rows_missing", _MEDIAN), pull_profile_rows),
    "score_profile": RowTable(
        schema(
            "axis set",
            "rows",
            " ".join([
                "low high",
                *(c for score in SCORES_IN_BINS for c in score.columns),
                "pit_ks",
            ]),
        ),
        score_profile_rows,
    ),
    "slice": RowTable(
        schema("axis set", "rows", "at slice_low slice_high low high fraction fraction_error"),
        slice_rows,
    ),
    "selection": RowTable(
        schema(
            "set ranked_by",
            "rows",
            "kept threshold median sigma_rel sigma_rel_error tail_below tail_above",
        ),
        selection_rows,
    ),
}
