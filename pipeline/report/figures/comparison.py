"""All models side by side: score, closure and resolution, as one table and one figure."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from pipeline.evaluation.rows import EVERYWHERE, UNCALIBRATED
from pipeline.report.panel import GREY, Panel, plain_log
from pipeline.report.study_data import AxisView, Scene, centres, distinct, select, series
from pipeline.report.tables import HtmlTable

LEAST = 3  # sets beside the uncalibrated scale, below which there is nothing to compare
MAX_BINS = 8  # columns of the table that show bins

# The scores of a set, the proper one of a density first: by name in the table `scores`.
SCORES = {"nll": "mean negative log density", "crps": "CRPS of {space} (error of a single value)"}
SCHEMA = pa.schema([
    ("set", pa.string()),
    ("rows", pa.int64()),
    *((name, pa.float64()) for name in ("low", "high", *SCORES, "median", "sigma_rel")),
])


def tables(scene: Scene) -> Iterator[HtmlTable]:
    """For each set its scores, then median and resolution in bins of the true value."""
    joined = join(scene)
    if not joined.num_rows:
        return
    bins = sorted({(row["low"], row["high"]) for row in joined.to_pylist()})
    shown = [bins[at] for at in np.unique(np.linspace(0, len(bins) - 1, MAX_BINS).astype(int))]
    axis = _truth_axis(scene)
    assert axis is not None  # noqa: S101 - without it nothing was joined
    scores = (words.format(space=scene.target.space) for words in SCORES.values())
    head = ["", *scores, *(f"{low:.3g} to {high:.3g}" for low, high in shown)]
    rows = []
    for name in distinct(joined, "set"):
        by_bin = {(row["low"], row["high"]): row for row in select(joined, set=name).to_pylist()}
        cells = [_cell(by_bin.get(each)) for each in shown]
        rows.append([scene.look(name).label, *_scores(scene, name), *cells])
    caption = f"Scores, and median deviation with resolution in bins of {axis.label}"
    yield HtmlTable(caption, head, rows)


def panels(scene: Scene) -> Iterator[Panel]:
    """Score, closure and resolution against the true value, one below the other."""
    joined, axis = join(scene), _truth_axis(scene)
    if not joined.num_rows or axis is None:
        return
    score = _common_score(joined)
    words = {"nll": "NLL", "crps": "CRPS", "median": "median deviation", "sigma_rel": "resolution"}
    shown = [
        each for each in (score, "median", "sigma_rel") if joined[each].null_count < len(joined)
    ]
    drawing = Figure(figsize=(7.4, 1.1 + 2.5 * len(shown)))
    tiers = drawing.subplots(len(shown), 1, sharex=True)
    tiers[0].set_title(scene.sample, loc="right", style="italic")
    for tier, column in zip(tiers, shown, strict=True):
        for name in distinct(joined, "set"):
            rows, look = series(joined, set=name), scene.look(name)
            x = centres(rows["low"], rows["high"], log=axis.is_log)
            if np.isfinite(rows[column]).any():
                style = {"color": look.colour, "linestyle": look.line, "marker": look.marker}
                tier.plot(x, rows[column], label=look.label, **style)
        tier.set_ylabel(words[column])
    tiers[shown.index("median")].axhline(0.0, color=GREY, linestyle=":")
    if axis.is_log:
        plain_log(tiers[-1], "x")
    tiers[-1].set_xlabel(axis.label)
    handles, labels = tiers[-1].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper left", ncols=4)
    caption = (
        f"Score, median deviation and resolution of all sets in bins of {axis.symbol}. Every model "
        "is to be compared with the exact density."
    )
    yield Panel("comparison", caption, drawing, joined)


def join(scene: Scene) -> pa.Table:
    """One row for each set and bin of the true value; empty where there is little to compare."""
    axis, closure = _truth_axis(scene), scene.table("delta_e")
    if axis is None or len([n for n in scene.sets if n != UNCALIBRATED]) < LEAST:
        return SCHEMA.empty_table()
    closure = select(closure, axis=axis.name)
    profile = scene.table("score_profile")
    scored = select(profile, axis=axis.name).to_pylist() if profile.num_rows else []
    by_bin = {(row["set"], row["low"]): row for row in scored}
    rows = []
    for row in closure.to_pylist():
        if row["median"] is not None:
            scores = by_bin.get((row["set"], row["low"]), {})
            rows.append(
                {name: row[name] for name in ("set", "rows", "low", "high", "median", "sigma_rel")}
                | {name: scores.get(name) for name in SCORES}
            )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _truth_axis(scene: Scene) -> AxisView | None:
    """The axis on which closure is defined."""
    return next((axis for axis in scene.axes() if axis.closure_from is not None), None)


def _common_score(joined: pa.Table) -> str:
    """The score that most sets have."""
    known = {name: joined.filter(joined[name].is_valid()) for name in SCORES}
    return max(SCORES, key=lambda name: len(distinct(known[name], "set")))


def _scores(scene: Scene, name: str) -> list[str]:
    table = select(scene.table("scores"), set=name, population=EVERYWHERE).to_pylist()
    values = [table[0].get(score) if table else None for score in SCORES]
    return ["" if value is None else f"{value:.4f}" for value in values]


def _cell(row: dict[str, float] | None) -> str:
    if row is None:
        return ""
    width = "" if row["sigma_rel"] is None else f", {row['sigma_rel']:.3f}"
    return f"{100 * row['median']:+.1f}%{width}"
