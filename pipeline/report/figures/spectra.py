"""Panels of stacked spectra by truth class, with each class's fraction below.

Slices are distributions of Delta_E in some bins of the true energy (Fig. 19).
"""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes

from pipeline.evaluation.rows import EVERYWHERE, UNCALIBRATED
from pipeline.report.figures.closure import as_steps
from pipeline.report.panel import GREY, Panel, add_legend, new_axes, new_tiers, plain_log
from pipeline.report.paper import axes_of, panel_letters
from pipeline.report.study_data import AxisView, Column, Scene, Series, distinct, select, series

CLASS_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00")
MIN_ROWS = 10  # bins with fewer have no fraction worth a line
LOG_FROM = 50.0  # largest over smallest weight of a bin from which the counts are shown in log


def spectrum_panels(scene: Scene, figure: str) -> Iterator[Panel]:
    """Weights of the classes on top of each other in the bins of an axis (Figs. 1, 16, 17)."""
    for number, axis in axes_of(scene, "spectrum", figure):
        table = select(scene.table("spectrum"), axis=axis.name)
        bins = {name: series(table, **{"class": name}) for name in distinct(table, "class")}
        whole = bins.pop(EVERYWHERE, None)
        if whole is None or not whole["rows"].any():
            continue
        yield _panel(scene, axis, whole, bins, number)


def _panel(
    scene: Scene, axis: AxisView, whole: Series, classes: dict[str, Series], number: str
) -> Panel:
    drawing, upper, lower = new_tiers(scene.sample)
    _draw_stack(upper, whole, classes)
    _draw_fractions(lower, classes, whole["rows"] >= MIN_ROWS)
    seen = whole["rows"] > 0
    low, high = float(whole["low"][seen].min()), float(whole["high"][seen].max())
    for axes in (upper, lower):
        if axis.is_log:
            plain_log(axes, "x", (low, high))
        axes.set_xlim(low, high)
    counts = whole["weight"][seen & (whole["weight"] > 0)]
    if len(counts) and counts.max() > LOG_FROM * counts.min():
        plain_log(upper, "y", (0.5 * min(1.0, counts.min()), 2.0 * counts.max()))
    else:
        upper.set_ylim(0.0, None)
    upper.set_ylabel("rows per bin" if _is_counted(whole) else "sum of weights per bin")
    lower.set_xlabel(axis.label)
    lower.set_ylabel("fraction")
    lower.set_ylim(0.0, 1.05)
    drawing.align_ylabels([upper, lower])
    add_legend(drawing, upper)
    return Panel(
        name=f"spectrum-{axis.name}",
        caption=f"Spectrum of {axis.symbol} by truth class, stacked; below, each class's fraction "
        f"of the bin with its statistical error as a band, from {MIN_ROWS} rows on.",
        figure=drawing,
        table=select(scene.table("spectrum"), axis=axis.name),
        number=number,
        labels={"low": axis.label, "weight": "Sum of weights", "fraction": "Fraction of the bin"},
    )


def _draw_stack(axes: Axes, whole: Series, classes: dict[str, Series]) -> None:
    below = np.zeros(len(whole))
    for (name, bins), colour in zip(classes.items(), CLASS_COLOURS, strict=False):
        top = below + np.nan_to_num(bins["weight"])
        x, low = as_steps(bins["low"], bins["high"], np.maximum(below, 1e-9))
        _, high = as_steps(bins["low"], bins["high"], np.maximum(top, 1e-9))
        axes.fill_between(x, low, high, color=colour, alpha=0.75, linewidth=0, label=name)
        below = top
    x, y = as_steps(whole["low"], whole["high"], whole["weight"])
    axes.plot(x, y, color="#000000", linewidth=1.0, label="all")


def _draw_fractions(axes: Axes, classes: dict[str, Series], shown: Column) -> None:
    for (_, bins), colour in zip(classes.items(), CLASS_COLOURS, strict=False):
        error = np.nan_to_num(bins["fraction_error"])
        fraction = np.where(shown, bins["fraction"], np.nan)
        x, y = as_steps(bins["low"], bins["high"], fraction)
        _, low = as_steps(bins["low"], bins["high"], fraction - error)
        _, high = as_steps(bins["low"], bins["high"], fraction + error)
        axes.fill_between(x, low, high, color=colour, alpha=0.3, linewidth=0)
        axes.plot(x, y, color=colour, linewidth=1.2)


def _is_counted(whole: Series) -> bool:
    return bool(np.array_equal(whole["rows"], whole["weight"]))


SHOWN = ("set", "low", "high", "rows", "fraction", "fraction_error")
SHARE_SHOWN = 0.002  # of the rows that may lie beyond either end
MAX_DELTA = 3.0  # farther rows are counted in the panel's numbers only


def slice_panels(scene: Scene) -> Iterator[Panel]:
    """One panel for each slice, with every set in it."""
    table = scene.table("slice")
    every = series(table)
    if not len(every):
        return
    above, below = scene.symbol(scene.target.calibrated), scene.symbol(scene.target.denominator)
    label = rf"{above} / {below} $-$ 1"
    unit = "" if scene.target.calibrated_unit == "1" else f" {scene.target.calibrated_unit}"
    letters = panel_letters()
    for at in np.unique(every["at"]):
        names = [UNCALIBRATED, *scene.sets]
        curves = {name: _only(series(table, set=name), at) for name in names}
        curves = {name: bins for name, bins in curves.items() if len(bins) and bins["rows"].any()}
        if not curves:
            continue
        drawing, axes = new_axes(scene.sample)
        for name, bins in curves.items():
            look = scene.look(name)
            filled = np.where(bins["fraction"] > 0, bins["fraction"], np.nan)
            x, y = as_steps(bins["low"], bins["high"], filled)
            axes.plot(x, y, color=look.colour, linestyle=look.line, linewidth=1.2, label=look.label)
        axes.axvline(0.0, color=GREY, linewidth=0.8)
        axes.set_xlim(*_range(list(curves.values())))
        plain_log(axes, "y")
        axes.set_xlabel(label)
        axes.set_ylabel("fraction of rows per bin")
        add_legend(drawing, axes)
        first = next(iter(curves.values()))
        low, high = first["slice_low"][0], first["slice_high"][0]
        yield Panel(
            name=f"slice-{at:g}".replace(".", "p"),
            caption=f"{label} of rows with {below} from {low:.3g} to {high:.3g}{unit}, each "
            "scale normalised to one.",
            figure=drawing,
            table=table.filter(np.isclose(every["at"], at)).select(SHOWN),
            number="19" + next(letters),
            labels={"low": label, "fraction": "Fraction of rows per bin"},
        )


def _only(bins: Series, at: float) -> Series:
    chosen = np.isclose(bins["at"], at) if len(bins) else np.zeros(0, dtype=bool)
    return Series({name: values[chosen] for name, values in bins.columns.items()})


def _range(curves: list[Series]) -> tuple[float, float]:
    """What almost all rows of every curve lie in."""
    ends = []
    for bins in curves:
        reached = np.cumsum(np.nan_to_num(bins["fraction"]))
        reached /= reached[-1]
        last = min(int(np.searchsorted(reached, 1 - SHARE_SHOWN)), len(reached) - 1)
        ends.append((bins["low"][np.searchsorted(reached, SHARE_SHOWN)], bins["high"][last]))
    return float(min(e[0] for e in ends)), min(float(max(e[1] for e in ends)), MAX_DELTA)
