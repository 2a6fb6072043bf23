"""The headline figures of an evaluation as one flat object of numbers."""

from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.accumulators import (
    CORRELATIONS,
    PAIR_CENTRAL,
    PAIR_SIGMA,
    PIT,
    PULL_LOG,
    RATIO_IN,
    RATIO_ON_TRUTH,
    SIGMA_RATIO,
    Figure,
    Key,
)
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.rows import BASELINE, EVERYWHERE, UNCALIBRATED, VERSUS
from pipeline.evaluation.scores import NLL, NLL_EXCESS, SCORES, RowScore
from pipeline.numerics.arrays import FloatArray, IntArray
from pipeline.statistics.gaussian_fit import fit_core
from pipeline.statistics.histogram import FineHistogram
from pipeline.statistics.moments import BinMoments

Figures = Iterator[tuple[str, float]]

# Means that are headlines as they are; those of the density are no headline if a row has none.
_HEADLINES = tuple(score for score in SCORES if score.in_bins and score not in {NLL, NLL_EXCESS})


def summarise(evaluation: Evaluation) -> dict[str, float]:
    """`NAME.figure` over all rows and `NAME.figure.REGION`; what does not apply is missing.

    A score is missing too where any row has no finite log density, since the mean of the others
    would reward a density that gives a true value none; `rows_without_density` tells how many.

    `NAME.resolution_ratio_to_em` is the median over the bins of closure of the ratio of relative
    resolutions, `NAME.resolution_ratio_to_em.REGION` the ratio of the relative resolutions of the
    region's rows taken together: a region may hold too few rows for bins.
    """
    found: dict[str, float] = {}
    for name in (*evaluation.sets, BASELINE):
        for population in evaluation.populations:
            suffix = "" if population == EVERYWHERE else f".{population}"
            figures = _population_figures(evaluation, name, population)
            found |= {f"{name}.{figure}{suffix}": value for figure, value in figures}
        found |= {f"{name}.{figure}": value for figure, value in _closure(evaluation, name)}
    for pair in evaluation.plan.settings.pairs:
        name = VERSUS.join(pair)
        found |= {f"{name}.{figure}": value for figure, value in _pair(evaluation, name)}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def ks_distance(pit: FineHistogram, bin_number: int = 0) -> float:
    """Largest distance of the distribution of a PIT from the uniform one, at the fine bins' edges.

    The distance over all values is larger by at most one fine bin's width. NaN where the weights do
    not add up to any.
    """
    edges, _, weights, _ = pit.rebinned(1, bin_number)
    total = weights.sum()
    reached = np.cumsum(weights) / (total if total > 0 else np.nan)
    return float(np.abs(reached - edges[1:]).max())


def population_resolution(evaluation: Evaluation, name: str, where: str) -> float | None:
    """sigma_rel of a whole population; None if it has too few rows."""
    histogram = evaluation.find(RATIO_IN, name, where)
    if histogram is None or histogram.rows[0] < evaluation.plan.settings.min_rows_per_bin:
        return None
    return histogram.distribution().relative_resolution()[0]


def rows_without_density(evaluation: Evaluation, score: RowScore, name: str, where: str) -> int:
    """Rows of a population of which a set has no finite score.

    Args:
        evaluation: With that score.
        score: `NLL`, or `NLL_EXCESS`: without a finite density of the set or of the reference.
        name: Of the set.
        where: The population.
    """
    every = evaluation.histograms[Key(RATIO_IN, UNCALIBRATED, where)]
    scored = evaluation.moments[Key(score.figure, name, where)].counts[0]
    return int(every.rows[0] + every.outside[0] - scored)


def _population_figures(evaluation: Evaluation, name: str, where: str) -> Figures:
    enough = evaluation.plan.settings.min_rows_per_bin
    yield from _scores(evaluation, name, where)
    for score in _HEADLINES:
        moments = evaluation.find(score.figure, name, where)
        if moments is not None and moments.counts[0] >= enough:
            yield score.name, float(moments.mean[0])
    pit = evaluation.find(PIT, name, where)
    if pit is not None and pit.rows[0] >= enough:
        yield "pit_ks", ks_distance(pit)
    change = evaluation.find(SIGMA_RATIO, name, where)
    if change is not None and change.rows[0] >= enough:
        yield "sigma_log10_ratio_median", change.distribution().quantile(0.5)
    pull = evaluation.find(PULL_LOG, name, where)
    if pull is not None and (fit := fit_core(pull)) is not None:
        yield "pull_width", fit.width
    if where != EVERYWHERE:
        yield from _population_ratio(evaluation, name, where)


