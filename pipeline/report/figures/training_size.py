"""Figure 10: uncertainties against the size of the training sample, and beside the real spread."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pipeline.report.panel import GREY, Panel, add_legend, new_axes, new_tiers, plain_log
from pipeline.report.study_data import (
    COLOURS,
    MARKERS,
    Look,
    Scene,
    Series,
    distinct,
    select,
    series,
)
from pipeline.training_size.fits import NAMES, curve_of

FEWEST_SIZES = 2  # for a line
SPACES = {"_log10": "log$_\\mathrm{10}$ ", "": ""}
BUDGETS = {"steps": "the same number of updates", "epochs": "the same number of epochs"}
ROWS = "training rows"


def look_of(scene: Scene, ladder: str) -> Look:
    """How a ladder is drawn, the same in all figures."""
    at = distinct(scene.table("scaling"), "ladder").index(ladder)
    label = scene.settings.set_labels.get(ladder, ladder)
    return Look(label, COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)])


def ladders_of(scene: Scene, **equal: str) -> dict[str, Series]:
    """The steps of each ladder of two sizes or more."""
    table = select(scene.table("scaling"), **equal)
    ladders = {name: series(table, ladder=name) for name in distinct(table, "ladder")}
    return {name: steps for name, steps in ladders.items() if len(steps) >= FEWEST_SIZES}


def size_panels(scene: Scene) -> Iterator[Panel]:
    """sigma_syst and sigma_stat against the training rows, for each kind of budget."""
    for suffix, space in SPACES.items():
        for budget, words in BUDGETS.items():
            ladders = ladders_of(scene, budget=budget)
            if ladders:
                yield _size_panel(scene, ladders, (suffix, space), (budget, words))


def _size_panel(
    scene: Scene, ladders: dict[str, Series], space: tuple[str, str], budget: tuple[str, str]
) -> Panel:
    suffix, symbol = space
    figure, axes = new_axes(scene.sample)
    for name, steps in ladders.items():
        look = look_of(scene, name)
        for part, fill in (("syst", look.colour), ("stat", "none")):
            column = f"sigma_{part}{suffix}"
            if f"{column}_median" not in steps.columns:  # of single networks alone
                continue
            _points(axes, steps, f"{column}_median", look, fill)
            _fit_line(axes, scene, name, column, look)
        axes.plot([], [], color=look.colour, marker=look.marker, label=look.label)
    exact = next(iter(ladders.values())).columns.get(f"exact_sigma_syst{suffix}_median")
    if exact is not None and np.isfinite(exact).any():
        axes.axhline(exact[0], color="#000000", linestyle="--", label="exact density")
    axes.plot([], [], "o", color=GREY, label=r"$\sigma_\mathrm{syst}$")
    axes.plot([], [], "o", color=GREY, markerfacecolor="none", label=r"$\sigma_\mathrm{stat}$")
    plain_log(axes, "x")
    plain_log(axes, "y")
    response = scene.symbol(scene.target.name)
    axes.set_xlabel(ROWS)
    axes.set_ylabel(f"median uncertainty of {symbol}{response}")
    add_legend(figure, axes, columns=3)
    columns = [f"sigma_{part}{suffix}_median" for part in ("syst", "stat")]
    kind, words = budget
    return Panel(
        name=f"scaling-{kind}{'-linear' if not suffix else ''}",
        number="10",
        caption=f"Median uncertainties of {symbol}{response} on the same test rows against the "
        f"number of training rows, with {words} for each size; lines are fits.",
        figure=figure,
        table=_drawn(scene, ladders, columns),
        labels={"rows": ROWS},
    )


def _points(axes: Axes, steps: Series, column: str, look: Look, fill: str) -> None:
    errors = steps.columns.get(f"{column}_error")
    axes.errorbar(
        steps["rows"],
        steps[column],
        yerr=None if errors is None or np.isnan(errors).all() else np.nan_to_num(errors),
        fmt=look.marker,
        color=look.colour,
        markerfacecolor=fill,
    )


def _fit_line(axes: Axes, scene: Scene, ladder: str, quantity: str, look: Look) -> None:
    rows = select(scene.table("scaling_fits"), ladder=ladder, quantity=quantity).to_pylist()
    for row in rows:
        low, high = axes.dataLim.intervalx
        at = np.geomspace(low, high, 100)
        values = curve_of(row["form"])(at, *(row[name] for name in NAMES[row["form"]]))
        axes.plot(at, values, color=look.colour, linewidth=0.8, linestyle=":")


def spread_panels(scene: Scene) -> Iterator[Panel]:
    """sigma_stat beside the real spread of single networks, for each ladder that has one."""
    for name, steps in ladders_of(scene).items():
        ratio = steps.columns.get("sigma_stat_over_spread_over_samples_log10")
        if ratio is not None and np.isfinite(ratio).sum() >= FEWEST_SIZES:
            yield _spread_panel(scene, name, steps)


def _spread_panel(scene: Scene, name: str, steps: Series) -> Panel:
    look = look_of(scene, name)
    figure, axes, below = new_tiers(scene.sample)
    drawn = [
        ("sigma_stat_log10_median", r"$\sigma_\mathrm{stat}$, predicted", COLOURS[0], "o"),
        ("spread_over_samples_log10", "real, fresh samples", COLOURS[1], "s"),
        ("spread_over_seeds_log10", "real, seeds only", COLOURS[2], "^"),
    ]
    for column, label, colour, marker in drawn:
        if column in steps.columns:
            _points(axes, steps, column, Look(label, colour, marker), colour)
            axes.plot([], [], color=colour, marker=marker, linestyle="", label=label)
    for kind, colour, marker in (("samples", COLOURS[1], "s"), ("seeds", COLOURS[2], "^")):
        ratio = f"sigma_stat_over_spread_over_{kind}_log10"
        if ratio in steps.columns:
            _points(below, steps, ratio, Look("", colour, marker), colour)
    below.axhline(1.0, color=GREY, linewidth=0.8)
    plain_log(axes, "x")
    plain_log(axes, "y")
    below.set_xlabel(ROWS)
    below.set_ylabel("predicted / real")
    response = scene.symbol(scene.target.name)
    axes.set_ylabel(rf"spread of log$_\mathrm{{10}}$ {response}")
    add_legend(figure, axes, columns=2)
    return Panel(
        name=f"scaling-spread-{name}",
        number="10",
        caption=f"{look.label}: predicted statistical uncertainty of a single network against the "
        "spread of single networks, each trained on a sample of its own with its own seed, and on "
        "one sample with other seeds.",
        figure=figure,
        table=_drawn(
            scene,
            {name: steps},
            [column for column, *_ in drawn]
            + [f"sigma_stat_over_spread_over_{kind}_log10" for kind in ("samples", "seeds")],
        ),
        labels={"rows": ROWS},
    )


def tenth_panels(scene: Scene) -> Iterator[Panel]:
    """Predicted against real spread in tenths of the test rows, at each ladder's largest size."""
    table = select(scene.table("scaling_spread"), quantity="log10", over="samples")
    curves = {}
    for name in distinct(table, "ladder"):
        rows = series(table, ladder=name)
        last = rows["rows"] == rows["rows"].max()
        curves[name] = Series({column: values[last] for column, values in rows.columns.items()})
    if not curves:
        return
    figure, axes = new_axes(scene.sample)
    for name, rows in curves.items():
        look = look_of(scene, name)
        label = f"{look.label}, {int(rows['rows'][0]):,} rows"
        axes.plot(
            rows["predicted"], rows["real"], color=look.colour, marker=look.marker, label=label
        )
    limits = np.array([*axes.get_xlim(), *axes.get_ylim()])
    reach = [limits[limits > 0].min(), limits.max()]
    axes.plot(reach, reach, color=GREY, linewidth=0.8, zorder=0)
    plain_log(axes, "x")
    plain_log(axes, "y")
    response = scene.symbol(scene.target.name)
    axes.set_xlabel(rf"predicted $\sigma_\mathrm{{stat}}$ of log$_\mathrm{{10}}$ {response}")
    axes.set_ylabel("real spread")
    add_legend(figure, axes, columns=2)
    yield Panel(
        name="scaling-tenths",
        caption="Real spread of single networks over fresh samples against the predicted one, in "
        "tenths of the test rows by the predicted one; on the line both agree.",
        figure=figure,
        table=pa.table({
            "ladder": [name for name, rows in curves.items() for _ in rows["tenth"]],
            **{
                column: np.concatenate([rows[column] for rows in curves.values()])
                for column in ("rows", "tenth", "predicted", "real")
            },
        }),
        labels={"tenth": "tenth of the test rows"},
    )


