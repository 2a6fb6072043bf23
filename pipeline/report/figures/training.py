"""Panels of the course of training: one for each group of columns that a history has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pipeline.report.panel import GREY, Panel, add_legend, new_axes, plain_log
from pipeline.report.study_data import Column, History, Scene

SETTLED = 10  # histories longer than this are shown without the height of their first epoch


@dataclass(frozen=True, slots=True)
class Group:
    """Columns of a history that are drawn together.

    Attributes:
        name: Of the panel, before the model's.
        columns: Each with its words in the legend.
        label: Of the vertical axis.
        caption: What it shows, before "of MODEL".
        is_log: On a log scale.
    """

    name: str
    columns: dict[str, str]
    label: str
    caption: str
    is_log: bool = False


GROUPS = (
    Group(
        "loss",
        {"train_nll": "training", "validation_nll": "validation"},
        "negative log density",
        "Mean negative log density by epoch",
    ),
    Group(
        "loss",
        {"train_loss": "training", "validation_loss": "validation"},
        "loss",
        "Mean loss by epoch",
    ),
    Group(
        "gradient",
        {"gradient_norm": "mean of an epoch", "gradient_norm_max": "largest of an epoch"},
        "norm of the gradient",
        "Norm of the loss's gradient, over the steps of an epoch",
        is_log=True,
    ),
    Group("kl", {"kl": "divergence"}, "KL per training row", "Divergence from the prior"),
    Group(
        "prior", {"prior": "prior"}, "prior term per training row", "The prior's part of the loss"
    ),
    Group(
        "log-variance",
        {
            "log_variance_q95": "95% quantile",
            "log_variance_q50": "median",
            "log_variance_q05": "5% quantile",
        },
        r"log $\sigma^2$ of the weights",
        "Quantiles over the weights of the logarithm of their variance",
    ),
    Group(
        "repulsion",
        {"repulsion_ratio": "repulsion / likelihood"},
        "ratio of gradients",
        "Norm of the repulsive gradient over that of the likelihood's",
        is_log=True,
    ),
    Group(
        "spread",
        {"spread": "spread of the members", "bandwidth": "width of the kernel"},
        "of predictions in log$_{10}$ of the target",
        "Spread of the members' predictions about their mean, and the kernel's width, which grows "
        "with the batch",
        is_log=True,
    ),
)
COLOURS = ("#0072b2", "#d55e00", "#009e73")
LINES = ("-", "--", "-.")


def loss_panels(scene: Scene) -> Iterator[Panel]:
    """What each model's history tells, by epoch."""
    for name, history in scene.histories.items():
        for group in GROUPS:
            curves = {key: _values(history, key) for key in group.columns}
            shown = {key: values for key, values in curves.items() if _has_any(values, group)}
            if shown:
                yield _panel(scene, name, history, group, shown)


def _panel(
    scene: Scene, name: str, history: History, group: Group, curves: dict[str, Column]
) -> Panel:
    label = scene.look(name).label
    drawing, axes = new_axes(f"{label}, {scene.sample}")
    epochs = _values(history, "epoch")
    marker = "o" if len(epochs) <= SETTLED else ""
    for (key, values), colour, line in zip(curves.items(), COLOURS, LINES, strict=False):
        words = group.columns[key]
        axes.plot(epochs, values, color=colour, linestyle=line, marker=marker, label=words)
    _mark_rates(axes, history)
    if group.is_log:
        plain_log(axes, "y")
    else:
        axes.set_ylim(*_settled_range(list(curves.values())))
    axes.set_xlabel("epoch")
    axes.set_ylabel(group.label)
    add_legend(drawing, axes)
    columns = {"epoch": epochs} | curves
    return Panel(
        name=f"{group.name}-{name}",
        caption=f"{group.caption}: {label}.",
        figure=drawing,
        table=pa.table({
            key: pa.array(values, from_pandas=True) for key, values in columns.items()
        }),
        labels={"epoch": "Epoch"} | {key: group.columns[key] for key in curves},
    )


def _has_any(values: Column, group: Group) -> bool:
    """Whether there is something to draw; a term that is zero throughout is none."""
    return bool(np.any(values > 0 if group.is_log else np.nan_to_num(values) != 0))


def _values(history: History, key: str) -> Column:
    """One number an epoch; NaN where an epoch has none."""
    found = [line.get(key) for line in history]
    return np.array([np.nan if value is None else float(value) for value in found])


def _mark_rates(axes: Axes, history: History) -> None:
    """A line at each epoch from which the learning rate is lower."""
    rates, epochs = _values(history, "learning_rate"), _values(history, "epoch")
    drops = epochs[1:][rates[1:] < 0.5 * rates[:-1]]
    for number, epoch in enumerate(drops):
        label = "learning rate drops" if number == 0 else None
        axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1.0, label=label)


def _settled_range(curves: Sequence[Column]) -> tuple[float, float]:
    shown = [c[1:] if len(c) > SETTLED else c for c in curves]
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    margin = 0.08 * max(float(np.ptp(values)), 1e-3 * float(np.abs(values).max()))
    return float(values.min()) - margin, float(values.max()) + margin
