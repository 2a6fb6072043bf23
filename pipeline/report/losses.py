"""Panels of the course of training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pipeline.report.canvas import Panel, add_legend, new_axes
from pipeline.report.scene import Column, Scene

History = Sequence[Mapping[str, Any]]

SETTLED = 10  # histories longer than this are shown without the height of their first epoch


def loss_panels(scene: Scene, histories: Mapping[str, History]) -> Iterator[Panel]:
    """Score on training and validation rows, and the divergence from the prior, by epoch."""
    for name, history in histories.items():
        if not history:
            continue
        table = pa.Table.from_pylist([dict(line) for line in history])
        figure, axes = new_axes(f"{scene.look(name).label}, {scene.sample}")
        curves = [_draw(axes, history, "train_nll", "training", "#0072b2", "-")]
        curves.append(_draw(axes, history, "validation_nll", "validation", "#d55e00", "--"))
        _mark_rates(axes, history)
        axes.set_ylim(*_settled_range(curves))
        axes.set_xlabel("epoch")
        axes.set_ylabel("negative log density")
        add_legend(figure, axes)
        yield Panel(f"loss-{name}", f"Score of {scene.look(name).label} by epoch", figure, table)
        if np.any(_values(history, "kl") > 0):
            figure, axes = new_axes(f"{scene.look(name).label}, {scene.sample}")
            _draw(axes, history, "kl", "divergence from the prior", "#009e73", "-")
            _mark_rates(axes, history)
            axes.set_xlabel("epoch")
            axes.set_ylabel("KL per training row")
            add_legend(figure, axes)
            caption = f"Divergence of {scene.look(name).label} from its prior"
            yield Panel(f"kl-{name}", caption, figure, table.select(["epoch", "kl"]))


def _values(history: History, key: str) -> Column:
    """One number an epoch; NaN where an epoch has none."""
    found = [line.get(key) for line in history]
    return np.array([np.nan if value is None else float(value) for value in found])


def _draw(axes: Axes, history: History, key: str, label: str, colour: str, line: str) -> Column:
    values = _values(history, key)
    if np.isfinite(values).any():
        marker = "o" if len(values) <= SETTLED else ""
        epochs = _values(history, "epoch")
        axes.plot(epochs, values, color=colour, linestyle=line, marker=marker, label=label)
    return values


def _mark_rates(axes: Axes, history: History) -> None:
    """A line at each epoch from which the learning rate is lower."""
    rates, epochs = _values(history, "learning_rate"), _values(history, "epoch")
    drops = epochs[1:][rates[1:] < 0.5 * rates[:-1]]
    for number, epoch in enumerate(drops):
        label = "learning rate drops" if number == 0 else None
        axes.axvline(epoch, color="#999999", linestyle=":", linewidth=1.0, label=label)


def _settled_range(curves: Sequence[Column]) -> tuple[float, float]:
    shown = [c[1:] if len(c) > SETTLED else c for c in curves]
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    margin = 0.08 * max(float(np.ptp(values)), 1e-3)
    return float(values.min()) - margin, float(values.max()) + margin
