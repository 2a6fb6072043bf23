"""The numbers behind every figure, as tables that can be drawn without evaluating again."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.evaluation.axes import ResolvedAxis
from pipeline.evaluation.distribution import Distribution
from pipeline.evaluation.fine import FineHistogram
from pipeline.evaluation.fit import fit_core
from pipeline.evaluation.rows import BASELINE, TARGET, UNCALIBRATED, Key
from pipeline.evaluation.schemas import MODEL, REFERENCE, SCHEMAS
from pipeline.evaluation.spacing import Floats
from pipeline.evaluation.summary import (
    ks_distance,
    population_resolution,
    rows_without_density,
)

if TYPE_CHECKING:
    from pipeline.evaluation.evaluation import Evaluation

Row = dict[str, Any]

PULL_DISPLAY_BINS = 800  # of the fine range: 0.05 each with the default of +-20
PAIR_DISPLAY_BINS = 400  # 0.01 each
PIT_DISPLAY_BINS = 50
SIGMA_DISPLAY_BINS = 180  # 20 a decade with the default range
RATIO_DISPLAY_BINS = 700


def make_tables(evaluation: "Evaluation") -> dict[str, pa.Table]:
    """By name, in long form: one row for each bin, set and axis or population."""
    rows: dict[str, list[Row]] = {
        "sets": list(_set_rows(evaluation)),
        "axes": list(_axis_rows(evaluation)),
        "delta_e": list(_profile_rows(evaluation, "delta_e")),
        "delta_r": list(_profile_rows(evaluation, "delta_r")),
        "pull_profile": list(_pull_profile_rows(evaluation)),
        "scores": list(_score_rows(evaluation)),
        "pull": list(_histogram_rows(evaluation, ("t_log", "t_tot"), PULL_DISPLAY_BINS)),
        "pull_fit": list(_fit_rows(evaluation)),
        "pit": list(_histogram_rows(evaluation, ("pit",), PIT_DISPLAY_BINS)),
        "sigma": list(
            _histogram_rows(
                evaluation, ("sigma_tot", "sigma_syst", "sigma_stat"), SIGMA_DISPLAY_BINS
            )
        ),
        "sigma_ratio": list(_histogram_rows(evaluation, ("sigma_ratio",), RATIO_DISPLAY_BINS)),
        "plane": list(_plane_rows(evaluation)),
        "pair_sigma": list(_histogram_rows(evaluation, ("pair_sigma",), PAIR_DISPLAY_BINS)),
    }
    return {name: pa.Table.from_pylist(rows[name], SCHEMAS[name]) for name in SCHEMAS}


def _set_rows(evaluation: "Evaluation") -> Iterator[Row]:
    """The calibrated sets, and which of them the others are compared with."""
    for name in evaluation.sets:
        is_reference = name == evaluation.plan.settings.reference
        yield {"set": name, "role": REFERENCE if is_reference else MODEL}


def _axis_rows(evaluation: "Evaluation") -> Iterator[Row]:
    for axis in evaluation.plan.axes:
        truth = axis == evaluation.plan.truth_axis
        yield {
            "axis": axis.name,
            "column": axis.column,
            "unit": axis.unit,
            "scale": axis.scale,
            "closure_from": evaluation.plan.settings.closure_from if truth else None,
        }


def _profile_rows(evaluation: "Evaluation", figure: str) -> Iterator[Row]:
    """Delta_E = x - 1, and Delta_R = 1/x - 1 from the same cells (Eqs. 15 and 16)."""
    names = evaluation.sets if figure == "delta_r" else (UNCALIBRATED, *evaluation.sets)
    for axis in evaluation.plan.axes:
        for name in names:
            histogram = evaluation.histograms[Key("ratio", name, axis.name)]
            if figure == "delta_r":
                histogram = histogram.mirrored()
            means = evaluation.moments[Key(figure, name, axis.name)]
            truncated = evaluation.moments[Key(figure + "_truncated", name, axis.name)]
            for row, number in _bins(evaluation, axis, name, histogram):
                yield (
                    row
                    | _estimates(histogram.distribution(number), shift=-1.0)
                    | {
                        "mean": means.mean[number],
                        "mean_error": means.mean_error[number],
                        "mean_truncated": truncated.mean[number],
                        "mean_truncated_error": truncated.mean_error[number],
                    }
                )


def _pull_profile_rows(evaluation: "Evaluation") -> Iterator[Row]:
    for key, histogram in evaluation.histograms.items():
        if key.figure == "pull":
            axis = next(axis for axis in evaluation.plan.axes if axis.name == key.where)
            for row, number in _bins(evaluation, axis, key.name, histogram):
                estimates = _estimates(histogram.distribution(number), shift=0.0)
                yield row | {k: v for k, v in estimates.items() if "sigma" not in k}


def _bins(
    evaluation: "Evaluation", axis: ResolvedAxis, name: str, histogram: FineHistogram
) -> Iterator[tuple[Row, int]]:
    """The bins between the edges that have enough rows, with what names them."""
    rows = histogram.rows
    for number in range(1, len(axis.edges)):
        if rows[number] >= evaluation.plan.settings.min_rows_per_bin:
            low, high = axis.edges[number - 1], axis.edges[number]
            row = {"axis": axis.name, "set": name, "low": low, "high": high}
            yield row | {"rows": int(rows[number])}, number


def _estimates(distribution: Distribution, *, shift: float) -> Row:
    left, right = distribution.narrowest()
    resolution, resolution_error = None, None
    if shift:
        resolution, resolution_error = distribution.relative_resolution()
    return {
        "effective_rows": distribution.effective_rows,
        "median": distribution.quantile(0.5) + shift,
        "median_error": distribution.median_error,
        "left68": left + shift,
        "right68": right + shift,
        "width68": right - left,
        "width68_error": distribution.width_error,
        "sigma_rel": resolution,
        "sigma_rel_error": resolution_error,
    }


def _score_rows(evaluation: "Evaluation") -> Iterator[Row]:
    names = (UNCALIBRATED, *evaluation.sets, BASELINE)
    for name in names:
        for where in evaluation.populations:
            total = int(evaluation.histograms[Key("ratio_in", UNCALIBRATED, where)].rows[0])
            row: Row = {"set": name, "population": where, "rows": total}
            row |= _mean_scores(evaluation, name, where)
            row |= _histogram_scores(evaluation, name, where)
            if len(row) > 3:
                yield row


def _mean_scores(evaluation: "Evaluation", name: str, where: str) -> Row:
    """Means over the rows that have a finite value, with the number of those without density."""
    keys = {
        "nll": "nll",
        "nll_excess": "excess",
        "coverage68": "coverage68",
        "coverage95": "coverage95",
        "in_domain": "in_domain",
    }
    row: Row = {}
    for column, key in keys.items():
        moments = evaluation.moments.get(Key(key, name, where))
        if moments is not None and moments.counts[0]:
            row[column] = moments.mean[0]
            row[column + "_error"] = moments.mean_error[0]
    if Key("nll", name, where) in evaluation.moments:
        row["rows_without_density"] = rows_without_density(evaluation, "nll", name, where)
    return row


def _histogram_scores(evaluation: "Evaluation", name: str, where: str) -> Row:
    row: Row = {}
    pit = evaluation.histograms.get(Key("pit", name, where))
    if pit is not None and pit.rows[0]:
        row["pit_ks"] = ks_distance(pit)
    for column, figure in (
        ("sigma_log10_ratio_median", "sigma_ratio"),
        ("sigma_tot_median", "sigma_tot"),
        ("sigma_syst_median", "sigma_syst"),
        ("sigma_stat_median", "sigma_stat"),
    ):
        histogram = evaluation.histograms.get(Key(figure, name, where))
        if histogram is not None and histogram.rows[0]:
            row[column] = histogram.distribution().quantile(0.5)
    resolution = population_resolution(evaluation, name, where)
    if resolution is not None:
        row["sigma_rel"] = resolution
    return row


def _histogram_rows(
    evaluation: "Evaluation", figures: tuple[str, ...], display_bins: int
) -> Iterator[Row]:
    """Inclusive histograms in display bins; flow is left out, densities are per unit of x."""
    for key, histogram in evaluation.histograms.items():
        if key.figure in figures and histogram.rows[0]:
            group = max(1, histogram.spacing.cells // display_bins)
            edges, rows, weights, squares = histogram.rebinned(group)
            total = float(histogram.weights.sum())
            seen = np.flatnonzero(rows)
            shown = range(seen[0], seen[-1] + 1) if len(seen) else range(0)
            for i in shown:
                yield {
                    "figure": key.figure,
                    "set": key.name,
                    "population": key.where,
                    "low": edges[i],
                    "high": edges[i + 1],
                    "rows": int(rows[i]),
                    "fraction": weights[i] / total,
                    "fraction_error": np.sqrt(squares[i]) / total,
                }


def _fit_rows(evaluation: "Evaluation") -> Iterator[Row]:
    for key, histogram in evaluation.histograms.items():
        if key.figure in {"t_log", "t_tot", "pair_sigma"} and (fit := fit_core(histogram)):
            names = {"figure": key.figure, "set": key.name, "population": key.where}
            yield names | {name: getattr(fit, name) for name in fit.__slots__}


def _plane_rows(evaluation: "Evaluation") -> Iterator[Row]:
    """Occupied cells of the target against each axis, without flow."""
    for axis in evaluation.plan.axes:
        for name in (TARGET, *evaluation.sets):
            histogram = evaluation.histograms[Key("plane", name, axis.name)]
            for cell in _plane_cells(histogram, np.asarray(axis.edges)):
                yield {"axis": axis.name, "set": name} | cell


def _plane_cells(histogram: FineHistogram, across: Floats) -> Iterator[Row]:
    up = histogram.spacing.edges()
    x, y = np.divmod(histogram.cells, len(up) + 1)
    inside = (x > 0) & (x < len(across)) & (y > 0) & (y < len(up))
    for at in np.flatnonzero(inside):
        yield {
            "low": across[x[at] - 1],
            "high": across[x[at]],
            "target_low": up[y[at] - 1],
            "target_high": up[y[at]],
            "rows": int(histogram.counts[at]),
            "weight": float(histogram.weights[at]),
        }
