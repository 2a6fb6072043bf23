"""Panels of medians, bands and widths in the bins of an axis."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pipeline.evaluation.rows import UNCALIBRATED
from pipeline.report.panel import GREY, Panel, add_legend, new_axes, plain_log
from pipeline.report.paper import ELSEWHERE, axes_of
from pipeline.report.study_data import (
    AxisView,
    Column,
    Look,
    Scene,
    Series,
    centres,
    select,
    series,
)

MAX_BANDS = 2  # more bands hide each other; the medians of all sets are drawn
MAX_MARKERS = 45  # more bins than this are drawn as steps


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
        caption: What is drawn.
        mean: Column of a mean to draw as well; None for none.
    """

    table: str
    names: tuple[str, ...]
    label: str
    caption: str
    mean: str | None = None


def closure_panels(scene: Scene, figure: str) -> Iterator[Panel]:
    """Median Delta_E against the axes of a figure (Figs. 7, 8 and 18; Eq. 16)."""
    above, below = scene.symbol(scene.target.calibrated), scene.symbol(scene.target.denominator)
    view = MedianView(
        table="delta_e",
        names=(UNCALIBRATED, *scene.sets),
        label=rf"{above} / {below} $-$ 1",
        caption="Median of calibrated over true value, less one",
    )
    for number, axis in axes_of(scene, "delta_e", figure):
        yield from _median_panel(scene, axis, view, number)


def prediction_panels(scene: Scene, figure: str) -> Iterator[Panel]:
    """Median and mean Delta_R against the axes of a figure (Fig. 6; Eq. 15)."""
    view = MedianView(
        table="delta_r",
        names=scene.sets,
        label=rf"{scene.symbol(scene.target.name)} predicted / true $-$ 1",
        caption="Median (markers) and truncated mean (dotted) of predicted over true target, "
        "less one",
        mean="mean_truncated",
    )
    for number, axis in axes_of(scene, "delta_r", figure):
        yield from _median_panel(scene, axis, view, number)


def pull_profile_panels(scene: Scene) -> Iterator[Panel]:
    """Median and band of the pull of the transformed target against the axes that have it."""
    kind = "logarithmic " if scene.is_log else ""
    view = MedianView(
        table="pull_profile",
        names=scene.sets,
        label=r"$t_\mathrm{log}$" if scene.is_log else "$t$",
        caption=f"Median of the {kind}pull",
    )
    for axis in scene.axes():
        yield from _median_panel(scene, axis, view, "")


def resolution_panels(scene: Scene, figure: str) -> Iterator[Panel]:
    """sigma_rel against the axes of a figure (Fig. 9, Eq. 17)."""
    names = (UNCALIBRATED, *scene.sets)
    for number, axis in axes_of(scene, "sigma_rel", figure):
        curves = list(_curves(scene, axis, "delta_e", names, "sigma_rel"))
        if not curves:
            continue
        figure_, axes = new_axes(scene.sample)
        for curve in curves:
            _draw_curve(axes, curve, log=axis.is_log)
        _frame(axes, axis, curves)
        label = r"$\sigma_\mathrm{rel}$ = $Q_{68}$ / (2 median)"
        axes.set_ylabel(label)
        calibrated = [c for c in curves if c.look != scene.look(UNCALIBRATED)]
        axes.set_ylim(0.0, 1.1 * _highest(curves, calibrated or curves))
        add_legend(figure_, axes)
        yield Panel(
            name=f"resolution-{axis.name}",
            caption=f"Relative resolution against {axis.symbol}: half the narrowest interval with "
            "68% of the rows over the median; bars are statistical.",
            figure=figure_,
            table=_drawn(scene.table("delta_e"), axis, names, ("sigma_rel",)),
            number=number,
            labels={"low": axis.label, "sigma_rel": label},
        )


def other_panels(scene: Scene) -> Iterator[Panel]:
    """Closure and resolution against axes that the paper does not show."""
    yield from closure_panels(scene, ELSEWHERE)


