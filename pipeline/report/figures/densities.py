"""Panels of distributions: pulls with their fits, probability transforms and uncertainties."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from pipeline.evaluation.rows import EVERYWHERE, VERSUS
from pipeline.report.figures.closure import as_steps
from pipeline.report.math_text import decimals_of
from pipeline.report.panel import GREY, Panel, add_legend, new_axes, plain_log, write_lines
from pipeline.report.study_data import Column, Look, Scene, Series, distinct, select, series

PULL_LABELS = {
    "t_log": r"$t_\mathrm{log}$ = log$_\mathrm{10}$(predicted / true) / $\sigma_\mathrm{log}$",
    "t_tot": r"$t_\mathrm{tot}$ = (predicted $-$ true) / $\sigma_\mathrm{tot}$",
}
SIGMA_LABELS = {
    "sigma_tot": (r"$\sigma_\mathrm{tot}$", "total"),
    "sigma_syst": (r"$\sigma_\mathrm{syst}$", "systematic"),
    "sigma_stat": (r"$\sigma_\mathrm{stat}$", "statistical"),
}


def pull_panels(scene: Scene) -> Iterator[Panel]:
    """Pulls in logarithmic and linear space with their core fits (Fig. 12b, Eqs. 19 and 20)."""
    for figure_name, label in PULL_LABELS.items():
        table = select(scene.table("pull"), figure=figure_name, population=EVERYWHERE)
        fits = select(scene.table("pull_fit"), figure=figure_name, population=EVERYWHERE)
        names = [name for name in scene.sets if len(series(table, set=name))]
        if not names or (figure_name == "t_log" and not scene.is_log):  # both pulls are one
            continue
        figure, axes = new_axes(scene.sample)
        words = []
        for name in names:
            bins, fit, look = series(table, set=name), series(fits, set=name), scene.look(name)
            _draw_density(axes, bins, look, look.label)
            _draw_fit(axes, fit, look)
            words += _fit_words(fit, look)
        plain_log(axes, "y")
        axes.set_xlim(*_core(series(table), 1e-4))
        axes.set_xlabel(label)
        axes.set_ylabel("fraction of rows per unit")
        write_lines(axes, words)
        add_legend(figure, axes)
        yield Panel(
            name=figure_name.replace("_", "-"),
            caption=f"{label}, with the two-sided Gaussian fitted to its core (thick). In the "
            "panel: its centre and its two widths, with the error of the last digits.",
            figure=figure,
            table=pa.concat_tables([select(table, set=name) for name in names]),
            number="12b" if figure_name == "t_log" else "",
            labels={"low": label, "fraction": "Fraction of rows in the bin"},
        )


def pit_panels(scene: Scene) -> Iterator[Panel]:
    """The probability integral transform against the uniform density."""
    for population in scene.populations:
        table = select(scene.table("pit"), population=population)
        names = [name for name in scene.sets if len(series(table, set=name))]
        if not names:
            continue
        figure, axes = new_axes(scene.sample)
        axes.axhline(1.0, color=GREY, linewidth=0.8)
        for name in names:
            bins, look = series(table, set=name), scene.look(name)
            _draw_density(axes, bins, look, look.label)
        axes.set_xlim(0, 1)
        axes.set_ylim(*_around_one(series(table)))
        axes.set_xlabel("probability integral transform")
        axes.set_ylabel("density")
        add_legend(figure, axes)
        where = "" if population == EVERYWHERE else f"-{population}"
        yield Panel(
            name=f"pit{where}",
            caption=f"Probability integral transform of {_words(population)}; flat if the "
            "densities are right.",
            figure=figure,
            table=pa.concat_tables([select(table, set=name) for name in names]),
            labels={"low": "Probability integral transform", "fraction": "Fraction in the bin"},
        )


def sigma_panels(scene: Scene, parts: tuple[str, ...]) -> Iterator[Panel]:
    """Spectra of the total uncertainty (Fig. 13), or of its systematic and statistical parts."""
    for figure_name in parts:
        symbol, kind = SIGMA_LABELS[figure_name]
        table = select(scene.table("sigma"), figure=figure_name, population=EVERYWHERE)
        names = [name for name in scene.sets if len(series(table, set=name))]
        if not names:
            continue
        figure, axes = new_axes(scene.sample)
        for name in names:
            bins, look = series(table, set=name), scene.look(name)
            _draw_fraction(axes, bins, look)
        _log_axes(axes, series(table))
        unit = "" if scene.target.unit == "1" else f" [{scene.target.unit}]"
        label = f"{symbol} of {scene.symbol(scene.target.name)}{unit}"
        axes.set_xlabel(label)
        window = scene.sigma_window if figure_name == "sigma_tot" else ()
        for end in window:
            axes.axvline(end, color=GREY, linewidth=0.8, linestyle=":")
        add_legend(figure, axes)
        yield Panel(
            name=figure_name.replace("_", "-"),
            caption=f"Spectrum of the {kind} uncertainty of {scene.symbol(scene.target.name)}."
            + (" The rows between the dotted lines are looked at below." if window else ""),
            figure=figure,
            table=pa.concat_tables([select(table, set=name) for name in names]),
            number="13" if figure_name == "sigma_tot" else "",
            labels={"low": label, "fraction": "Fraction of rows in the bin"},
        )


def sigma_ratio_panels(scene: Scene) -> Iterator[Panel]:
    """The total uncertainty of the transformed target over the reference's, row by row."""
    table = select(scene.table("sigma_ratio"), population=EVERYWHERE)
    names = [name for name in scene.models if len(series(table, set=name))]
    if not names or scene.reference is None:
        return
    figure, axes = new_axes(scene.sample)
    for name in names:
        bins, look = series(table, set=name), scene.look(name)
        _draw_fraction(axes, bins, look)
    axes.axvline(1.0, color=GREY, linewidth=0.8)
    _log_axes(axes, series(table))
    low, high = _core(series(table), 1e-4)
    plain_log(axes, "x", (min(low, 0.5), max(high, 2.0)))
    symbol = r"$\sigma_\mathrm{log}$" if scene.is_log else r"$\sigma_\mathrm{tot}$"
    axes.set_xlabel(f"{symbol} / that of the " + scene.look(scene.reference).label)
    add_legend(figure, axes)
    yield Panel(
        name="sigma-ratio",
        caption=f"Total uncertainty of {scene.space} over the exact one, row by row.",
        figure=figure,
        table=table,
        labels={"low": "Ratio of uncertainties", "fraction": "Fraction of rows in the bin"},
    )


