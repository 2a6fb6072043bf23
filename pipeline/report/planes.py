"""Panels of the target against an axis in two dimensions."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter

from pipeline.evaluation.rows import TARGET
from pipeline.report.canvas import Panel, new_axes, plain_log
from pipeline.report.scene import AxisView, Column, Scene, Series, select, series


def plane_panels(scene: Scene) -> Iterator[Panel]:
    """Target, each model's central value and the reference's (Figs. 4 and 5)."""
    views = list(scene.axes())
    chosen = [axis for axis in views if axis.name in scene.settings.planes] or views[:1]
    for axis in chosen:
        whole = series(scene.tables["plane"], axis=axis.name)
        if not len(whole):
            continue
        x, y = _edges(whole, "low", "high"), _edges(whole, "target_low", "target_high")
        top = float(whole["weight"].max())
        norm = LogNorm(vmin=max(float(whole["weight"].min()), top * 1e-5), vmax=top)
        for name in (TARGET, *scene.sets):
            table = select(scene.tables["plane"], axis=axis.name, set=name)
            figure, axes = new_axes(scene.sample)
            mesh = axes.pcolormesh(
                x, y, _dense(series(table), x, y), norm=norm, cmap="viridis", rasterized=True
            )
            bar = figure.colorbar(mesh, ax=axes, label="sum of weights", pad=0.02)
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            _frame(axes, axis, scene)
            words = "true value" if name == TARGET else scene.look(name).label
            yield Panel(f"plane-{axis.name}-{name}", f"{scene.target.name}: {words}", figure, table)


def _edges(cells: Series, low: str, high: str) -> Column:
    """All edges between the first occupied cell and the last; gaps become wide cells."""
    edges = np.unique(np.concatenate([cells[low], cells[high]]))
    return np.asarray(edges)


def _dense(cells: Series, x: Column, y: Column) -> Column:
    """[y, x] weights; NaN, which is not coloured, where there are no rows."""
    dense = np.full((len(y) - 1, len(x) - 1), np.nan)
    column = np.searchsorted(x, cells["low"])
    row = np.searchsorted(y, cells["target_low"])
    dense[row, column] = cells["weight"]
    return dense


def _frame(axes: Axes, axis: AxisView, scene: Scene) -> None:
    if axis.is_log:
        plain_log(axes, "x")
    plain_log(axes, "y")
    axes.set_xlabel(axis.label)
    unit = "" if scene.target.unit == "1" else f" [{scene.target.unit}]"
    axes.set_ylabel(scene.symbol(scene.target.name) + unit)
