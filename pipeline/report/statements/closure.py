"""Statements on medians and resolutions in bins (Figs. 6 to 9, 18 and 19)."""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.rows import UNCALIBRATED
from pipeline.report.statements.statement import (
    ENOUGH,
    Finding,
    Statement,
    both,
    keep,
    mean_of,
    outside,
    percent,
    profile,
    within,
)
from pipeline.report.study_data import Scene, Series, series

LCW = "lcw"
CLOSE = 0.02  # the paper's two per cent
NEARLY_ALL = 0.9  # of the clusters
LATE = 12.5  # ns, half the time between two crossings
FIGURE_8 = ("f_emc", "c", "N_PV", "mu")
FIGURE_18 = ("m_long", "m_lat", "ptD", "rho", "zeta", "Var_t", "lambda", "f_iso")


def prediction_median(scene: Scene, name: str) -> Finding | None:
    """Largest |median Delta_R| above 0.5 GeV."""
    return _largest(profile(scene, "delta_r", "denominator", name, rows=ENOUGH), 0.5)


def means_are_worse(scene: Scene, name: str) -> Finding | None:
    """Share of the clusters in bins whose mean lies farther from zero than the median."""
    bins = profile(scene, "delta_r", "denominator", name)
    if not len(bins):
        return None
    worse = np.abs(bins["mean_truncated"]) > np.abs(bins["median"])
    share = float(bins["rows"][worse].sum() / bins["rows"].sum())
    return Finding(f"farther from 0 for {percent(share, 0)} of the clusters", share > 0.5)


def bnn_beats_dnn(scene: Scene, name: str) -> Finding | None:
    """Share of the clusters in bins of E_dep where the BNN's median is as good as the DNN's."""
    bnn = scene.model_of_kind("bnn")
    if bnn is None or bnn == name:
        return None
    one, two = both(*(profile(scene, "delta_r", "denominator", n) for n in (bnn, name)))
    if not len(one) or not len(two):
        return None
    good = np.abs(one["median"]) <= np.abs(two["median"]) + 0.005
    share = float(one["rows"][good].sum() / one["rows"].sum())
    return Finding(f"for {percent(share, 0)} of the clusters", share > 0.5)


def closure_from_half(scene: Scene, name: str) -> Finding | None:
    """Largest |median Delta_E| above 0.5 GeV."""
    return _largest(profile(scene, "delta_e", "denominator", name, rows=ENOUGH), 0.5)


def closure_from_one(scene: Scene, name: str) -> Finding | None:
    """Largest |median Delta_E| above 1 GeV."""
    return _largest(profile(scene, "delta_e", "denominator", name, rows=ENOUGH), 1.0)


def better_than_lcw(scene: Scene, name: str) -> Finding | None:
    """Typical |median Delta_E| in bins of E_EM over that of LCW."""
    one, two = both(*(profile(scene, "delta_e", "numerator", n) for n in (name, LCW)))
    if not len(one) or not len(two):
        return None
    ratio = _typical(one) / _typical(two)
    return Finding(f"{ratio:.2f} of the LCW's deviation", ratio < 0.5)


def worse_at_the_edge(scene: Scene, name: str) -> Finding | None:
    """|median Delta_E| beyond |y| = 2.2 against that within."""
    bins = profile(scene, "delta_e", "y", name)
    edge = outside(bins, 2.2)
    if not len(bins) or not len(edge):
        return None
    values = [_typical(some) for some in (edge, within(bins, -2.0, 2.0))]
    words = f"{percent(values[0])} against {percent(values[1])}"
    return Finding(words, values[0] > 1.5 * values[1])


def lcw_maximum(scene: Scene, name: str) -> Finding | None:
    """The rapidity at which the median of LCW is largest."""
    del name
    bins = profile(scene, "delta_e", "y", LCW)
    if not len(bins):
        return None
    top = int(np.argmax(bins["median"]))
    at = abs(bins["low"][top] + bins["high"][top]) / 2
    return Finding(f"at |y| = {at:.2f}", 1.3 <= at <= 1.7)


def late_uncalibrated(scene: Scene, name: str) -> Finding | None:
    """Mean over late and early clusters of the uncalibrated medians."""
    bins = outside(profile(scene, "delta_e", "t", name), LATE)
    if not len(bins):
        return None
    value = mean_of(bins, "median")
    return Finding(f"{value:.2f}", value > 1.0)


