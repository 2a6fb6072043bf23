"""A panel: one set of axes in the house style, saved the same way every time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.style
import mplhep
import pyarrow as pa
import pyarrow.csv
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pipeline.formats.files import replacing, write_text
from pipeline.report.hepdata import data_document

# The ATLAS style's sizes suit a slide; a page shows a panel at half the width.
STYLE: dict[str, Any] = {
    **mplhep.style.ATLAS,
    "figure.figsize": (5.6, 4.3),
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.labelsize": 13,
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # found anew in each drawing otherwise
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

GREY = "#999999"  # of lines that guide the eye


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawn panel.

    Attributes:
        name: Of its files, without an extension.
        caption: What was done, in a sentence or two; may have mathematical text.
        figure: As drawn.
        table: The numbers that were drawn.
        number: Of the paper's figure, such as "7a"; empty for none.
        labels: By column of the table: its label with the unit, for those that are on the axes.
    """

    name: str
    caption: str
    figure: Figure
    table: pa.Table
    number: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def house_style() -> Iterator[None]:
    """The style, for the time of drawing and saving; a user's own settings take no part."""
    with mpl.rc_context():
        mpl.rcdefaults()
        matplotlib.style.use(STYLE)
        yield


def new_axes(sample: str) -> tuple[Figure, Axes]:
    """An empty panel with the sample's words over it."""
    figure = Figure()
    axes = figure.add_subplot()
    axes.set_title(sample, loc="right", style="italic")
    return figure, axes


def new_tiers(sample: str) -> tuple[Figure, Axes, Axes]:
    """A panel with a lower one that shares its horizontal axis."""
    figure = Figure(figsize=(5.6, 5.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
    upper.set_title(sample, loc="right", style="italic")
    return figure, upper, lower


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
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: int | None) -> str:
    """A number as it is said; a power of ten where that is too long."""
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, power = f"{value:.0e}".split("e")
    front = "" if mantissa == "1" else rf"{mantissa}\cdot "
    return rf"$\mathrm{{{front}10^{{{int(power)}}}}}$"


def add_legend(figure: Figure, axes: Axes, *, columns: int = 4) -> None:
    """A legend above the panel, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(columns, len(handles))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def write_lines(axes: Axes, lines: Sequence[tuple[str, str]]) -> None:
    """Lines of words with their colours in the upper part of a panel, with room for them.

    Args:
        axes: A panel whose data are drawn.
        lines: From above.
    """
    if not lines:
        return
    low, high = axes.get_ylim()
    share = 0.07 * len(lines) + 0.05
    if axes.get_yscale() == "log":
        axes.set_ylim(low, high * (high / low) ** (share / (1 - share)))
    else:
        axes.set_ylim(low, high + (high - low) * share / (1 - share))
    for number, (words, colour) in enumerate(lines):
        place = (0.03, 0.97 - 0.07 * number)
        axes.text(*place, words, transform=axes.transAxes, va="top", fontsize=10, color=colour)


def save_panel(panel: Panel, folder: Path, dpi: int) -> str:
    """Write NAME.svg, .pdf, .csv and .yaml; the same numbers give the same bytes.

    Returns:
        The SVG.
    """
    vector, figure = folder / f"{panel.name}.svg", panel.figure
    figure.set_dpi(dpi)
    # Not savefig, which draws everything twice; the first drawing finds the layout already.
    with mpl.rc_context({"svg.hashsalt": panel.name}):
        with replacing(vector) as temporary:
            FigureCanvasSVG(figure).print_svg(temporary, metadata={"Date": None})
        figure.set_layout_engine("none")  # it stands, and need not be found again
        with replacing(folder / f"{panel.name}.pdf") as temporary:
            metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            FigureCanvasPdf(figure).print_pdf(temporary, metadata=metadata)
    with replacing(folder / f"{panel.name}.csv") as temporary:
        pyarrow.csv.write_csv(panel.table, temporary)
    write_text(folder / f"{panel.name}.yaml", data_document(panel.table, panel.labels))
    return vector.read_text(encoding="utf-8")
