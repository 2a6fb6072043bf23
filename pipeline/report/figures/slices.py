"""Distributions of Delta_E in some bins of the true energy (Fig. 19)."""

from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.rows import UNCALIBRATED
from pipeline.report.figures.closure import as_steps
from pipeline.report.panel import GREY, Panel, add_legend, new_axes, plain_log
from pipeline.report.paper import panel_letters
from pipeline.report.study_data import Scene, Series, series

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