def _scores(evaluation: Evaluation, name: str, where: str) -> Figures:
    """Mean scores of all rows, or how many rows have none."""
    for score in (NLL, NLL_EXCESS):
        moments = evaluation.find(score.figure, name, where)
        if moments is None:
            continue
        missing = rows_without_density(evaluation, score, name, where)
        if not missing and moments.counts[0] >= evaluation.plan.settings.min_rows_per_bin:
            yield score.name, float(moments.mean[0])
        if missing and score is NLL:
            yield "rows_without_density", float(missing)


def _population_ratio(evaluation: Evaluation, name: str, where: str) -> Figures:
    """The gain in resolution of a region's rows taken together, without bins."""
    own = population_resolution(evaluation, name, where)
    uncalibrated = population_resolution(evaluation, UNCALIBRATED, where)
    if own is not None and uncalibrated:
        yield "resolution_ratio_to_em", own / uncalibrated


def _closure(evaluation: Evaluation, name: str) -> Figures:
    """Largest deviations of binned medians, and the median over the bins of the gain in resolution.

    Over all rows, whose resolution as a whole would follow their spectrum, not the calibration.
    """
    bins = closure_bins(evaluation)
    own = _truth_profile(evaluation, RATIO_ON_TRUTH, name)
    if own is None or not len(bins):
        return
    medians = _medians(own, bins)
    yield "closure_max", float(np.abs(medians - 1).max())
    reference = evaluation.plan.settings.reference
    exact = _truth_profile(evaluation, RATIO_ON_TRUTH, reference)
    if exact is not None and name != reference:
        yield "closure_vs_oracle_max", float(np.abs(medians - _medians(exact, bins)).max())
    uncalibrated = _truth_profile(evaluation, RATIO_ON_TRUTH, UNCALIBRATED)
    if uncalibrated is not None:
        gains = _resolutions(own, bins) / _resolutions(uncalibrated, bins)
        yield "resolution_ratio_to_em", float(np.median(gains))


def closure_bins(evaluation: Evaluation) -> IntArray:
    """Bins of the denominator that closure counts: high and full enough; flow bins never."""
    settings, axis = evaluation.plan.settings, evaluation.plan.truth_axis
    truth = _truth_profile(evaluation, RATIO_ON_TRUTH, UNCALIBRATED)
    if truth is None:
        return np.zeros(0, dtype=np.int64)
    high_enough = np.asarray(axis.edges[:-1]) >= settings.closure_from * (1 - 1e-9)
    full_enough = truth.rows[1:-1] >= settings.closure_min_rows
    return np.flatnonzero(high_enough & full_enough) + 1


def _pair(evaluation: Evaluation, name: str) -> Figures:
    change = evaluation.find(PAIR_SIGMA, name, EVERYWHERE)
    if change is not None and (fit := fit_core(change)) is not None:
        yield "sigma_core_width", fit.width
    shifts, bins = _truth_profile(evaluation, PAIR_CENTRAL, name), closure_bins(evaluation)
    if shifts is not None and len(bins):
        yield "central_max", float(np.abs(_medians(shifts, bins)).max())
    both = evaluation.find(CORRELATIONS["t_log"], name, EVERYWHERE)
    if both is not None and both.counts[0, 0] >= evaluation.plan.settings.min_rows_per_bin:
        yield "correlation_t_log", correlation(both)


def correlation(sums: BinMoments) -> float:
    """Pearson's coefficient from the spreads of x, y and x + y."""
    x, y, both = (float(sums.quantity(at).std[0]) ** 2 for at in range(3))
    return (both - x - y) / 2 / np.sqrt(x * y) if x * y > 0 else float("nan")


def _truth_profile(
    evaluation: Evaluation, figure: Figure[FineHistogram], name: str
) -> FineHistogram | None:
    return evaluation.find(figure, name, evaluation.plan.truth_axis.name)


def _medians(profile: FineHistogram, bins: IntArray) -> FloatArray:
    return np.array([profile.distribution(int(i)).quantile(0.5) for i in bins])


def _resolutions(profile: FineHistogram, bins: IntArray) -> FloatArray:
    return np.array([profile.distribution(int(i)).relative_resolution()[0] for i in bins])