def late_lcw(scene: Scene, name: str) -> Finding | None:
    """The same of LCW, over the uncalibrated."""
    del name
    sets = (outside(profile(scene, "delta_e", "t", n), LATE) for n in (LCW, UNCALIBRATED))
    one, two = both(*sets)
    if not len(one) or not len(two):
        return None
    more = mean_of(one, "median") - mean_of(two, "median")
    return Finding(f"{more:+.2f} to the uncalibrated", more > 0)


def late_calibrated(scene: Scene, name: str) -> Finding | None:
    """Mean over late and early clusters of the model's medians."""
    bins = outside(profile(scene, "delta_e", "t", name), LATE)
    if not len(bins):
        return None
    value = mean_of(bins, "median")
    return Finding(percent(value), -0.3 <= value <= -0.1)


def late_is_constant(scene: Scene, name: str) -> Finding | None:
    """Spread of those medians about their mean."""
    bins = outside(profile(scene, "delta_e", "t", name), LATE)
    if len(bins) < 2:
        return None
    deviations = (bins["median"] - mean_of(bins, "median")) ** 2
    spread = float(np.sqrt(np.average(deviations, weights=bins["rows"])))
    return Finding(f"within {percent(spread)} (rms)", spread < 0.1)


def late_dnn(scene: Scene, name: str) -> Finding | None:
    """Mean over late clusters of the DNN's medians."""
    bins = within(profile(scene, "delta_e", "t", name), LATE, np.inf)
    if not len(bins):
        return None
    value = mean_of(bins, "median")
    return Finding(percent(value), abs(value) < 0.05)


def in_time(scene: Scene, name: str) -> Finding | None:
    """Largest |median Delta_E| of clusters in time."""
    bins = within(profile(scene, "delta_e", "t", name, rows=ENOUGH), -LATE, LATE)
    return _close_share([bins]) if len(bins) else None


def close_in_figure_8(scene: Scene, name: str) -> Finding | None:
    """Share of the clusters in bins of Figure 8 whose median is within two per cent."""
    return _close_share([profile(scene, "delta_e", axis, name) for axis in FIGURE_8])


def close_in_figure_18(scene: Scene, name: str) -> Finding | None:
    """Share of the clusters in bins of Figure 18 whose median is within two per cent."""
    return _close_share([profile(scene, "delta_e", axis, name) for axis in FIGURE_18])


def sharper_than_em(scene: Scene, name: str) -> Finding | None:
    """Share of the bins of E_dep and E_EM with a smaller sigma_rel than uncalibrated."""
    return _better_bins(scene, name, UNCALIBRATED)


def sharper_than_lcw(scene: Scene, name: str) -> Finding | None:
    """Share of the bins of E_dep and E_EM with a smaller sigma_rel than LCW."""
    return _better_bins(scene, name, LCW)


def flatter_in_vertices(scene: Scene, name: str) -> Finding | None:
    """sigma_rel at many vertices over that at few: the model's against the uncalibrated."""
    rises = [
        _rise(profile(scene, "delta_e", "N_PV", n, value="sigma_rel")) for n in (name, UNCALIBRATED)
    ]
    if rises[0] is None or rises[1] is None:
        return None
    return Finding(f"rises {rises[0]:.2f}-fold, uncalibrated {rises[1]:.2f}", rises[0] < rises[1])


def tails_at_low_energy(scene: Scene, name: str) -> Finding | None:
    """Share of clusters far off in the slice of the lowest energy, against the uncalibrated."""
    shares = [_far_off(scene, n, 0) for n in (name, UNCALIBRATED)]
    if shares[0] is None or shares[1] is None:
        return None
    words = f"{percent(shares[0])} against {percent(shares[1])}"
    return Finding(words, shares[0] < shares[1])


def dnn_at_80(scene: Scene, name: str) -> Finding | None:
    """Median of the DNN near 80 GeV."""
    bins = within(profile(scene, "delta_e", "denominator", name), 60.0, 105.0)
    if not len(bins):
        return None
    value = mean_of(bins, "median")
    return Finding(percent(value), value < 0)


def _largest(bins: Series, low: float) -> Finding | None:
    bins = within(bins, low, np.inf)
    if not len(bins):
        return None
    at = int(np.argmax(np.abs(bins["median"])))
    value = float(abs(bins["median"][at]))
    return Finding(f"{percent(value)} (at {bins['low'][at]:.2g} GeV)", value < CLOSE)


