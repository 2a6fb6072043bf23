"""Panels in two dimensions: the target against an axis, and one set against another.

The map shows where in the detector the clusters of a large uncertainty lie (Fig. 14).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipeline.evaluation.rows import EVERYWHERE, TARGET, VERSUS
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
        x, y = _edges(whole, "low", "high"), _edges(whole, "target_low", "target_high")
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
    draw_cells(drawing, axes, edges, (cells["low"], cells["target_low"]), cells["weight"])
    if axis.is_log:
        plain_log(axes, "x")
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
    every = select(scene.table("pair_plane"), figure=figure)
    for pair in distinct(every, "set"):
        table = select(every, set=pair)
        first, _, second = pair.partition(VERSUS)
        cells = series(table)
        drawing, axes = new_axes(scene.sample)
        edges = _edges(cells, "low", "high"), _edges(cells, "other_low", "other_high")
        draw_cells(drawing, axes, edges, (cells["low"], cells["other_low"]), cells["weight"])
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


def draw_cells(
    drawing: Figure,
    axes: Axes,
    edges: tuple[Column, Column],
    lows: tuple[Column, Column],
    weights: Column,
) -> None:
    """Cells coloured by their share of all weight, on a log scale, with a bar.

    Args:
        drawing: The figure.
        axes: Of it.
        edges: All edges of the cells across [X + 1] and up [Y + 1].
        lows: [N] lower edges of the occupied cells, across and up.
        weights: [N]; cells with none or less are left white.
    """
    across, up = edges
    dense = np.full((len(up) - 1, len(across) - 1), np.nan)
    some = weights > 0
    column, row = (np.searchsorted(e, low[some]) for e, low in zip(edges, lows, strict=True))
    dense[row, column] = weights[some] / weights.sum()
    top = float(np.nanmax(dense)) if some.any() else 1.0
    bottom = max(float(np.nanmin(dense)), top * 1e-5) if some.any() else 0.1
    norm = LogNorm(vmin=min(bottom, 0.5 * top), vmax=top)
    mesh = axes.pcolormesh(across, up, dense, norm=norm, cmap="viridis", rasterized=True)
    bar = drawing.colorbar(mesh, ax=axes, label="share of the sample", pad=0.02)
    plain_log(bar.ax, "y")


def _edges(cells: Series, low: str, high: str) -> Column:
    """All edges between the first occupied cell and the last; gaps become wide cells."""
    edges = np.unique(np.concatenate([cells[low], cells[high]]))
    return np.asarray(edges)


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


ETA_RAYS = (0.5, 0.8, 1.0, 1.4, 1.6, 2.0, 2.4)
MAX_Z, MAX_R = 6700.0, 4000.0  # mm


class Outline(NamedTuple):
    """A part of the calorimeter as a box in |z| and r, in mm."""

    name: str
    z: tuple[float, float]
    r: tuple[float, float]


# Nominal positions, rounded to 10 mm: they are to guide the eye. The scintillators of the gap
# stand in a thin disc; their four rings cover 1.0, 1.1, 1.2, 1.4 and 1.6 in |eta|.
OUTLINES = (
    Outline("PS", (0, 3150), (1410, 1450)),
    Outline("EMB1", (0, 3170), (1470, 1600)),
    Outline("EMB2", (0, 3170), (1600, 1850)),
    Outline("EMB3", (0, 3170), (1850, 1970)),
    Outline("PS", (3600, 3640), (1230, 1700)),
    Outline("EME1", (3700, 3880), (300, 2050)),
    Outline("EME2", (3880, 4150), (300, 2050)),
    Outline("EME3", (4150, 4280), (300, 2050)),
    Outline("HEC0", (4280, 4640), (372, 2030)),
    Outline("HEC1", (4640, 5130), (475, 2030)),
    Outline("HEC2", (5130, 5640), (475, 2030)),
    Outline("HEC3", (5640, 6110), (475, 2030)),
    Outline("Tile A", (0, 2820), (2280, 2600)),
    Outline("Tile BC", (0, 2820), (2600, 3440)),
    Outline("Tile D", (0, 2820), (3440, 3820)),
    Outline("Tile ext. A", (3560, 6050), (2280, 2600)),
    Outline("Tile ext. B", (3560, 6050), (2600, 3140)),
    Outline("Tile ext. D", (3560, 6050), (3140, 3820)),
    Outline("C10", (3270, 3550), (2990, 3440)),
    Outline("D4", (3110, 3550), (3440, 3820)),
    Outline("E1", (3550, 3560), (2660, 3020)),
    Outline("E2", (3550, 3560), (2350, 2660)),
    Outline("E3", (3550, 3560), (1865, 2350)),
    Outline("E4", (3550, 3560), (1495, 1865)),
    Outline("FCAL", (4680, 6080), (72, 450)),
)
LABELS = {
    "EM barrel": (150.0, 1720.0),
    "Tile barrel": (150.0, 3000.0),
    "Tile extended": (4300.0, 2850.0),
    "EM end-cap": (3600.0, 120.0),
    "HEC": (5250.0, 1250.0),
    "Gap": (2900.0, 2130.0),
}


def map_panels(scene: Scene) -> Iterator[Panel]:
    """Radius against |z| of all clusters, and of those in each set's window of sigma_tot."""
    letters = panel_letters()
    for name in distinct(scene.table("map"), "set"):
        table = select(scene.table("map"), set=name)
        cells = series(table)
        drawing, axes = new_axes(scene.sample)
        z, r = (
            np.unique(np.concatenate([cells[low], cells[high]]))
            for low, high in (("low", "high"), ("r_low", "r_high"))
        )
        draw_cells(drawing, axes, (z, r), (cells["low"], cells["r_low"]), cells["weight"])
        _draw_detector(axes)
        axes.set_title(scene.sample, loc="right", style="italic", y=1.05)  # above the rays' names
        rows = int(np.nansum(cells["rows"]))
        yield Panel(
            name=f"map-{name}",
            caption=f"Radius against distance along the beam of {_which(scene, name)} ({rows:,}), "
            "with nominal outlines of the calorimeters and rays of constant pseudorapidity.",
            figure=drawing,
            table=table,
            number="14" + next(letters),
            labels={"low": "$|z|$ [mm]", "r_low": "$r$ [mm]", "weight": "Sum of weights"},
        )


def _which(scene: Scene, name: str) -> str:
    if name == EVERYWHERE:
        return "all clusters"
    symbol = r"$\sigma_\mathrm{tot}$"
    ends = " to ".join(f"{end:g}" for end in scene.sigma_window) or "in the window"
    return f"the clusters with a {symbol} of {ends} by {scene.look(name).label}"


def _draw_detector(axes: Axes) -> None:
    for outline in OUTLINES:
        (z, far), (r, high) = outline.z, outline.r
        axes.add_patch(Rectangle((z, r), far - z, high - r, fill=False, color="#444444", lw=0.6))
    for words, (z, r) in LABELS.items():
        axes.annotate(
            words, (z, r), fontsize=7, bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1}
        )
    for eta in ETA_RAYS:
        slope = 1 / np.sinh(eta)
        end = min(MAX_Z, MAX_R / slope)
        axes.plot([0, end], [0, end * slope], color="#d55e00", linewidth=0.6, linestyle=":")
        axes.annotate(
            f"{eta:g}",
            (end, end * slope),
            xytext=(1, 1),
            textcoords="offset points",
            fontsize=7,
            color="#a04000",
            annotation_clip=False,
        )
    axes.set(xlim=(0, MAX_Z), ylim=(0, MAX_R), xlabel="$|z|$ [mm]", ylabel="$r$ [mm]")