def pair_panels(scene: Scene) -> Iterator[Panel]:
    """Relative difference of two sets' uncertainties with its core fit (Fig. 11b)."""
    for pair in distinct(scene.table("pair_sigma"), "set"):
        table = select(scene.table("pair_sigma"), set=pair, population=EVERYWHERE)
        fit = series(scene.table("pull_fit"), figure="pair_sigma", set=pair, population=EVERYWHERE)
        first, _, second = pair.partition(VERSUS)
        one, two = scene.look(first), scene.look(second)
        figure, axes = new_axes(scene.sample)
        bins = series(table)
        _draw_density(axes, bins, one, f"{one.label} over {two.label}")
        _draw_fit(axes, fit, one)
        for line in (-0.1, 0.0, 0.1):
            axes.axvline(line, color=GREY, linewidth=0.8, linestyle=":" if line else "-")
        low, high = _core(bins, 1e-3)
        axes.set_xlim(min(low, -0.2), max(high, 0.2))
        write_lines(axes, _fit_words(fit, one))
        label = rf"$\sigma_\mathrm{{tot}}$ of {one.label} / {two.label} $-$ 1"
        axes.set_xlabel(label)
        axes.set_ylabel("fraction of rows per unit")
        add_legend(figure, axes)
        yield Panel(
            name=f"pair-{pair.replace('_', '-')}",
            caption=f"{label}, for the same rows, with the two-sided Gaussian fitted to its "
            "core (thick); lines at 0 and at 10% on either side.",
            figure=figure,
            table=table,
            number="11b",
            labels={"low": label, "fraction": "Fraction of rows in the bin"},
        )


def _draw_density(axes: Axes, bins: Series, look: Look, label: str) -> None:
    values = bins["fraction"] / (bins["high"] - bins["low"])
    values = np.where(bins["rows"] > 0, values, np.nan)
    x, y = as_steps(bins["low"], bins["high"], values)
    axes.plot(x, y, color=look.colour, linestyle=look.line, linewidth=1.2, label=label)


def _draw_fraction(axes: Axes, bins: Series, look: Look) -> None:
    values = np.where(bins["rows"] > 0, bins["fraction"], np.nan)
    x, y = as_steps(bins["low"], bins["high"], values)
    axes.plot(x, y, color=look.colour, linestyle=look.line, linewidth=1.2, label=look.label)


def _draw_fit(axes: Axes, fit: Series, look: Look) -> None:
    if not len(fit):
        return
    x = np.linspace(fit["low"][0], fit["high"][0], 200)
    width = np.where(x < fit["mean"][0], fit["left"][0], fit["right"][0])
    y = fit["height"][0] * np.exp(-(((x - fit["mean"][0]) / width) ** 2) / 2)
    axes.plot(x, y, color=look.colour, linewidth=6.0, alpha=0.3, solid_capstyle="butt")


def _fit_words(fit: Series, look: Look) -> list[tuple[str, str]]:
    """What was fitted, with its colour."""
    if not len(fit):
        return []
    centre, left, right = (
        shorthand(float(fit[name][0]), float(fit[f"{name}_error"][0]))
        for name in ("mean", "left", "right")
    )
    return [(f"{look.label}: centre {centre}, left {left}, right {right}", look.colour)]


def shorthand(value: float, error: float) -> str:
    """A value with its error in units of the last digit, as 0.987(12); three digits or more."""
    digits = decimals_of(error, fewest=3, without=3)
    return f"{value:.{digits}f}({error * 10**digits:.0f})".replace("-", "\u2212")


def _core(bins: Series, share: float) -> tuple[float, float]:
    """The range outside which less than this share lies at either end."""
    order = np.argsort(bins["low"], kind="stable")
    reached = np.cumsum(bins["fraction"][order]) / bins["fraction"].sum()
    low = bins["low"][order][np.searchsorted(reached, share)]
    high = bins["high"][order][min(int(np.searchsorted(reached, 1 - share)), len(order) - 1)]
    return float(low), float(high)


def _around_one(bins: Series) -> tuple[float, float]:
    values: Column = bins["fraction"] / (bins["high"] - bins["low"])
    reach = 1.15 * max(float(np.abs(values - 1).max()), 0.05)
    return max(1 - reach, 0.0), 1 + reach


def _log_axes(axes: Axes, bins: Series) -> None:
    low, high = float(bins["low"].min()), float(bins["high"].max())
    plain_log(axes, "x", (low, high))
    plain_log(axes, "y")
    axes.set_ylabel("fraction of rows per bin")


def _words(population: str) -> str:
    return "all rows" if population == EVERYWHERE else f"the region {population}"