def _typical(bins: Series) -> float:
    """Root mean square of the medians over the clusters."""
    return float(np.sqrt(np.average(bins["median"] ** 2, weights=bins["rows"])))


def _close_share(axes: Sequence[Series]) -> Finding | None:
    axes = [bins for bins in axes if len(bins)]
    if not axes:
        return None
    shares = [
        float(bins["rows"][np.abs(bins["median"]) < CLOSE].sum() / bins["rows"].sum())
        for bins in axes
    ]
    share = float(np.mean(shares))
    return Finding(f"for {percent(share, 0)} of the clusters", share >= NEARLY_ALL)


def _better_bins(scene: Scene, name: str, other: str) -> Finding | None:
    better, every = 0, 0
    for axis in ("denominator", "numerator"):
        sets = (
            profile(scene, "delta_e", axis, n, value="sigma_rel", rows=ENOUGH)
            for n in (name, other)
        )
        one, two = both(*sets)
        if len(one) and len(two):
            better += int((one["sigma_rel"] < two["sigma_rel"]).sum())
            every += len(one)
    return Finding(f"in {better} of {every} bins", better >= 0.95 * every) if every else None


def _rise(bins: Series) -> float | None:
    """Mean of the fifth of the bins with most vertices over that with fewest."""
    if len(bins) < 10:
        return None
    fifth = len(bins) // 5
    ends = [np.arange(len(bins)) < fifth, np.arange(len(bins)) >= len(bins) - fifth]
    few, many = (mean_of(keep(bins, some), "sigma_rel") for some in ends)
    return many / few


def _far_off(scene: Scene, name: str, place: int) -> float | None:
    bins = series(scene.table("slice"), set=name)
    if not len(bins):
        return None
    at = np.unique(bins["at"])[place]
    bins = keep(bins, bins["at"] == at)
    far = (bins["low"] >= 0.5) | (bins["high"] <= -0.5)
    return float(np.nansum(bins["fraction"][far]))


PREDICTION = (
    Statement("6a", "Largest |median \u0394R| above 0.5 GeV", "about 0 (< 2%)", prediction_median),
    Statement("6a", "Means of \u0394R against medians", "worse", means_are_worse),
    Statement("6a", "BNN's median as good as the DNN's", "yes", bnn_beats_dnn, "dnn"),
)
LINEARITY = (
    Statement("7a", "Largest |median \u0394E| above 0.5 GeV", "< 2%", closure_from_half),
    Statement("7a", "Largest |median \u0394E| above 1 GeV", "< 2%", closure_from_one, "dnn"),
    Statement("7b", "|median \u0394E| against LCW in E_EM", "far better", better_than_lcw),
    Statement("7c", "|median \u0394E| at large |y| against within", "worse", worse_at_the_edge),
    Statement("7c", "Largest median \u0394E of LCW", "|y| about 1.5", lcw_maximum, "sample"),
    Statement("7d", "Uncalibrated \u0394E beyond 12.5 ns", "> 1", late_uncalibrated, "sample"),
    Statement("7d", "LCW beyond 12.5 ns", "slightly above", late_lcw, "sample"),
    Statement("7d", "\u0394E beyond 12.5 ns", "about \u221220%", late_calibrated),
    Statement("7d", "\u0394E beyond 12.5 ns", "near constant", late_is_constant),
    Statement("7d", "DNN's \u0394E above 12.5 ns", "few per cent", late_dnn, "dnn"),
    Statement("7d", "|median \u0394E| < 2% in time", "about 0", in_time),
    Statement("8", "|median \u0394E| < 2%", "nearly everywhere", close_in_figure_8),
)
RESOLUTION = (
    Statement("9a, 9b", "\u03c3_rel below the uncalibrated", "everywhere", sharper_than_em),
    Statement("9a, 9b", "\u03c3_rel below LCW", "everywhere", sharper_than_lcw),
    Statement("9c", "\u03c3_rel against N_PV", "flatter", flatter_in_vertices),
)
APPENDIX = (
    Statement("18", "|median \u0394E| < 2%", "about 0", close_in_figure_18),
    Statement("19a", "Clusters off by more than half", "suppressed", tails_at_low_energy),
    Statement("19c", "DNN's median near 80 GeV", "< 0", dnn_at_80, "dnn"),
)
