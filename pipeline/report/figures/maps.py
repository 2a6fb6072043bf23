"""Bins in two dimensions as coloured meshes, and where in the detector clusters lie (Fig. 14)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipeline.evaluation.rows import EVERYWHERE
from pipeline.report.panel import Panel, new_axes, plain_log
from pipeline.report.paper import panel_letters
from pipeline.report.study_data import Column, Scene, Series, distinct, select, series


def edges_of(bins: Series, low: str) -> Column:
    """All edges between the first bin and the last, rising; gaps become wide bins.

    Args:
        bins: Of a table, one row for each occupied bin.
        low: The column of lower edges; the upper ones have `high` in its place.
    """
    return np.unique(np.concatenate([bins[low], bins[low.replace("low", "high")]]))


def draw_mesh(
    axes: Axes,
    bins: Series,
    lows: tuple[str, str],
    values: Column,
    *,
    edges: tuple[Column, Column] | None = None,
    norm: Normalize | None = None,
) -> QuadMesh:
    """A mesh of bins in their colours; bins that are not there, or NaN, are left white.

    Args:
        axes: To draw in.
        bins: [N] occupied bins.
        lows: The columns of their lower edges, across and up.
        values: [N] what is shown.
        edges: All edges across and up; those of the bins if None.
        norm: From values to colours; linear if None.
    """
    across, up = edges or (edges_of(bins, lows[0]), edges_of(bins, lows[1]))
    dense = np.full((len(up) - 1, len(across) - 1), np.nan)
    dense[np.searchsorted(up, bins[lows[1]]), np.searchsorted(across, bins[lows[0]])] = values
    return axes.pcolormesh(across, up, dense, norm=norm, cmap="viridis", rasterized=True)


def draw_shares(
    drawing: Figure,
    axes: Axes,
    bins: Series,
    lows: tuple[str, str],
    edges: tuple[Column, Column] | None = None,
) -> None:
    """Bins coloured by their share of all weight, on a log scale, with a bar.

    Bins without weight, or with less, are left white.
    """
    weights = bins["weight"]
    shares = np.where(weights > 0, weights / weights.sum(), np.nan)
    some = (weights > 0).any()
    top = float(np.nanmax(shares)) if some else 1.0
    bottom = max(float(np.nanmin(shares)), top * 1e-5) if some else 0.1
    norm = LogNorm(vmin=min(bottom, 0.5 * top), vmax=top)
    mesh = draw_mesh(axes, bins, lows, shares, edges=edges, norm=norm)
    bar = drawing.colorbar(mesh, ax=axes, label="share of the sample", pad=0.02)
    plain_log(bar.ax, "y")


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
        draw_shares(drawing, axes, cells, ("low", "r_low"))
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