def _median_panel(scene: Scene, axis: AxisView, view: MedianView, number: str) -> Iterator[Panel]:
    curves = list(_curves(scene, axis, view.table, view.names, "median"))
    if not curves:
        return
    figure, axes = new_axes(scene.sample)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    banded = [curve for curve in curves if curve.look != scene.look(UNCALIBRATED)]
    reference = None if scene.reference is None else scene.look(scene.reference)
    filled = _draw_bands(axes, banded, reference)
    caption = f"{view.caption}, against {axis.symbol}. {_band_words(filled, reference, banded)}"
    if axis.closure_from is not None and view.table == "delta_e":
        axes.axvline(axis.closure_from, color=GREY, linestyle=":", linewidth=0.8)
        caption += " The headline closure counts bins right of the dotted line."
    for curve in curves:
        _draw_curve(axes, curve, log=axis.is_log)
        if view.mean is not None:
            x = centres(curve.bins["low"], curve.bins["high"], log=axis.is_log)
            colour = curve.look.colour
            axes.plot(x, curve.bins[view.mean], color=colour, linestyle=":", linewidth=1.0)
    _frame(axes, axis, curves)
    axes.set_ylabel(view.label)
    axes.set_ylim(*_median_range(curves, banded))
    add_legend(figure, axes)
    values = ("median", "left68", "right68", *(() if view.mean is None else (view.mean,)))
    yield Panel(
        name=f"{view.table.replace('_', '-')}-{axis.name}",
        caption=caption,
        figure=figure,
        table=_drawn(scene.table(view.table), axis, view.names, values),
        number=number,
        labels={"low": axis.label, "median": f"Median of {view.label}"}
        | ({} if view.mean is None else {view.mean: f"Truncated mean of {view.label}"}),
    )


def _curves(
    scene: Scene, axis: AxisView, table: str, names: tuple[str, ...], value: str
) -> Iterator[Curve]:
    """The sets that have a value in any bin of the axis."""
    shares = np.linspace(0.5, 0.5, 1) if len(names) == 1 else np.linspace(0.3, 0.7, len(names))
    for name, share in zip(names, shares.tolist(), strict=True):
        bins = series(scene.table(table), axis=axis.name, set=name)
        if len(bins) and np.isfinite(bins[value]).any():
            yield Curve(scene.look(name), bins, value, value + "_error", share)


def _draw_curve(axes: Axes, curve: Curve, *, log: bool) -> None:
    """Markers that a line connects within neighbouring bins; steps where bins are many."""
    bins, look = curve.bins, curve.look
    low, high, values = bins["low"], bins["high"], bins[curve.value]
    x, error = centres(low, high, log=log, share=curve.share), bins[curve.error]
    if np.isfinite(values).sum() > MAX_MARKERS:
        steps = as_steps(low, high, values)
        axes.plot(*steps, color=look.colour, linestyle=look.line, label=look.label, linewidth=1.2)
        axes.errorbar(x, values, yerr=error, fmt="none", color=look.colour, elinewidth=0.6)
        return
    axes.errorbar(
        x, values, yerr=error, fmt=look.marker, label=look.label, color=look.colour, elinewidth=1.0
    )
    gaps = _gaps(low, high)
    line_x, line_y = np.insert(x, gaps, np.nan), np.insert(values, gaps, np.nan)
    axes.plot(line_x, line_y, color=look.colour, linestyle=look.line, linewidth=0.8)


def _draw_bands(axes: Axes, curves: list[Curve], reference: Look | None) -> list[Curve]:
    """Bands of the first sets, filled, which are returned; the reference's as dashed lines."""
    models = [curve for curve in curves if curve.look != reference][:MAX_BANDS]
    exact = [curve for curve in curves if curve.look == reference]
    for curve in (*models, *exact):
        bins, colour = curve.bins, curve.look.colour
        x, low = as_steps(bins["low"], bins["high"], bins["left68"])
        _, high = as_steps(bins["low"], bins["high"], bins["right68"])
        if curve.look == reference:
            axes.plot(x, low, color=colour, linestyle="--", linewidth=0.7)
            axes.plot(x, high, color=colour, linestyle="--", linewidth=0.7)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    return models


