"""Tables of scores of whole populations."""

import math
from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.accumulators import (
    CORRELATIONS,
    PAIR_SIGMA,
    PIT,
    RATIO_IN,
    SIGMA_RATIO,
    SIGMAS,
    Key,
)
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.rows import BASELINE, UNCALIBRATED
from pipeline.evaluation.scores import CRPS, NLL, SCORES
from pipeline.evaluation.summary import (
    correlation,
    ks_distance,
    population_resolution,
    rows_without_density,
)
from pipeline.evaluation.tables.schemas import BlockTable, Row, RowTable, schema
from pipeline.statistics.gaussian_fit import fit_core
from pipeline.statistics.histogram import FineHistogram

AGREEMENT = 0.1  # relative difference of uncertainties at which the paper draws its lines

# Columns of medians of uncertainties, by what holds them.
_MEDIANS = {
    "sigma_log10_ratio_median": SIGMA_RATIO,
    **{f"{figure.name}_median": figure for figure in SIGMAS},
}


def score_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Scores of each set and population."""
    for name in (UNCALIBRATED, *evaluation.sets, BASELINE):
        for where in evaluation.populations:
            total = int(evaluation.histograms[Key(RATIO_IN, UNCALIBRATED, where)].rows[0])
            row: Row = {"set": name, "population": where, "rows": total}
            row |= _mean_scores(evaluation, name, where)
            row |= _histogram_scores(evaluation, name, where)
            if len(row) > 3:
                yield row


def coverage_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Share of true values in central intervals of the density, against their content.

    From the fine bins of the PIT: exact where an end of the interval is an edge of theirs, else off
    by less than the content of two fine bins.
    """
    for key, pit in evaluation.histograms_of(PIT):
        total = float(pit.weights.sum())
        if not total > 0:
            continue
        edges, rows, weights, _ = pit.rebinned(1)
        below = np.concatenate([[0.0], np.cumsum(weights)]) / total
        power = total**2 / float(pit.squares.sum())
        for level in evaluation.plan.settings.coverage_levels:
            low, high = np.interp([(1 - level) / 2, (1 + level) / 2], edges, below)
            share = float(high - low)
            yield {
                "set": key.name,
                "population": key.where,
                "rows": int(rows.sum()),
                "nominal": level,
                "coverage": share,
                "coverage_error": math.sqrt(max(share * (1 - share), 0.0) / power),
            }


def pair_rows(evaluation: Evaluation) -> Iterator[Row]:
    """How two sets agree: uncertainties and pulls (Figs. 11 and 12)."""
    for key, change in evaluation.histograms_of(PAIR_SIGMA):
        if not change.weights.sum() > 0:
            continue
        row: Row = {"set": key.name, "population": key.where, "rows": int(change.rows[0])}
        row["sigma_median"] = change.distribution().quantile(0.5)
        row |= _shares(change)
        if (fit := fit_core(change)) is not None:
            row |= {"sigma_core_mean": fit.mean, "sigma_core_left": fit.left}
            row["sigma_core_right"] = fit.right
        for figure in CORRELATIONS.values():
            sums = evaluation.find(figure, key.name, key.where)
            row[figure.name] = None if sums is None else correlation(sums)
        yield row


def scored_by(evaluation: Evaluation, name: str) -> str:
    """What the scores of a set come from."""
    figures = {key.figure.name for key in evaluation.moments if key.name == name}
    if NLL.name in figures:
        return "density"
    return "quantiles" if "coverage68" in figures else "point"


def _shares(change: FineHistogram) -> Row:
    """Shares of rows below, inside and above the lines of agreement."""
    edges, _, _, _ = change.rebinned(1)
    width = change.spacing.width
    dense = np.bincount(change.fine_bins % width, change.weights, width)
    below = np.cumsum(dense) / dense.sum()
    low, high = (float(np.interp(x, edges, below[:-1])) for x in (-AGREEMENT, AGREEMENT))
    return {"sigma_below": low, "sigma_inside": high - low, "sigma_above": 1 - high}


def _mean_scores(evaluation: Evaluation, name: str, where: str) -> Row:
    """Means over the rows that have a finite value, with the number of those without density."""
    row: Row = {}
    for score in SCORES:
        moments = evaluation.find(score.figure, name, where)
        if moments is not None and moments.counts[0]:
            found = (moments.mean[0], moments.mean_error[0])
            row |= dict(zip(score.columns, found, strict=True))
    if evaluation.find(NLL.figure, name, where) is not None:
        row["rows_without_density"] = rows_without_density(evaluation, NLL, name, where)
    if (moments := evaluation.find(CRPS.figure, name, where)) is not None and moments.counts[0]:
        row["rows_crps"] = int(moments.counts[0])
    return row


def _histogram_scores(evaluation: Evaluation, name: str, where: str) -> Row:
    row: Row = {}
    pit = evaluation.find(PIT, name, where)
    if pit is not None and pit.rows[0]:
        row["pit_ks"] = ks_distance(pit)
    for column, figure in _MEDIANS.items():
        histogram = evaluation.find(figure, name, where)
        if histogram is not None and histogram.rows[0]:
            row[column] = histogram.distribution().quantile(0.5)
    resolution = population_resolution(evaluation, name, where)
    if resolution is not None:
        row["sigma_rel"] = resolution
    return row


SCORE_TABLES: dict[str, RowTable | BlockTable] = {
    "scores": RowTable(
        schema(
            "set population",
            "rows rows_without_density rows_crps",
            " ".join([
                *(column for score in SCORES for column in score.columns),
                *("pit_ks", *_MEDIANS, "sigma_rel"),
            ]),
        ),
        score_rows,
    ),
    "coverage": RowTable(
        schema("set population", "rows", "nominal coverage coverage_error"), coverage_rows
    ),
    "pairs": RowTable(
        schema(
            "set population",
            "rows",
            "correlation_t_log correlation_sigma_rel sigma_median sigma_core_mean sigma_core_left "
            "sigma_core_right sigma_below sigma_inside sigma_above",
        ),
        pair_rows,
    ),
}
