"""Statements on spectra and classes (Figs. 1, 13, 14, 16 and 17)."""

import numpy as np

from pipeline.evaluation.rows import EVERYWHERE
from pipeline.report.statements.statement import (
    ENOUGH,
    Finding,
    Statement,
    both,
    filled,
    keep,
    percent,
    quantile,
    spectrum,
    within,
)
from pipeline.report.study_data import Column, Scene, Series, series

EM, HADRONIC, COMPOSITE = "em", "hadronic", "composite"
SPREAD = 0.03  # of a fraction that is called constant, on either side of its mean
SCINTILLATOR_Z = (3300.0, 3700.0)  # mm: the gap's scintillators stand at 3555
RISE = 1.5  # of a second peak over the valley before it


def em_is_constant(scene: Scene, name: str) -> Finding | None:
    """Range of the EM fraction below 2 GeV."""
    del name
    return _flat(filled(within(spectrum(scene, "numerator", EM), 0, 2.0), "fraction"))


def hadronic_leads_low(scene: Scene, name: str) -> Finding | None:
    """Smallest hadronic fraction below 2 GeV."""
    del name
    bins = filled(within(spectrum(scene, "numerator", HADRONIC), 0, 2.0), "fraction", rows=1)
    if not len(bins):
        return None
    least = float(bins["fraction"].min())
    return Finding(f"at least {percent(least)}", least > 0.5)


def composite_equals_hadronic(scene: Scene, name: str) -> Finding | None:
    """The energy from which on composite clusters are more than hadronic ones."""
    del name
    energy, above = _composite_less_hadronic(scene)
    if not len(energy) or not (above > 0).any() or not (above < 0).any():
        return None
    last = int(np.flatnonzero(above < 0)[-1])
    if last + 1 >= len(energy):
        return Finding("never", holds=False)
    share = above[last] / (above[last] - above[last + 1])
    found = float(np.exp((1 - share) * np.log(energy[last]) + share * np.log(energy[last + 1])))
    return Finding(f"at {found:.0f} GeV", 10.0 <= found <= 100.0)


def composite_leads_high(scene: Scene, name: str) -> Finding | None:
    """Composite less hadronic fraction above 100 GeV."""
    del name
    energy, above = _composite_less_hadronic(scene)
    high = above[energy > 100.0]
    if not len(high):
        return None
    return Finding(f"{percent(float(np.mean(high)))} more", bool(np.mean(high) > 0))


def low_tail(scene: Scene, name: str) -> Finding | None:
    """Share of clusters whose response is below one half."""
    del name
    bins = spectrum(scene, "response", EVERYWHERE)
    if not len(bins):
        return None
    share = float(bins["weight"][bins["high"] <= 0.5 + 1e-9].sum() / bins["weight"].sum())
    return Finding(f"{percent(share)} below 0.5", share > 1e-3)


def gap_peak(scene: Scene, name: str) -> Finding | None:
    """Where the response has a second peak above 10."""
    del name
    bins = spectrum(scene, "response", EVERYWHERE)
    return _second_peak(bins, "weight", low=10.0, window=(40.0, 60.0), words="R = {:.0f}")


def sigma_bump(scene: Scene, name: str) -> Finding | None:
    """Where the spectrum of sigma_tot has a second peak."""
    bins = series(scene.table("sigma"), figure="sigma_tot", set=name, population=EVERYWHERE)
    return _second_peak(bins, "fraction", low=4.0, window=(8.5, 12.0), words="at {:.1f}")


def window_response(scene: Scene, name: str) -> Finding | None:
    """Median response of the clusters in the window."""
    bins = series(scene.table("window"), set=name, axis="response")
    if not len(bins) or not bins["rows"].sum():
        return None
    median = quantile(bins["low"], bins["high"], bins["weight"], 0.5)
    return Finding(f"median R = {median:.0f}", median > 10.0)


def window_em_share(scene: Scene, name: str) -> Finding | None:
    """Share of the window's clusters with little in the electromagnetic calorimeter."""
    return _window_share(scene, name, "f_emc", (-0.02, 0.1), "f_emc < 0.1")


def window_rapidity(scene: Scene, name: str) -> Finding | None:
    """Share of the window's clusters at 1 < |y| < 1.4."""
    return _window_share(scene, name, "y", (1.0, 1.4), "1 < |y| < 1.4")


