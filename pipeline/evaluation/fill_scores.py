"""The scores of one part's rows, as pairs of a key and an accumulator."""

from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.rows import COVERAGES, Columns, Leaves, Quantity, Rows
from pipeline.evaluation.values import quotient, wide
from pipeline.formats.calibrated_set import QUANTILES
from pipeline.statistics.binning import Floats
from pipeline.statistics.spacing import Spacing, evenly

# Quantities of the accumulator "score_means", in their order.
SCORE_MEANS = ("nll", "excess", "coverage68", "coverage95", "sharpness68", "crps", "crps_excess")
EXCESSES = ("excess", "crps_excess")


def fill_scores(rows: Rows, name: str, columns: Columns, reference: Columns | None) -> Leaves:
    """What the scores say of a calibrated set; see `fill.fill_set`."""
    # Rows to which a density gives no weight at all have an infinite score; they are left out
    # of the mean, and counted: the moments then hold fewer rows than the population, for which
    # the summary has no score.
    is_comparable = name not in rows.plan.partial
    scores = {
        figure: values
        for figure, values in _scores_of(rows, columns, reference)
        if is_comparable or figure not in EXCESSES
    }
    for figure, values in scores.items():
        yield from rows.moments(figure, name, values)
    if scores:
        missing = np.full(len(rows.target), np.nan)
        binned = [np.asarray(scores.get(figure, missing), np.float64) for figure in SCORE_MEANS]
        yield rows.means("score_means", name, binned)
    if "pit" in columns:
        spacing = pit_spacing(rows.plan.settings.fine.pit_cells)
        # A value of exactly 1 belongs to the last cell, not beyond it.
        pit = np.minimum(wide(columns, "pit"), np.nextafter(1.0, 0.0))
        quantity = Quantity.of(pit, spacing)
        yield from rows.histogram("pit", name, quantity)
        rows.profile("pit_in", name, quantity, evenly(spacing, rows.plan.settings.fine.score_group))


def _scores_of(
    rows: Rows, columns: Columns, reference: Columns | None
) -> Iterator[tuple[str, Floats]]:
    """What a set has of the scores; each [N]."""
    if "log_density" in columns:
        nll = -wide(columns, "log_density")
        yield "nll", nll
        if reference is not None and "log_density" in reference:
            yield "excess", nll + wide(reference, "log_density")
    for figure, (low, high, content) in COVERAGES.items():
        if low in columns and high in columns:
            inside = (rows.target >= columns[low]) & (rows.target <= columns[high])
            width = np.log10(quotient(wide(columns, high), wide(columns, low)))
            yield figure, np.where(np.isnan(width), np.nan, inside)
            yield f"sharpness{round(100 * content)}", width
    crps = _crps_of(rows, columns)
    if reference is not None and "crps" in reference:
        # On the rows that the reference has, so that all sets are scored on the same.
        excess = crps - wide(reference, "crps")
        yield "crps", np.where(np.isnan(excess), np.nan, crps)
        if "log_density" in columns or len(_quantiles(columns)) < 3:
            yield "crps_excess", excess
    else:
        yield "crps", crps


def _quantiles(columns: Columns) -> list[str]:
    return [name for name in QUANTILES if name in columns]


def _crps_of(rows: Rows, columns: Columns) -> Floats:
    """The continuous ranked probability score in log10 of the target.

    Of quantiles it is twice the mean of their pinball losses, each standing for the probabilities
    that are nearest to its own: of the five of a calibrated set, 7 per cent less than the score of
    their Gaussian, so there is no excess over a density's. Of a single number it is the absolute
    error.
    """
    if "crps" in columns or "log_density" in columns:
        return wide(columns, "crps") if "crps" in columns else np.full(len(rows.target), np.nan)
    truth, known = np.log10(rows.target), _quantiles(columns)
    if len(known) < 3:
        return np.asarray(np.abs(np.log10(wide(columns, rows.plan.target.name)) - truth))
    levels = np.array(sorted(QUANTILES[name] for name in known))
    ends = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    score = np.zeros(len(truth))
    for name in known:
        level = QUANTILES[name]
        step = truth - np.log10(wide(columns, name))
        share = np.diff(ends)[np.searchsorted(levels, level)]
        score += 2 * share * np.maximum(level * step, (level - 1) * step)
    return score


def pit_spacing(cells: int) -> Spacing:
    """The cells of a probability integral transform."""
    return Spacing(scale="linear", low=0.0, high=1.0, cells=cells)
