"""Panels of proper scores and coverages, one line for each set.

Selection shows what dropping the rows of the largest relative uncertainty gains.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from pipeline.evaluation.rows import BASELINE, COVERAGES, EVERYWHERE
from pipeline.report.panel import GREY, Panel, add_legend, new_axes, plain_log
from pipeline.report.study_data import Scene, Series, centres, distinct, select, series


def nll_panels(scene: Scene) -> Iterator[Panel]:
    """Negative log density of each set, the baseline and the reference, by population.

    The label of a set that gives some true values no density says so: its mean is of the others.
    """
    for population in scene.populations:
        table = select(scene.table("scores"), population=population)
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
        axes.set_xlabel(f"negative log density of {scene.space}")
        where = "" if population == EVERYWHERE else f"-{population}"
        words = "all rows" if population == EVERYWHERE else f"the region {population}"
        yield Panel(
            name=f"nll{where}",
            caption=f"Mean negative log density of {words}, with its statistical error; lower is "
            "better, the exact density's is the limit.",
            figure=figure,
            table=_known(table, "nll"),
        )


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
    table = scene.table("scores")
    lines = [
        (population, name)
        for population in reversed(scene.populations)
        for name in reversed(scene.sets)
        if np.isfinite(series(table, set=name, population=population)["coverage68"]).any()
    ]
    if not lines:
        return
    figure, axes = new_axes(scene.sample)
    axes.axvline(0.0, color=GREY, linewidth=0.8)
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
    yield Panel(
        name="coverage",
        caption="Share of true values inside central intervals, less the nominal one.",
        figure=figure,
        table=_known(table, "coverage68", "coverage95"),
    )


def coverage_curve_panels(scene: Scene) -> Iterator[Panel]:
    """Coverage of central intervals of any size, less the nominal one."""
    table = select(scene.table("coverage"), population=EVERYWHERE)
    names = [name for name in scene.sets if len(series(table, set=name))]
    if not names:
        return
    figure, axes = new_axes(scene.sample)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    for name in names:
        rows, look = series(table, set=name), scene.look(name)
        axes.errorbar(
            100 * rows["nominal"],
            100 * (rows["coverage"] - rows["nominal"]),
            yerr=100 * rows["coverage_error"],
            color=look.colour,
            marker=look.marker,
            markersize=3,
            linestyle=look.line,
            linewidth=0.8,
            label=look.label,
        )
    axes.set_xlabel("nominal coverage [%]")
    axes.set_ylabel("found $-$ nominal [%]")
    add_legend(figure, axes)
    yield Panel(
        name="coverage-curve",
        caption="Share of true values inside central intervals of the density, less the nominal "
        "one, against it; above zero intervals are too wide.",
        figure=figure,
        table=pa.concat_tables([select(table, set=name) for name in names]),
        labels={"nominal": "Nominal coverage", "coverage": "Coverage"},
    )


def score_profile_panels(scene: Scene) -> Iterator[Panel]:
    """Score above the exact one against the axes that have it."""
    for axis in scene.axes():
        table = select(scene.table("score_profile"), axis=axis.name)
        curves = {name: series(table, set=name) for name in scene.models}
        curves = {n: b for n, b in curves.items() if len(b) and np.isfinite(b["nll_excess"]).any()}
        if not curves:
            continue
        figure, axes = new_axes(scene.sample)
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        for name, bins in curves.items():
            look = scene.look(name)
            axes.errorbar(
                centres(bins["low"], bins["high"], log=axis.is_log),
                bins["nll_excess"],
                yerr=bins["nll_excess_error"],
                fmt=look.marker,
                color=look.colour,
                label=look.label,
            )
        if axis.is_log:
            plain_log(axes, "x")
        axes.set_xlabel(axis.label)
        axes.set_ylabel("score above exact")
        add_legend(figure, axes)
        yield Panel(
            name=f"score-{axis.name}",
            caption=f"Mean negative log density less the exact density's, against {axis.symbol}.",
            figure=figure,
            table=pa.concat_tables([
                select(table, set=name).select([
                    *("set", "low", "high", "rows", "nll_excess", "nll_excess_error")
                ])
                for name in curves
            ]),
            labels={"low": axis.label, "nll_excess": "Score above exact"},
        )


def _known(table: pa.Table, *columns: str) -> pa.Table:
    """Sets and populations with these columns and their errors, where any is there."""
    names = [name for column in columns for name in (column, f"{column}_error")]
    chosen = table.select(["set", "population", "rows", *names])
    return chosen.filter(pc.is_valid(chosen[columns[0]]))


def _name_lines(axes: Axes, words: list[str]) -> None:
    axes.set_yticks(np.arange(len(words)), words)
    axes.tick_params(axis="y", which="minor", left=False, right=False)
    axes.set_ylim(-0.6, len(words) - 0.4)


RESOLUTION = r"$\sigma_\mathrm{rel}$ of the rows kept"


def selection_panels(scene: Scene) -> Iterator[Panel]:
    """Resolution and tails against the share of rows kept."""
    table = scene.table("selection")
    if not table.num_rows:
        return
    yield _panel(
        scene,
        table,
        {"sigma_rel": RESOLUTION},
        "selection-resolution",
        "Relative resolution against the share of rows kept",
    )
    yield _panel(
        scene,
        table,
        {"tail_above": "share of rows far too high", "tail_below": "far too low"},
        "selection-tails",
        "Share of rows whose calibrated energy is far off, above (lines) and below (dotted), "
        "against the share of rows kept",
    )


def _panel(scene: Scene, table: pa.Table, values: dict[str, str], name: str, caption: str) -> Panel:
    drawing, axes = new_axes(scene.sample)
    for who in distinct(table, "set"):
        for ranked_by in distinct(select(table, set=who), "ranked_by"):
            _draw(axes, scene, series(table, set=who, ranked_by=ranked_by), values)
    axes.set_xlim(0.0, 1.02)
    axes.set_ylim(0.0, None)
    axes.set_xlabel("share of rows kept")
    axes.set_ylabel(next(iter(values.values())))
    add_legend(drawing, axes, columns=2)
    columns = ["set", "ranked_by", "kept", "rows", *values]
    errors = [f"{v}_error" for v in values if f"{v}_error" in table.column_names]
    return Panel(
        name=name,
        caption=f"{caption}, when those of the largest relative uncertainty are dropped first: "
        "ranked by each set's own, and by the exact density's as the limit.",
        figure=drawing,
        table=table.select([*columns, *errors]),
        labels={"kept": "Share of rows kept"} | values,
    )


def _draw(axes: Axes, scene: Scene, rows: Series, values: dict[str, str]) -> None:
    who, ranked_by = str(rows["set"][0]), str(rows["ranked_by"][0])
    look = scene.look(who)
    own = ranked_by == who
    label = look.label if own else f"{look.label}, ranked by {scene.look(ranked_by).label}"
    order = np.argsort(rows["kept"])
    for number, value in enumerate(values):
        axes.plot(
            rows["kept"][order],
            rows[value][order],
            color=look.colour,
            marker=(look.marker if own else "") if not number else "",
            linestyle=":" if number else (look.line if own else (0, (6, 2))),
            label=None if number else label,
            linewidth=1.2,
        )
