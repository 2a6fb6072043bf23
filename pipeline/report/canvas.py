"""A panel: one set of axes in the house style, saved the same way every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.style
import mplhep
import pyarrow as pa
import pyarrow.csv
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pipeline.formats.files import replacing

# The ATLAS style's sizes suit a slide; a page shows a panel at half the width.
STYLE: dict[str, Any] = {
    **mplhep.style.ATLAS,
    "figure.figsize": (5.6, 4.3),
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.labelsize": 13,
    "axes.titlesize": 10,
    "axes.autolimit_mode": "data",
    "axes.unicode_minus": True,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.use_mathtext": False,  # parsing it for each tick takes most of the time
    "axes.xmargin": 0.02,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "ytick.major.size": 6,
    "ytick.minor.size": 3,
    "legend.fontsize": 10,
    "legend.borderpad": 0.2,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "savefig.transparent": False,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawn panel.

    Attributes:
        name: Of its files, without an extension.
        caption: One line.
        figure: As drawn.
        table: The numbers that were drawn.
    """

    name: str
    caption: str
    figure: Figure
    table: pa.Table


@contextmanager
def house_style() -> Iterator[None]:
    """The style, for the time of drawing and saving."""
    with matplotlib.style.context(STYLE):
        yield


def new_axes(sample: str) -> tuple[Figure, Axes]:
    """An empty panel with the sample's words over it."""
    figure = Figure()
    axes = figure.add_subplot()
    axes.set_title(sample, loc="right", style="italic")
    return figure, axes


def plain_log(
    axes: Axes, which: Literal["x", "y"], limits: tuple[float, float] | None = None
) -> None:
    """A log scale with plain numbers, at 1, 2 and 5 too if the range is below two decades.

    Args:
        axes: A panel whose data are drawn.
        which: The axis.
        limits: Of the axis; what the data need if None.
    """
    axes.set(**{f"{which}scale": "log"} | ({} if limits is None else {f"{which}lim": limits}))
    axis, (low, high) = (
        (axes.xaxis, axes.get_xlim()) if which == "x" else (axes.yaxis, axes.get_ylim())
    )
    subs = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, axes: Axes, *, columns: int = 4) -> None:
    """A legend above the panel, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(columns, len(handles))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def save_panel(panel: Panel, folder: Path, dpi: int) -> str:
    """Write NAME.svg, NAME.pdf and NAME.csv; the same numbers give the same bytes.

    Returns:
        The SVG.
    """
    vector = folder / f"{panel.name}.svg"
    with mpl.rc_context({"svg.hashsalt": panel.name}):
        with replacing(vector) as temporary:
            panel.figure.savefig(temporary, format="svg", metadata={"Date": None}, dpi=dpi)
        panel.figure.set_layout_engine("none")  # it stands, and need not be found again
        with replacing(folder / f"{panel.name}.pdf") as temporary:
            metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            panel.figure.savefig(temporary, format="pdf", metadata=metadata, dpi=dpi)
    with replacing(folder / f"{panel.name}.csv") as temporary:
        pyarrow.csv.write_csv(panel.table, temporary)
    return vector.read_text(encoding="utf-8")