def excess_panels(scene: Scene) -> Iterator[Panel]:
    """Information lost against the exact density, against the training rows."""
    known = {
        name: steps for name, steps in ladders_of(scene).items() if "nll_excess" in steps.columns
    }
    if not known:
        return
    figure, axes = new_axes(scene.sample)
    for name, steps in known.items():
        look = look_of(scene, name)
        _points(axes, steps, "nll_excess", look, look.colour)
        axes.plot(steps["rows"], steps["nll_excess"], color=look.colour, label=look.label)
    plain_log(axes, "x")
    plain_log(axes, "y")
    axes.set_xlabel(ROWS)
    axes.set_ylabel("score above exact")
    add_legend(figure, axes, columns=3)
    yield Panel(
        name="scaling-score",
        caption="Mean negative log density of the test rows less the exact density's.",
        figure=figure,
        table=_drawn(scene, known, ["nll_excess"]),
        labels={"rows": ROWS},
    )


def _drawn(scene: Scene, ladders: dict[str, Series], columns: Sequence[str]) -> pa.Table:
    """The rows of the table `scaling` that are in a panel."""
    table = scene.table("scaling")
    chosen = pa.concat_tables([select(table, ladder=name) for name in ladders])
    names = [n for column in columns for n in (column, f"{column}_error")]
    return chosen.select([
        *("ladder", "budget", "rows", "updates"),
        *(name for name in names if name in chosen.column_names),
    ])
