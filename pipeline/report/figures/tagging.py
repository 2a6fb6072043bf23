"""The tagger: how well it finds its label, and where clusters are tagged."""

from collections.abc import Iterator

import pyarrow as pa
from matplotlib.colors import Normalize

from pipeline.report.figures.maps import draw_mesh
from pipeline.report.panel import GREY, Panel, add_legend, new_axes, plain_log
from pipeline.report.study_data import Scene, centres, distinct, select, series
from pipeline.report.tables import HtmlTable

# Words and colours of what is drawn, by its name in the tables.
WORDS = {
    "tagged": ("tagged", "#d55e00"),
    "label": ("with the label", "#0072b2"),
    "component": ("resistant component", "#009e73"),
    "exact_component": ("exact probability of that component", "#000000"),
    "tagger": ("tagger", "#d55e00"),
    "exact_label": ("exact probability of the label", "#0072b2"),
}
RATES = ("tagged", "label", "component", "exact_component")
SHARE = "share of clusters"
TRUTHS = {"label": "the label", "component": "the resistant component"}


def texts(scene: Scene) -> Iterator[str]:
    """The definition of the label, and how far the tagger is from what the features allow."""
    table = scene.table("tag")
    if not table.num_rows:
        return
    row = table.to_pylist()[0]
    yield (
        f"Label: {row['rule']}. Clusters with a score above {row['threshold']:.4g} are tagged; "
        "the threshold is chosen on the validation clusters without the label."
    )
    figures = _figures(table)
    for truth, words in TRUTHS.items():
        found, best = (figures.get(f"auc.{name}.{truth}") for name in ("tagger", f"exact_{truth}"))
        if found is not None and best is not None:
            yield (
                f"For {words} the tagger's AUC is {found:.4f}; the exact probability given the "
                f"features has {best:.4f}, which is the best that any tagger can have. "
                f"{best - found:.4f} are missing."
            )


def tables(scene: Scene) -> Iterator[HtmlTable]:
    """The table of all rates and scores of the tagger."""
    figures = _figures(scene.table("tag"))
    if figures:
        rows = [[name, f"{value:.4f}"] for name, value in figures.items()]
        yield HtmlTable(f"The tagger on the {scene.split} split", ("figure", "value"), rows)


def rate_panels(scene: Scene) -> Iterator[Panel]:
    """The rate of tags against each axis, beside that of the label."""
    views = {view.name: view for view in scene.axes()}
    for axis in distinct(scene.table("tag_rates"), "axis"):
        label, is_log = (views[axis].label, views[axis].is_log) if axis in views else (axis, False)
        table = select(scene.table("tag_rates"), axis=axis)
        drawing, axes = new_axes(scene.sample)
        for name in RATES:
            rows = series(table, quantity=name)
            if not len(rows):
                continue
            words, colour = WORDS[name]
            x = centres(rows["low"], rows["high"], log=is_log)
            axes.errorbar(
                x, rows["rate"], yerr=rows["rate_error"], color=colour, fmt=".-", label=words
            )
        if is_log:
            plain_log(axes, "x")
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel(label)
        axes.set_ylabel(SHARE)
        add_legend(drawing, axes, columns=2)
        caption = f"Share of tagged clusters against {axis}, beside that of what is to be found."
        labels = {"low": label, "rate": SHARE}
        yield Panel(f"tag-rate-{axis}", caption, drawing, table, labels=labels)


def curve_panels(scene: Scene) -> Iterator[Panel]:
    """Efficiency against the loss of ordinary clusters, for each truth."""
    for truth in distinct(scene.table("tag_roc"), "truth"):
        table = select(scene.table("tag_roc"), truth=truth)
        drawing, axes = new_axes(scene.sample)
        for name in ("tagger", f"exact_{truth}"):
            rows = series(table, ranking=name)
            if len(rows):
                words, colour = WORDS[name]
                axes.plot(rows["loss"], rows["efficiency"], color=colour, label=words)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        labels = {
            "loss": "share of other clusters above the score",
            "efficiency": f"share of clusters with {TRUTHS.get(truth, truth)}",
        }
        axes.set_xlabel(labels["loss"])
        axes.set_ylabel(labels["efficiency"])
        add_legend(drawing, axes, columns=2)
        caption = (
            f"How many clusters with {TRUTHS.get(truth, truth)} are found for how many others: "
            "the tagger, and the exact probability given the features, which is optimal."
        )
        yield Panel(f"tag-curve-{truth}", caption, drawing, table, labels=labels)


def position_panels(scene: Scene) -> Iterator[Panel]:
    """The rate of tags over |z| and r."""
    table = scene.table("tag_position")
    if not table.num_rows:
        return
    cells = series(table)
    drawing, axes = new_axes(scene.sample)
    mesh = draw_mesh(axes, cells, ("low", "r_low"), cells["rate"], norm=Normalize(vmin=0.0))
    labels = {"low": "$|z|$ [mm]", "r_low": "$r$ [mm]", "rate": "share of tagged clusters"}
    drawing.colorbar(mesh, ax=axes, label=labels["rate"], pad=0.02)
    axes.set_xlabel(labels["low"])
    axes.set_ylabel(labels["r_low"])
    caption = "Share of tagged clusters over the detector."
    yield Panel("tag-position", caption, drawing, table, labels=labels)


def _figures(table: pa.Table) -> dict[str, float]:
    return {row["figure"]: row["value"] for row in table.to_pylist()}
