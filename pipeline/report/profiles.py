"""Panels of medians, bands and widths in the bins of an axis."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from pipeline.evaluation.rows import UNCALIBRATED
from pipeline.report.canvas import Panel, add_legend, new_axes, plain_log
from pipeline.report.scene import AxisView, Column, Look, Scene, Series, centres, select, series

MAX_BANDS = 2  # more bands hide each other; the medians of all sets are drawn


@dataclass(frozen=True, slots=True)
class Curve:
    """One set's values in the bins of an axis.

    Attributes:
        look: How it is drawn.
        bins: The bins, and whatever else the table has.
        value: Column of the values.
        error: Column of their statistical errors.
        share: Where in the bin the marker stands, so that sets do not cover each other.
    """

    look: Look
    bins: Series
    value: str
    error: str
    share: float


@dataclass(frozen=True, slots=True)
class MedianView:
    """What a panel of medians shows.

    Attributes:
        table: Of the evaluation.
        names: The sets.
        label: Of the vertical axis.
        caption: One line.
        mean: Column of a mean to draw as well; None for none.
    """

    table: str
    names: tuple[str, ...]
    label: str
    caption: str
    mean: str | None = None


def closure_panels(scene: Scene) -> Iterator[Panel]:
    """Median Delta_E against each axis (Figs. 7, 8 and 18)."""
    above, below = scene.symbol(scene.target.calibrated), scene.symbol(scene.target.denominator)
    view = MedianView(
        table="delta_e",
        names=(UNCALIBRATED, *scene.sets),
        label=rf"{above} / {below} $-$ 1",
        caption="median and narrowest 68% band",
    )
    for axis in scene.axes():
        yield from _median_panel(scene, axis, view)


def prediction_panels(scene: Scene) -> Iterator[Panel]:
    """Median and mean Delta_R against each axis (Fig. 6)."""
    view = MedianView(
        table="delta_r",
        names=scene.sets,
        label=rf"{scene.symbol(scene.target.name)} predicted / true $-$ 1",
        caption="median (markers), truncated mean (dotted) and narrowest 68% band",
        mean="mean_truncated",
    )
    for axis in scene.axes():
        yield from _median_panel(scene, axis, view)


def pull_profile_panels(scene: Scene) -> Iterator[Panel]:
    """Median and band of the logarithmic pull against each axis."""
    view = MedianView(
        table="pull_profile",
        names=scene.sets,
        label=r"$t_\mathrm{log}$",
        caption="pull, median and narrowest 68% band",
    )
    for axis in scene.axes():
        yield from _median_panel(scene, axis, view)


def resolution_panels(scene: Scene) -> Iterator[Panel]:
    """sigma_rel against each axis (Fig. 9, Eq. 17)."""
    for axis in scene.axes():
        names = (UNCALIBRATED, *scene.sets)
        curves = list(_curves(scene, axis, "delta_e", names, "sigma_rel"))
        if not curves:
            continue
        figure, axes = new_axes(scene.sample)
        for curve in curves:
            _draw_markers(axes, curve, log=axis.is_log)
        _frame(axes, axis, curves)
        axes.set_ylabel(r"$\sigma_\mathrm{rel}$ = $Q_{68}$ / (2 median)")
        calibrated = [c for c in curves if c.look != scene.look(UNCALIBRATED)]
        axes.set_ylim(0.0, 1.1 * _highest(curves, calibrated or curves))
        add_legend(figure, axes)
        yield Panel(
            name=f"resolution-{axis.name}",
            caption=f"Relative resolution against {axis.column}",
            figure=figure,
            table=_drawn(scene.tables["delta_e"], axis, names),
        )


def _median_panel(scene: Scene, axis: AxisView, view: MedianView) -> Iterator[Panel]:
    curves = list(_curves(scene, axis, view.table, view.names, "median"))
    if not curves:
        return
    figure, axes = new_axes(scene.sample)
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    caption = f"Against {axis.column}: {view.caption}"
    if axis.closure_from is not None and view.table == "delta_e":
        axes.axvline(axis.closure_from, color="#999999", linestyle=":", linewidth=0.8)
        caption += "; headline closure counts bins right of the dotted line"
    banded = [curve for curve in curves if curve.look != scene.look(UNCALIBRATED)]
    _draw_bands(axes, banded, None if scene.reference is None else scene.look(scene.reference))
    for curve in curves:
        _draw_markers(axes, curve, log=axis.is_log)
        if view.mean is not None:
            x = centres(curve.bins["low"], curve.bins["high"], log=axis.is_log)
            colour = curve.look.colour
            axes.plot(x, curve.bins[view.mean], color=colour, linestyle=":", linewidth=1.0)
    _frame(axes, axis, curves)
    axes.set_ylabel(view.label)
    axes.set_ylim(*_median_range(curves, banded))
    add_legend(figure, axes)
    yield Panel(
        name=f"{view.table.replace('_', '-')}-{axis.name}",
        caption=caption,
        figure=figure,
        table=_drawn(scene.tables[view.table], axis, view.names),
    )


def _curves(
    scene: Scene, axis: AxisView, table: str, names: tuple[str, ...], value: str
) -> Iterator[Curve]:
    shares = np.linspace(0.5, 0.5, 1) if len(names) == 1 else np.linspace(0.3, 0.7, len(names))
    for name, share in zip(names, shares.tolist(), strict=True):
        # Bins with too few rows have no estimates.
        known = scene.tables[table].filter(pc.is_valid(scene.tables[table][value]))
        bins = series(known, axis=axis.name, set=name)
        if len(bins):
            yield Curve(scene.look(name), bins, value, value + "_error", share)


def _draw_markers(axes: Axes, curve: Curve, *, log: bool) -> None:
    bins, look = curve.bins, curve.look
    axes.errorbar(
        centres(bins["low"], bins["high"], log=log, share=curve.share),
        bins[curve.value],
        yerr=bins[curve.error],
        color=look.colour,
        marker=look.marker,
        linestyle=look.line,
        linewidth=0.8,
        elinewidth=1.0,
        label=look.label,
    )


def _draw_bands(axes: Axes, curves: list[Curve], reference: Look | None) -> None:
    """Bands of the first sets, filled; the reference's as dashed lines."""
    models = [curve for curve in curves if curve.look != reference]
    exact = [curve for curve in curves if curve.look == reference]
    for curve in (*models[:MAX_BANDS], *exact):
        bins, colour = curve.bins, curve.look.colour
        x, low = as_steps(bins["low"], bins["high"], bins["left68"])
        _, high = as_steps(bins["low"], bins["high"], bins["right68"])
        if curve.look == reference:
            axes.plot(x, low, color=colour, linestyle="--", linewidth=0.7)
            axes.plot(x, high, color=colour, linestyle="--", linewidth=0.7)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def as_steps(low: Column, high: Column, values: Column) -> tuple[Column, Column]:
    """Corners of a step curve; NaN where neighbouring bins do not touch."""
    x = np.stack([low, high], axis=1)
    y = np.stack([values, values], axis=1)
    gaps = np.flatnonzero(~np.isclose(high[:-1], low[1:], rtol=1e-9, atol=0.0)) + 1
    x, y = np.insert(x, gaps, np.nan, axis=0), np.insert(y, gaps, np.nan, axis=0)
    return x.ravel(), y.ravel()


