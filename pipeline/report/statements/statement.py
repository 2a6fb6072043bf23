"""A statement of the paper about a figure, and what a study finds of it.

What statements are measured with are bins of a table: their medians, fractions and peaks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.report.study_data import Column, Scene, Series, series


@dataclass(frozen=True, slots=True)
class Finding:
    """What the tables of a study say.

    Attributes:
        found: The number, with its unit or in words.
        holds: Whether the statement holds for it.
    """

    found: str
    holds: bool


# Of a scene and a set; None where the study lacks what the measurement needs.
Check = Callable[[Scene, str], Finding | None]
Subject = Literal["bnn", "repulsive_ensemble", "dnn", "sample"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of the paper that can be measured.

    Attributes:
        figure: The paper's figure, such as "7a".
        words: What is measured.
        paper: What the paper says of it.
        check: The measurement.
        of: Kind of the model that is measured, the exact density beside it; or the sample itself.
    """

    figure: str
    words: str
    paper: str
    check: Check
    of: Subject = "bnn"


MIN_ROWS = 100.0  # bins with fewer say nothing
ENOUGH = 500.0  # rows of a bin whose median is known to about a per cent


def filled(bins: Series, value: str, *, rows: float = MIN_ROWS) -> Series:
    """The bins that have the value and enough rows."""
    if not len(bins):
        return bins
    return keep(bins, np.isfinite(bins[value]) & (bins["rows"] >= rows))


def keep(bins: Series, chosen: Column) -> Series:
    """The same series with some of its bins only."""
    return Series({name: values[chosen] for name, values in bins.columns.items()})


def profile(
    scene: Scene, table: str, axis: str, name: str, *, value: str = "median", rows: float = MIN_ROWS
) -> Series:
    """The filled bins of a set on an axis; none where the study lacks them."""
    return filled(series(scene.table(table), axis=axis, set=name), value, rows=rows)


def within(bins: Series, low: float, high: float) -> Series:
    """The bins that lie in a range as a whole, with room for rounding."""
    if not len(bins):
        return bins
    reach = 1e-6 * max(abs(low) if np.isfinite(low) else 0.0, 1.0)
    return keep(bins, (bins["low"] >= low - reach) & (bins["high"] <= high + reach))


def outside(bins: Series, reach: float) -> Series:
    """The bins that lie beyond a distance from zero as a whole."""
    if not len(bins):
        return bins
    return keep(bins, (bins["low"] >= reach) | (bins["high"] <= -reach))


def mean_of(bins: Series, value: str) -> float:
    """The mean over the bins' rows."""
    return float(np.average(bins[value], weights=bins["rows"]))


def both(first: Series, second: Series) -> tuple[Series, Series]:
    """The bins that two sets have in common."""
    if not len(first) or not len(second):
        return first, second
    _, one, two = np.intersect1d(first["low"], second["low"], return_indices=True)
    return keep(first, one), keep(second, two)


def quantile(low: Column, high: Column, weights: Column, level: float) -> float:
    """A quantile of a histogram, linear within its bin."""
    order = np.argsort(low, kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(weights[order])])
    return float(np.interp(level * reached[-1], reached, np.append(low[order], high[order][-1])))


def spectrum(scene: Scene, axis: str, kind: str) -> Series:
    """The bins of a class of clusters, by its name in any case; none without it."""
    every = series(scene.table("spectrum"), axis=axis)
    if not len(every):
        return every
    return keep(every, np.array([name.lower() == kind for name in every["class"]]))


def percent(value: float, digits: int = 1) -> str:
    """A share or relative deviation as it is printed."""
    return f"{100 * value:.{digits}f}%".replace("-", "\u2212")