def window_place(scene: Scene, name: str) -> Finding | None:
    """Share of the window's clusters near the plane of the scintillators."""
    cells = series(scene.table("map"), set=name)
    if not len(cells):
        return None
    low, high = SCINTILLATOR_Z
    near = (cells["low"] >= low) & (cells["high"] <= high)
    share = float(cells["weight"][near].sum() / cells["weight"].sum())
    return Finding(f"{percent(share)} at {low:.0f} < |z| < {high:.0f} mm", share > 0.5)


def nothing_beyond(scene: Scene, name: str) -> Finding | None:
    """Share of all clusters beyond |y| = 2.4."""
    del name
    bins = spectrum(scene, "y", EVERYWHERE)
    if not len(bins):
        return None
    beyond = (bins["low"] >= 2.4 - 1e-6) | (bins["high"] <= -2.4 + 1e-6)
    share = float(bins["weight"][beyond].sum() / bins["weight"].sum())
    return Finding(f"{percent(share, 2)} beyond", share < 1e-3)


def em_share(scene: Scene, name: str) -> Finding | None:
    """The share of electromagnetic clusters among all clusters."""
    del name
    share = _class_share(scene, "y", EM, -np.inf, np.inf)
    return None if share is None else Finding(percent(share), 0.05 <= share <= 0.15)


def em_is_flat(scene: Scene, name: str) -> Finding | None:
    """Largest deviation of the EM fraction from its mean, over y, N_PV and mu."""
    del name
    found = [filled(spectrum(scene, a, EM), "fraction", rows=1) for a in ("y", "N_PV", "mu")]
    every = [_with_total(scene, a, b) for a, b in zip(("y", "N_PV", "mu"), found, strict=True)]
    deviations = [_deviation(bins) for bins in every if len(bins)]
    if not deviations:
        return None
    return Finding(f"within {percent(max(deviations))}", max(deviations) <= SPREAD)


def em_is_dense(scene: Scene, name: str) -> Finding | None:
    """EM fraction of the densest tenth of the clusters over that of all."""
    del name
    return _share_of_tenth(scene, "rho", EM, at_least=1.0, relative=True)


def hadronic_is_deep(scene: Scene, name: str) -> Finding | None:
    """Hadronic fraction of the deepest tenth of the clusters."""
    del name
    return _share_of_tenth(scene, "lambda", HADRONIC, at_least=0.5, relative=False)


def compact_is_hadronic(scene: Scene, name: str) -> Finding | None:
    """Hadronic fraction above ptD = 0.6."""
    del name
    share = _class_share(scene, "ptD", HADRONIC, 0.6, np.inf)
    return None if share is None else Finding(percent(share), share > 0.5)


def isolated_is_em(scene: Scene, name: str) -> Finding | None:
    """EM fraction above f_iso = 0.8."""
    del name
    share = _class_share(scene, "f_iso", EM, 0.8, np.inf)
    return None if share is None else Finding(percent(share), share > 0.25)


def _flat(bins: Series) -> Finding | None:
    if not len(bins):
        return None
    low, high = float(bins["fraction"].min()), float(bins["fraction"].max())
    return Finding(f"{percent(low)} to {percent(high)}", high - low <= 2 * SPREAD)


def _composite_less_hadronic(scene: Scene) -> tuple[Column, Column]:
    composite, hadronic = (spectrum(scene, "numerator", kind) for kind in (COMPOSITE, HADRONIC))
    if not len(composite) or not len(hadronic):
        return np.zeros(0), np.zeros(0)
    total = composite["rows"] + hadronic["rows"]
    enough = (total >= 50) & np.isfinite(composite["fraction"]) & (composite["low"] > 0)
    composite, hadronic = keep(composite, enough), keep(hadronic, enough)
    energy = np.sqrt(composite["low"] * composite["high"])
    return energy, composite["fraction"] - hadronic["fraction"]


def _second_peak(
    bins: Series, value: str, *, low: float, window: tuple[float, float], words: str
) -> Finding | None:
    """The highest bin above a value, if it rises over the valley between it and that value."""
    if not len(bins):
        return None
    order = np.argsort(bins["low"], kind="stable")
    x = np.sqrt(bins["low"] * bins["high"])[order]
    heights = np.nan_to_num(bins[value][order])
    beyond = np.flatnonzero(x > low)
    if not len(beyond) or not heights[beyond].any():
        return Finding("no peak", holds=False)
    top = int(beyond[np.argmax(heights[beyond])])
    valley = heights[beyond[0] : top + 1].min()
    if heights[top] < RISE * valley:
        return Finding("no peak", holds=False)
    return Finding(words.format(x[top]), window[0] <= x[top] <= window[1])