def _frame(axes: Axes, axis: AxisView, curves: Iterable[Curve]) -> None:
    """The axis from the first bin with rows to the last."""
    low = min(float(curve.bins["low"].min()) for curve in curves)
    high = max(float(curve.bins["high"].max()) for curve in curves)
    if axis.is_log:
        plain_log(axes, "x", (low, high))
    axes.set_xlim(low, high)
    axes.set_xlabel(axis.label)


def _median_range(curves: list[Curve], banded: list[Curve]) -> tuple[float, float]:
    """What shows the medians and bands of calibrated sets.

    The uncalibrated scale is shown as far as it does not press the others flat.
    """
    shown = banded or curves
    medians = np.concatenate([curve.bins["median"] for curve in shown])
    edges = [curve.bins[side] for curve in shown for side in ("left68", "right68")]
    band = np.quantile(np.concatenate(edges), [0.02, 0.98])
    low, high = min(float(medians.min()), band[0], 0.0), max(float(medians.max()), band[1], 0.0)
    span = max(high - low, 1e-3)
    every = np.concatenate([curve.bins["median"] for curve in curves])
    low = min(low, max(float(every.min()), low - span))
    high = max(high, min(float(every.max()), high + span))
    return low - 0.08 * span, high + 0.08 * span


def _highest(curves: list[Curve], calibrated: list[Curve]) -> float:
    """The largest value, but not more than three times the calibrated sets'."""
    most = [max(float(c.bins[c.value].max()) for c in some) for some in (curves, calibrated)]
    return min(most[0], 3 * most[1])


def _drawn(table: pa.Table, axis: AxisView, names: tuple[str, ...]) -> pa.Table:
    chosen = select(table, axis=axis.name)
    return pa.concat_tables([select(chosen, set=name) for name in names])