def _band_words(filled: list[Curve], reference: Look | None, banded: list[Curve]) -> str:
    words = []
    if filled:
        words.append(f"shaded for {' and '.join(curve.look.label for curve in filled)}")
    if reference is not None and any(curve.look == reference for curve in banded):
        words.append(f"between dashed lines for the {reference.label}")
    if not words:
        return "Bars are statistical."
    return f"Narrowest interval with 68% of the rows {', '.join(words)}; bars are statistical."


def as_steps(low: Column, high: Column, values: Column) -> tuple[Column, Column]:
    """Corners of a step curve; NaN where neighbouring bins do not touch."""
    x = np.stack([low, high], axis=1)
    y = np.stack([values, values], axis=1)
    gaps = _gaps(low, high)
    x, y = np.insert(x, gaps, np.nan, axis=0), np.insert(y, gaps, np.nan, axis=0)
    return x.ravel(), y.ravel()


def _gaps(low: Column, high: Column) -> Column:
    """Bins that do not touch the one before."""
    return np.flatnonzero(~np.isclose(high[:-1], low[1:], rtol=1e-9, atol=1e-12)) + 1


def _frame(axes: Axes, axis: AxisView, curves: Iterable[Curve]) -> None:
    """The axis from the first bin with a value to the last."""
    seen = [(curve.bins, np.isfinite(curve.bins[curve.value])) for curve in curves]
    low = min(float(bins["low"][some].min()) for bins, some in seen)
    high = max(float(bins["high"][some].max()) for bins, some in seen)
    if axis.is_log:
        plain_log(axes, "x", (low, high))
    axes.set_xlim(low, high)
    axes.set_xlabel(axis.label)


def _median_range(curves: list[Curve], banded: list[Curve]) -> tuple[float, float]:
    """What shows the medians and bands of calibrated sets.

    The uncalibrated scale, and single bins far away, are shown as far as they do not press the
    others flat.
    """
    shown = banded or curves
    medians = np.concatenate([curve.bins["median"] for curve in shown])
    edges = [curve.bins[side] for curve in shown for side in ("left68", "right68")]
    first, low, high, last = np.nanquantile(np.concatenate(edges), [0.02, 0.1, 0.9, 0.98])
    reach = max(high - low, 1e-3)
    low = max(min(np.nanmin(medians), first, 0.0), low - reach)
    high = min(max(np.nanmax(medians), last, 0.0), high + reach)
    span = high - low
    every = np.concatenate([curve.bins["median"] for curve in curves])
    least, most = np.nanquantile(every, [0.03, 0.97])
    low = min(low, max(float(least), low - span))
    high = max(high, min(float(most), high + span))
    return float(low - 0.08 * span), float(high + 0.08 * span)


def _highest(curves: list[Curve], calibrated: list[Curve]) -> float:
    """The largest value, but not more than three times the calibrated sets'."""
    values = [np.concatenate([c.bins[c.value] for c in some]) for some in (curves, calibrated)]
    most = [float(np.nanmax(some)) for some in values]
    return min(most[0], 3 * most[1])


def _drawn(
    table: pa.Table, axis: AxisView, names: tuple[str, ...], values: tuple[str, ...]
) -> pa.Table:
    """What a panel shows, with errors, set by set."""
    chosen = select(table, axis=axis.name)
    wanted = ["set", "low", "high", "rows", *values, *(f"{value}_error" for value in values)]
    chosen = chosen.select([name for name in wanted if name in chosen.column_names])
    return pa.concat_tables([select(chosen, set=name) for name in names])
