"""Panels in two dimensions: the target against an axis, and one set against another."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.evaluation.rows import TARGET, VERSUS
from pipeline.report.figures.maps import draw_shares, edges_of
from pipeline.report.panel import GREY, Panel, new_axes, plain_log
from pipeline.report.paper import ELSEWHERE, axes_of, panel_letters
from pipeline.report.study_data import AxisView, Column, Scene, Series, distinct, select, series

PAIR_FIGURES = {
    "sigma_rel": ("11a", r"$\sigma_\mathrm{tot}$ / $R$"),
    "t_log": ("12a", r"$t_\mathrm{log}$"),
}
SHARE_SHOWN = 2e-4  # of the rows that may lie beyond either end of a pair's panel


def plane_panels(scene: Scene, figure: str) -> Iterator[Panel]:
    """Target, each model's central value and the reference's (Figs. 4 and 5)."""
    letters = panel_letters()
    for _, axis in axes_of(scene, "plane", figure):
        whole = series(scene.table("plane"), axis=axis.name)
        if not len(whole):
            continue
        x, y = edges_of(whole, "low"), edges_of(whole, "target_low")
        for name in (TARGET, *scene.sets):
            table = select(scene.table("plane"), axis=axis.name, set=name)
            if not table.num_rows:
                continue
            number = "" if figure == ELSEWHERE else figure + next(letters)
            yield _plane(scene, axis, table, (x, y), number)


def _plane(
    scene: Scene, axis: AxisView, table: pa.Table, edges: tuple[Column, Column], number: str
) -> Panel:
    (name,) = distinct(table, "set")
    drawing, axes = new_axes(scene.sample)
    cells = series(table)
    draw_shares(drawing, axes, cells, ("low", "target_low"), edges)
    if axis.is_log:
        plain_log(axes, "x")
    if scene.is_log:
        plain_log(axes, "y")
    unit = "" if scene.target.unit == "1" else f" [{scene.target.unit}]"
    symbol = scene.symbol(scene.target.name)
    axes.set_xlabel(axis.label)
    axes.set_ylabel(f"{symbol}{unit}, {_words(scene, name)}")
    return Panel(
        name=f"plane-{axis.name}-{name}",
        caption=f"{symbol} against {axis.symbol}: {_words(scene, name)}. Share of the sample in "
        "each cell.",
        figure=drawing,
        table=table,
        number=number,
        labels={"low": axis.label, "target_low": f"{symbol}{unit}", "weight": "Sum of weights"},
    )


def pair_plane_panels(scene: Scene, figure: str) -> Iterator[Panel]:
    """One set's value against another's, row by row.

    Args:
        scene: With the table `pair_plane`.
        figure: "sigma_rel" (Fig. 11a) or "t_log" (Fig. 12a).
    """
    number, symbol = PAIR_FIGURES[figure]
    symbol = symbol if scene.is_log else symbol.replace(r"t_\mathrm{log}", "t")
    every = select(scene.table("pair_plane"), figure=figure)
    for pair in distinct(every, "set"):
        table = select(every, set=pair)
        first, _, second = pair.partition(VERSUS)
        cells = series(table)
        drawing, axes = new_axes(scene.sample)
        edges = edges_of(cells, "low"), edges_of(cells, "other_low")
        draw_shares(drawing, axes, cells, ("low", "other_low"), edges)
        ends = _shown(cells)
        if edges[0].min() > 0:
            plain_log(axes, "x", ends)
            plain_log(axes, "y", ends)
        axes.set(xlim=ends, ylim=ends)
        axes.plot(ends, ends, color=GREY, linewidth=1.0, linestyle="--")
        labels = {
            "low": f"{symbol} of {scene.look(second).label}",
            "other_low": f"{symbol} of {scene.look(first).label}",
        }
        axes.set_xlabel(labels["low"])
        axes.set_ylabel(labels["other_low"])
        yield Panel(
            name=f"pair-{figure.replace('_', '-')}-{pair.replace('_', '-')}",
            caption=f"{labels['other_low']} against that of {scene.look(second).label}, for the "
            "same rows; equal on the dashed line." + _correlation(scene, figure, pair),
            figure=drawing,
            table=table,
            number=number,
            labels=labels | {"weight": "Sum of weights"},
        )


def _shown(cells: Series) -> tuple[float, float]:
    """The common range of both directions that leaves almost nothing out."""
    ends = []
    for low, high in (("low", "high"), ("other_low", "other_high")):
        order = np.argsort(cells[low], kind="stable")
        reached = np.cumsum(cells["weight"][order]) / cells["weight"].sum()
        last = min(int(np.searchsorted(reached, 1 - SHARE_SHOWN)), len(order) - 1)
        first = int(np.searchsorted(reached, SHARE_SHOWN))
        ends.append((cells[low][order][first], cells[high][order][last]))
    return float(min(e[0] for e in ends)), float(max(e[1] for e in ends))


def _correlation(scene: Scene, figure: str, pair: str) -> str:
    found = series(scene.table("pairs"), set=pair, population="all")
    name = f"correlation_{figure}"
    if not len(found) or not np.isfinite(found[name][0]):
        return ""
    return f" Correlation: {found[name][0]:.3f}."


def _words(scene: Scene, name: str) -> str:
    return "true" if name == TARGET else scene.look(name).label
