"""What dropping the rows of the largest relative uncertainty gains."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pipeline.report.panel import Panel, add_legend, new_axes
from pipeline.report.study_data import Scene, Series, distinct, select, series

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
