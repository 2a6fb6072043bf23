"""Panels of proper scores and coverages, one line for each set."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes

from pipeline.evaluation.rows import BASELINE, COVERAGES, EVERYWHERE
from pipeline.report.canvas import Panel, add_legend, new_axes
from pipeline.report.scene import Scene, Series, select, series


def nll_panels(scene: Scene) -> Iterator[Panel]:
    """Negative log density of each set, the baseline and the reference, by population.

    The label of a set that gives some true values no density says so: its mean is of the others.
    """
    for population in scene.populations:
        table = select(scene.tables["scores"], population=population)
        rows = {name: series(table, set=name) for name in (BASELINE, *scene.sets)}
        rows = {n: row for n, row in rows.items() if len(row) and np.isfinite(row["nll"][0])}
        if not rows:
            continue
        figure, axes = new_axes(scene.sample)
        for at, (name, row) in enumerate(rows.items()):
            _draw_score(axes, at, row, scene.look(name).colour)
        values = [float(row["nll"][0]) for row in rows.values()]
        if scene.reference in rows:
            axes.axvline(values[-1], color="#000000", linestyle="--", linewidth=0.8, zorder=0)
        _name_lines(axes, [scene.look(name).label + _left_out(row) for name, row in rows.items()])
        margin = 0.15 * max(max(values) - min(values), 0.02)
        axes.set_xlim(min(values) - margin, max(values) + margin)
        symbol = scene.symbol(scene.target.name)
        axes.set_xlabel(rf"negative log density of log$_\mathrm{{10}}$ {symbol}")
        where = "" if population == EVERYWHERE else f"-{population}"
        words = "all rows" if population == EVERYWHERE else f"the region {population}"
        yield Panel(f"nll{where}", f"Score of {words}; lower is better", figure, table)


def _draw_score(axes: Axes, at: int, row: Series, colour: str) -> None:
    value = float(row["nll"][0])
    axes.errorbar(value, at, xerr=row["nll_error"][0], fmt="o", color=colour)
    axes.annotate(
        f"{value:.3f}",
        (value, at),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def _left_out(row: Series) -> str:
    missing = int(row["rows_without_density"][0])
    return f"\n(without {missing:,} rows)" if missing else ""


def coverage_panels(scene: Scene) -> Iterator[Panel]:
    """Difference of the coverage of central intervals from its nominal value."""
    table = scene.tables["scores"]
    lines = [
        (population, name)
        for population in reversed(scene.populations)
        for name in reversed(scene.sets)
        if np.isfinite(series(table, set=name, population=population)["coverage68"]).any()
    ]
    if not lines:
        return
    figure, axes = new_axes(scene.sample)
    axes.axvline(0.0, color="#999999", linewidth=0.8)
    for (figure_name, (_, _, nominal)), marker in zip(COVERAGES.items(), "os", strict=True):
        rows = [series(table, set=name, population=where) for where, name in lines]
        axes.errorbar(
            [100 * (float(row[figure_name][0]) - nominal) for row in rows],
            np.arange(len(lines)),
            xerr=[100 * float(row[figure_name + "_error"][0]) for row in rows],
            fmt=marker,
            color="#0072b2" if marker == "o" else "#d55e00",
            label=f"{100 * nominal:.0f}% interval",
        )
    words = [
        scene.look(name).label + ("" if where == EVERYWHERE else f", {where}")
        for where, name in lines
    ]
    _name_lines(axes, words)
    axes.set_xlabel("share of rows inside $-$ nominal [%]")
    add_legend(figure, axes)
    yield Panel("coverage", "Coverage of central intervals", figure, table)


def _name_lines(axes: Axes, words: list[str]) -> None:
    axes.set_yticks(np.arange(len(words)), words)
    axes.tick_params(axis="y", which="minor", left=False, right=False)
    axes.set_ylim(-0.6, len(words) - 0.4)
