"""Panels of look-up tables: what each bin holds, and the steps from one to the next."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from pipeline.lookup.tables import CLASS, WEIGHT
from pipeline.report.figures.maps import draw_mesh
from pipeline.report.panel import Panel, add_legend, new_axes, plain_log
from pipeline.report.study_data import COLOURS, Scene, distinct, select, series

LOOKUP = "lookup"  # among the scene's tables: from project_tables, by model
WORDS = {CLASS: "probability of an electromagnetic cluster", WEIGHT: "hadronic weight"}
STEPS = 5  # bins of the second axis that are drawn as steps


def lookup_panels(scene: Scene) -> Iterator[Panel]:
    """For each table of each model: its first two axes as a plane, and as steps."""
    whole = scene.tables.get(LOOKUP)
    if whole is None:
        return
    for model in distinct(whole, "model"):
        for name, words in WORDS.items():
            table = select(whole, model=model, quantity=name)
            label = f"{scene.look(model).label}: {words}"
            if any(distinct(table, "y")):
                yield _plane(scene, table, f"lookup-{model}-{name}", label)
            yield _steps(scene, table, f"lookup-steps-{model}-{name}", label)


def _plane(scene: Scene, table: pa.Table, name: str, words: str) -> Panel:
    cells = series(table)
    figure, axes = new_axes(scene.sample)
    mesh = draw_mesh(axes, cells, ("x_low", "y_low"), cells["value"])
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for which, set_label in (("x", axes.set_xlabel), ("y", axes.set_ylabel)):
        (title,) = distinct(table, which)
        set_label(title)
    _log_where_needed(axes, table)
    return Panel(name, f"{words}, mean over the other axes", figure, table)


def _steps(scene: Scene, table: pa.Table, name: str, words: str) -> Panel:
    """The value along the first axis, in some bins of the second: it jumps at each edge."""
    cells = series(table)
    figure, axes = new_axes(scene.sample)
    lows = np.unique(cells["y_low"])
    for at, low in enumerate(lows[:: max(1, len(lows) // STEPS)][:STEPS]):
        here = cells["y_low"] == low
        order = np.argsort(cells["x_low"][here])
        starts, values = cells["x_low"][here][order], cells["value"][here][order]
        ends, high = cells["x_high"][here][order], cells["y_high"][here][0]
        label = f"{low:.3g} to {high:.3g}" if len(lows) > 1 else "_nolegend_"
        colour = COLOURS[at % len(COLOURS)]
        axes.hlines(values, starts, ends, colors=colour, label=label)
    (title,) = distinct(table, "x")
    axes.set_xlabel(title)
    _log_where_needed(axes, table, only_x=True)
    add_legend(figure, axes)
    (across,) = distinct(table, "y")
    return Panel(name, f"{words}, in bins of {across}" if across else words, figure, table)


def _log_where_needed(axes: Axes, table: pa.Table, *, only_x: bool = False) -> None:
    if distinct(table, "x_scale") == ("log",):
        plain_log(axes, "x")
    if not only_x and distinct(table, "y_scale") == ("log",):
        plain_log(axes, "y")