def _window_share(
    scene: Scene, name: str, axis: str, ends: tuple[float, float], words: str
) -> Finding | None:
    bins = series(scene.table("window"), set=name, axis=axis)
    if not len(bins) or not bins["rows"].sum():
        return None
    nearest = np.minimum(np.abs(bins["low"]), np.abs(bins["high"]))
    farthest = np.maximum(np.abs(bins["low"]), np.abs(bins["high"]))
    if ends[0] < 0:
        nearest, farthest = bins["low"], bins["high"]
    chosen = (nearest >= ends[0] - 0.03) & (farthest <= ends[1] + 0.03)
    share = float(bins["weight"][chosen].sum() / bins["weight"].sum())
    return Finding(f"{percent(share)} with {words}", share > 0.5)


def _class_share(scene: Scene, axis: str, kind: str, low: float, high: float) -> float | None:
    whole, some = spectrum(scene, axis, EVERYWHERE), spectrum(scene, axis, kind)
    whole, some = within(whole, low, high), within(some, low, high)
    if not len(whole) or not len(some) or not whole["weight"].sum():
        return None
    return float(some["weight"].sum() / whole["weight"].sum())


def _share_of_tenth(
    scene: Scene, axis: str, kind: str, *, at_least: float, relative: bool
) -> Finding | None:
    whole, some = spectrum(scene, axis, EVERYWHERE), spectrum(scene, axis, kind)
    if not len(whole) or not len(some) or not whole["weight"].sum():
        return None
    reached = np.cumsum(whole["weight"]) / whole["weight"].sum()
    last = reached > 0.9
    share = float(some["weight"][last].sum() / whole["weight"][last].sum())
    if not relative:
        return Finding(f"{percent(share)} of the last tenth", share > at_least)
    ratio = share / float(some["weight"].sum() / whole["weight"].sum())
    return Finding(f"{ratio:.1f} times the mean in the last tenth", ratio > at_least)


def _with_total(scene: Scene, axis: str, bins: Series) -> Series:
    """The bins in which all classes together have enough rows, with those rows."""
    whole = spectrum(scene, axis, EVERYWHERE)
    if not len(bins) or not len(whole):
        return keep(bins, np.zeros(len(bins), dtype=bool)) if len(bins) else bins
    bins, whole = both(bins, whole)
    return keep(Series(bins.columns | {"rows": whole["rows"]}), whole["rows"] >= ENOUGH)


def _deviation(bins: Series) -> float:
    middle = float(np.average(bins["fraction"], weights=bins["rows"]))
    return float(np.abs(bins["fraction"] - middle).max())


STATEMENTS = (
    Statement("1b", "EM fraction below 2 GeV", "near constant", em_is_constant, "sample"),
    Statement("1b", "Hadronic fraction below 2 GeV", "dominates", hadronic_leads_low, "sample"),
    Statement(
        "1b",
        "Composite clusters equal hadronic ones",
        "at 10 to 100 GeV",
        composite_equals_hadronic,
        "sample",
    ),
    Statement(
        "1b", "Composite over hadronic above 100 GeV", "dominates", composite_leads_high, "sample"
    ),
    Statement("1c", "Tail of responses far below 1", "present", low_tail, "sample"),
    Statement("1c", "Second peak of the response", "about R = 50", gap_peak, "sample"),
)
UNCERTAIN_CLUSTERS = (
    Statement("13", "Second peak of the uncertainty", "8.5 to 12", sigma_bump),
    Statement("14b", "Response in the window of the uncertainty", "R >> 1", window_response),
    Statement("14b", "EM-calorimeter fraction in the window", "small", window_em_share),
    Statement("14b", "Rapidity in the window", "1 < |y| < 1.4", window_rapidity),
    Statement("14b", "Place of the window's clusters", "at the gap scintillators", window_place),
    Statement("14a", "Clusters beyond |y| = 2.4", "nothing there", nothing_beyond, "sample"),
)
FEATURES = (
    Statement("16", "EM fraction of all clusters", "about 10%", em_share, "sample"),
    Statement("16, 17", "EM fraction in y, N_PV and mu", "flat", em_is_flat, "sample"),
    Statement("16h", "EM fraction of dense clusters", "raised", em_is_dense, "sample"),
    Statement("16e", "Hadronic fraction of deep clusters", "dominates", hadronic_is_deep, "sample"),
    Statement("17c", "Hadronic fraction at ptD > 0.6", "mostly", compact_is_hadronic, "sample"),
    Statement("17d", "EM fraction at f_iso > 0.8", "> 25%", isolated_is_em, "sample"),
)
