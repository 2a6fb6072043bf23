"""Panels of the course of training: one for each group of columns that a history has.

For an ensemble, texts say whether its repulsion was strong enough to matter.
"""

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
        label: Of the vertical axis; {space} is what networks are trained on.
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
        "of predictions in {space}",
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
    axes.set_ylabel(group.label.format(space=_trained_space(scene)))
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


# Measured on ensembles of 50 members of the paper's networks: at a ratio of 4e-5 the statistical
# uncertainty was that without repulsion to three digits, at 2e-2 to 3e-2 a quarter larger.
NEGLIGIBLE, FELT = 1e-3, 1e-2


def repulsion_texts(scene: Scene) -> Iterator[str]:
    """A paragraph for each repulsive ensemble, from its history (Eq. 36)."""
    for name, history in scene.histories.items():
        ratios = np.array([line.get("repulsion_ratio", np.nan) for line in history], dtype=float)
        if np.isfinite(ratios).any():
            spreads = [line.get("spread") for line in history]
            label, space = scene.look(name).label, _trained_space(scene)
            yield describe_repulsion(label, ratios, spreads[-1], space)


def _trained_space(scene: Scene) -> str:
    """What networks are trained on, in words."""
    return "log10 of the target" if scene.is_log else "standard deviations of the target"


def describe_repulsion(
    label: str, ratios: Column, spread: float | None, space: str = "log10 of the target"
) -> str:
    """What a history's ratios mean.

    Args:
        label: Of the ensemble.
        ratios: [epochs] norm of the repulsive gradient over that of the likelihood's.
        spread: Of the members' predictions in the last epoch; None if it is not known.
        space: What the spread is of.
    """
    seen = ratios[np.isfinite(ratios)]
    last, low, high = float(seen[-1]), float(seen.min()), float(seen.max())
    if high == 0.0:
        return (
            f"{label}: the repulsion was off or had nothing to push apart (ratio of gradients 0): "
            "a plain ensemble whose members differ by their start and by nothing else."
        )
    found = (
        f"{label}: in the last epoch the repulsive gradient was {_power(last)} of the likelihood's "
        f"({_power(low)} to {_power(high)} over the training)."
    )
    apart = "" if spread is None else f" ({spread:.2g} in {space}, root mean square)"
    if high < NEGLIGIBLE:
        return (
            f"{found} That is too weak to matter: what keeps the members{apart} apart is their "
            "different start, not the repulsion, and the spread that is shown as statistical "
            "uncertainty is that of a plain ensemble. A larger repulsion_scale makes it felt, from "
            f"a ratio of about {FELT:g}."
        )
    if high < FELT:
        return (
            f"{found} That is weak: the members{apart} are kept apart mostly by their different "
            "start; the repulsion may add a little to the statistical uncertainty."
        )
    return (
        f"{found} That is strong enough to matter: the repulsion pushes the members{apart} apart, "
        "and the statistical uncertainty depends on repulsion_scale."
    )


def _power(value: float) -> str:
    """A share in words that stay readable when it is tiny."""
    if value >= 1e-3:
        return f"{value:.2g}"
    mantissa, power = f"{value:.1e}".split("e")
    return rf"{mantissa} $\times$ 10$^{{{int(power)}}}$"
