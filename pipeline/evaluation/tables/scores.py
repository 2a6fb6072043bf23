"""Tables of scores of whole populations."""

import math
from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.accumulators import Key
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.rows import BASELINE, UNCALIBRATED
from pipeline.evaluation.summary import (
    correlation,
    ks_distance,
    population_resolution,
    rows_without_density,
)
from pipeline.evaluation.tables.schemas import Row
from pipeline.statistics.gaussian_fit import fit_core
from pipeline.statistics.histogram import FineHistogram

AGREEMENT = 0.1  # relative difference of uncertainties at which the paper draws its lines

# Columns of means, by the accumulator that has them.
_MEANS = {
    "nll": "nll",
    "nll_excess": "excess",
    "coverage68": "coverage68",
    "coverage95": "coverage95",
    "in_domain": "in_domain",
    "crps": "crps",
    "crps_excess": "crps_excess",
}


def score_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Scores of each set and population."""
    for name in (UNCALIBRATED, *evaluation.sets, BASELINE):
        for where in evaluation.populations:
            total = int(evaluation.histograms[Key("ratio_in", UNCALIBRATED, where)].rows[0])
            row: Row = {"set": name, "population": where, "rows": total}
            row |= _mean_scores(evaluation, name, where)
            row |= _histogram_scores(evaluation, name, where)
            if len(row) > 3:
                yield row


def coverage_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Share of true values in central intervals of the density, against their content.

    From the cells of the PIT: exact where an end of the interval is an edge of theirs, else off
    by less than the content of two cells.
    """
    for key, pit in evaluation.histograms.items():
        total = float(pit.weights.sum())
        if key.figure != "pit" or not total > 0:
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
    for key, change in evaluation.histograms.items():
        if key.figure != "pair_sigma" or not change.weights.sum() > 0:
            continue
        row: Row = {"set": key.name, "population": key.where, "rows": int(change.rows[0])}
        row["sigma_median"] = change.distribution().quantile(0.5)
        row |= _shares(change)
        if (fit := fit_core(change)) is not None:
            row |= {"sigma_core_mean": fit.mean, "sigma_core_left": fit.left}
            row["sigma_core_right"] = fit.right
        for figure in ("t_log", "sigma_rel"):
            sums = evaluation.moments.get(Key(f"correlation_{figure}", key.name, key.where))
            row[f"correlation_{figure}"] = None if sums is None else correlation(sums)
        yield row


def scored_by(evaluation: Evaluation, name: str) -> str:
    """What the scores of a set come from."""
    figures = {key.figure for key in evaluation.moments if key.name == name}
    if "nll" in figures:
        return "density"
    return "quantiles" if "coverage68" in figures else "point"


def _shares(change: FineHistogram) -> Row:
    """Shares of rows below, inside and above the lines of agreement."""
    edges, _, _, _ = change.rebinned(1)
    width = change.spacing.width
    dense = np.bincount(change.cells % width, change.weights, width)
    below = np.cumsum(dense) / dense.sum()
    low, high = (float(np.interp(x, edges, below[:-1])) for x in (-AGREEMENT, AGREEMENT))
    return {"sigma_below": low, "sigma_inside": high - low, "sigma_above": 1 - high}


def _mean_scores(evaluation: Evaluation, name: str, where: str) -> Row:
    """Means over the rows that have a finite value, with the number of those without density."""
    row: Row = {}
    for column, key in _MEANS.items():
        moments = evaluation.moments.get(Key(key, name, where))
        if moments is not None and moments.counts[0]:
            row[column] = moments.mean[0]
            row[column + "_error"] = moments.mean_error[0]
    for column in ("sharpness68", "sharpness95"):
        moments = evaluation.moments.get(Key(column, name, where))
        if moments is not None and moments.counts[0]:
            row[column] = moments.mean[0]
    if Key("nll", name, where) in evaluation.moments:
        row["rows_without_density"] = rows_without_density(evaluation, "nll", name, where)
    if "crps" in row:
        row["rows_crps"] = int(evaluation.moments[Key("crps", name, where)].counts[0])
    return row


def _histogram_scores(evaluation: Evaluation, name: str, where: str) -> Row:
    row: Row = {}
    pit = evaluation.histograms.get(Key("pit", name, where))
    if pit is not None and pit.rows[0]:
        row["pit_ks"] = ks_distance(pit)
    for column, figure in (
        ("sigma_log10_ratio_median", "sigma_ratio"),
        ("sigma_tot_median", "sigma_tot"),
        ("sigma_syst_median", "sigma_syst"),
        ("sigma_stat_median", "sigma_stat"),
    ):
        histogram = evaluation.histograms.get(Key(figure, name, where))
        if histogram is not None and histogram.rows[0]:
            row[column] = histogram.distribution().quantile(0.5)
    resolution = population_resolution(evaluation, name, where)
    if resolution is not None:
        row["sigma_rel"] = resolution
    return row
