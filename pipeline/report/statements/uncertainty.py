"""Statements on uncertainties and pulls (Figs. 11 and 12)."""

import numpy as np

from pipeline.evaluation.rows import EVERYWHERE, VERSUS
from pipeline.report.statements.statement import Finding, Statement, percent
from pipeline.report.study_data import Scene, Series, distinct, series

ALIKE = 1.25  # the largest ratio of two widths or shares that are called equal
AGREEMENT = 0.1  # the paper's ten per cent
TAIL = 2.0  # of the pull, in sigma


def no_bias(scene: Scene, name: str) -> Finding | None:
    """Median of the relative difference of the ensemble's sigma_tot and the BNN's."""
    pair = _pair(scene, name)
    if not len(pair) or not np.isfinite(pair["sigma_median"][0]):
        return None
    value = float(pair["sigma_median"][0])
    return Finding(f"median {percent(value)}", abs(value) < 0.02)


def agreement(scene: Scene, name: str) -> Finding | None:
    """The fitted core width of the relative difference of two sets' uncertainties."""
    fit = _pair_fit(scene, name)
    if not len(fit):
        return None
    value = float(fit["left"][0] + fit["right"][0]) / 2
    return Finding(percent(value), value <= 1.2 * AGREEMENT)


def is_symmetric(scene: Scene, name: str) -> Finding | None:
    """The two core widths of that relative difference, left and right."""
    fit = _pair_fit(scene, name)
    if not len(fit):
        return None
    left, right = float(fit["left"][0]), float(fit["right"][0])
    return Finding(f"{percent(left)} and {percent(right)}", _alike(left, right))


def tails_are_equal(scene: Scene, name: str) -> Finding | None:
    """Shares of clusters 10 to 30 per cent off on either side."""
    bins = _of_pair(scene, "pair_sigma", name)
    if not len(bins):
        return None
    below = _share(bins, -0.3, -0.1)
    above = _share(bins, 0.1, 0.3)
    return Finding(f"{percent(below)} below, {percent(above)} above", _alike(below, above))


def pulls_correlate(scene: Scene, name: str) -> Finding | None:
    """Correlation of the ensemble's pulls with the BNN's."""
    pair = _pair(scene, name)
    if not len(pair) or not np.isfinite(pair["correlation_t_log"][0]):
        return None
    value = float(pair["correlation_t_log"][0])
    return Finding(f"{value:.3f}", value > 0.9)


def pull_centre(scene: Scene, name: str) -> Finding | None:
    """Fitted centre of the logarithmic pull."""
    fit = _pull_fit(scene, name)
    if not len(fit):
        return None
    value = float(fit["mean"][0])
    return Finding(f"{value:+.3f}".replace("-", "\u2212"), abs(value) < 0.1)


def pull_widths_are_equal(scene: Scene, name: str) -> Finding | None:
    """The two core widths of the pull, left and right."""
    fit = _pull_fit(scene, name)
    if not len(fit):
        return None
    left, right = float(fit["left"][0]), float(fit["right"][0])
    return Finding(f"{left:.2f} and {right:.2f}", _alike(left, right))


def pull_is_narrow(scene: Scene, name: str) -> Finding | None:
    """The mean of the two core widths of the pull, which the paper finds below 1."""
    fit = _pull_fit(scene, name)
    if not len(fit):
        return None
    value = float(fit["left"][0] + fit["right"][0]) / 2
    return Finding(f"{value:.2f}", value < 1.0)


def pull_tails_differ(scene: Scene, name: str) -> Finding | None:
    """Shares of clusters beyond two sigma on either side."""
    bins = series(scene.table("pull"), figure="t_log", set=name, population=EVERYWHERE)
    if not len(bins):
        return None
    below, above = _share(bins, -np.inf, -TAIL), _share(bins, TAIL, np.inf)
    words = f"{percent(below)} below \u2212{TAIL:g}, {percent(above)} above {TAIL:g}"
    return Finding(words, not _alike(below, above))


def _pair_name(scene: Scene, name: str) -> str | None:
    """The pair of the ensemble and the BNN, in either order, if it was evaluated."""
    bnn = scene.model_of_kind("bnn")
    wanted = {f"{name}{VERSUS}{bnn}", f"{bnn}{VERSUS}{name}"}
    found = wanted & set(distinct(scene.table("pair_sigma"), "set"))
    return next(iter(found), None)


def _of_pair(scene: Scene, table: str, name: str) -> Series:
    pair = _pair_name(scene, name)
    if pair is None:
        return Series()
    return series(scene.table(table), set=pair, population=EVERYWHERE)


def _pair(scene: Scene, name: str) -> Series:
    return _of_pair(scene, "pairs", name)


def _pair_fit(scene: Scene, name: str) -> Series:
    pair = _pair_name(scene, name)
    if pair is None:
        return Series()
    table = scene.table("pull_fit")
    return series(table, figure="pair_sigma", set=pair, population=EVERYWHERE)


def _pull_fit(scene: Scene, name: str) -> Series:
    return series(scene.table("pull_fit"), figure="t_log", set=name, population=EVERYWHERE)


def _share(bins: Series, low: float, high: float) -> float:
    chosen = (bins["low"] >= low - 1e-9) & (bins["high"] <= high + 1e-9)
    return float(bins["fraction"][chosen].sum())


def _alike(one: float, two: float) -> bool:
    return max(one, two) <= ALIKE * min(one, two)


PAIRS = (
    Statement("11a", "RE's \u03c3_tot less the BNN's", "no bias", no_bias, "repulsive_ensemble"),
    Statement("11b", "Width of that difference", "10%", agreement, "repulsive_ensemble"),
    Statement("11b", "Its two sides", "near symmetric", is_symmetric, "repulsive_ensemble"),
    Statement(
        "11b",
        "Clusters 10% to 30% off, either side",
        "equal",
        tails_are_equal,
        "repulsive_ensemble",
    ),
    Statement("12a", "Correlation of the pulls", "high", pulls_correlate, "repulsive_ensemble"),
)
PULLS = (
    Statement("12b", "Centre of the pull", "about 0", pull_centre),
    Statement("12b", "Left and right width of the pull", "about equal", pull_widths_are_equal),
    Statement("12b", "Width of the pull", "< 1", pull_is_narrow),
    Statement("12b", "Tails of the pull", "asymmetric", pull_tails_differ),
)
