"""Statements on the target in two dimensions (Figs. 4 and 5)."""

import numpy as np

from pipeline.evaluation.rows import TARGET
from pipeline.report.statements.statement import ENOUGH, Finding, Statement, keep, quantile
from pipeline.report.study_data import Column, Scene, Series, series

TOLERANCE = 0.1  # of a ridge's place
ALIKE = 0.1  # of the ratio of two widths
FAR_ABOVE = 10.0  # a response that only the gap's clusters have


def is_sharper(scene: Scene, name: str) -> Finding | None:
    """Median over E_dep of the width of predictions over that of the target, in log10."""
    ratio = _width_ratio(scene, name, TARGET)
    if ratio is None:
        return None
    return Finding(f"{ratio:.2f} of the target's width", ratio < 1.0)


def is_like_bnn(scene: Scene, name: str) -> Finding | None:
    """The same of an ensemble over that of the BNN."""
    bnn = scene.model_of_kind("bnn")
    ratio = None if bnn is None or bnn == name else _width_ratio(scene, name, bnn)
    if ratio is None:
        return None
    return Finding(f"{ratio:.2f} of the BNN's width", abs(ratio - 1) <= ALIKE)


def ridge_at_no_em(scene: Scene, name: str) -> Finding | None:
    """Most frequent response of clusters with almost nothing in the EM calorimeter."""
    return _ridge(scene, name, -0.1, 0.1, 0.8)


def ridge_at_all_em(scene: Scene, name: str) -> Finding | None:
    """Most frequent response of clusters with almost all in the EM calorimeter."""
    return _ridge(scene, name, 0.9, 1.1, 1.0)


def upper_ridge_rises(scene: Scene, name: str) -> Finding | None:
    """True responses at the upper end of the bulk over the ridge, for little and much f_emc."""
    del name
    cells = series(scene.table("plane"), axis="f_emc", set=TARGET)
    ends = [_upper(cells, low, high) for low, high in ((-0.1, 0.3), (0.6, 0.9))]
    if ends[0] is None or ends[1] is None:
        return None
    words = f"{ends[0]:.2f} of the ridge at f < 0.3, {ends[1]:.2f} at f > 0.6"
    return Finding(words, ends[0] > ends[1])


def structure_in_distance(scene: Scene, name: str) -> Finding | None:
    """The distance at which the share of responses far above one is largest."""
    cells = series(scene.table("plane"), axis="c", set=name)
    if not len(cells):
        return None
    lows = np.unique(cells["low"])
    share = np.array([_far_share(keep(cells, cells["low"] == low)) for low in lows])
    if not np.nanmax(share, initial=0.0) > 0:
        return Finding("no structure", holds=False)
    at = lows[np.nanargmax(share)]
    return Finding(f"at {at:.0f} mm", 3600.0 <= at <= 4300.0)


def _width_ratio(scene: Scene, name: str, other: str) -> float | None:
    ratios = []
    one, two = (series(scene.table("plane"), axis="denominator", set=n) for n in (name, other))
    if not len(one) or not len(two):
        return None
    for low in np.intersect1d(one["low"], two["low"]):
        columns = [keep(cells, cells["low"] == low) for cells in (one, two)]
        if min(column["rows"].sum() for column in columns) >= ENOUGH:
            widths = [_width(column) for column in columns]
            ratios.append(widths[0] / widths[1])
    return float(np.median(ratios)) if ratios else None


def _width(cells: Series) -> float:
    ends = [_level(cells, level) for level in (0.16, 0.84)]
    return ends[1] - ends[0]


def _level(cells: Series, level: float) -> float:
    """A quantile of log10 of the target."""
    low, high = np.log10(cells["target_low"]), np.log10(cells["target_high"])
    return quantile(low, high, cells["weight"], level)


def _ridge(scene: Scene, name: str, low: float, high: float, paper: float) -> Finding | None:
    cells = series(scene.table("plane"), axis="f_emc", set=name)
    x, heights = _spectrum(cells, low, high)
    if not len(x):
        return None
    top = int(np.argmax(heights))
    near = slice(max(top - 1, 0), top + 2)
    found = float(np.exp(np.average(np.log(x[near]), weights=heights[near])))
    return Finding(f"R = {found:.2f}", abs(found - paper) <= TOLERANCE)


def _upper(cells: Series, low: float, high: float) -> float | None:
    x, heights = _spectrum(cells, low, high)
    chosen = x < 2.5
    if not len(x) or not heights[chosen].sum():
        return None
    reached = np.cumsum(heights[chosen]) / heights[chosen].sum()
    return float(np.interp(0.9, reached, x[chosen]) / x[np.argmax(heights)])


def _spectrum(cells: Series, low: float, high: float) -> tuple[Column, Column]:
    """The target's spectrum in a range of the axis: centres of its cells, and weights."""
    if not len(cells):
        return np.zeros(0), np.zeros(0)
    chosen = keep(cells, (cells["low"] >= low) & (cells["high"] <= high))
    lows, place = np.unique(chosen["target_low"], return_inverse=True)
    if not len(lows):
        return np.zeros(0), np.zeros(0)
    heights = np.bincount(place, weights=chosen["weight"])
    step = np.median(chosen["target_high"] / chosen["target_low"])
    return lows * np.sqrt(step), heights


def _far_share(cells: Series) -> float:
    if cells["rows"].sum() < ENOUGH / 5:
        return float("nan")
    far = cells["target_low"] >= FAR_ABOVE
    return float(cells["weight"][far].sum() / cells["weight"].sum())


STATEMENTS = (
    Statement("4", "Spread of predictions in bins of true energy", "sharper", is_sharper),
    Statement(
        "4",
        "Spread of the ensemble's predictions",
        "as the BNN's",
        is_like_bnn,
        of="repulsive_ensemble",
    ),
    Statement("5d-f", "Ridge of R at f_emc near 0", "0.8", ridge_at_no_em),
    Statement("5d-f", "Ridge of R at f_emc near 1", "1.0", ridge_at_all_em),
    Statement("5d", "Upper tenth of true R as f_emc falls", "rises", upper_ridge_rises, "sample"),
    Statement("5g-i", "Structure of R in |c|", "about 3900 mm", structure_in_distance),
)
