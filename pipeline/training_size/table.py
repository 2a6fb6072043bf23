"""A scaling study as tables: a row for each ladder and size, over its trainings.

Shape letters: N test rows.

A table of spreads answers whether sigma_stat is a statistical uncertainty. There are two real
spreads: over fresh samples of the same size, each with its own seed, which is what a statistical
uncertainty has to cover; and over seeds on one sample, the part that the training alone makes. Both
are of a single network, since sigma_stat (Eq. 42) is the spread of single networks. With S networks
in each training, and the mean m_r and the spread s_r over those of training r, the variance of a
single network is Var_r(m_r) + mean_r(s_r^2), which needs no choice of a network.

Rows are compared in tenths of equal size by their predicted spread: within a tenth variances are
averaged, so that few trainings make the result uncertain but do not bias it.

Shape letters: R trainings, N test rows, T tenths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.numerics.arrays import BoolArray, Columns, FloatArray, RealArray
from pipeline.training_size.fits import fit_table
from pipeline.training_size.points import MEANS, SIGMAS, WEIGHT, PointRecord
from pipeline.training_size.settings import ScalingSettings

TENTHS = 10
FEWEST = 2  # trainings that have a spread
FEWEST_FOR_ERROR = 3


@dataclass(frozen=True)
class Spread:
    """Predicted and real spread of a single network.

    Attributes:
        trainings: From which the real one is.
        predicted_T: Root of the mean predicted variance in each tenth of the rows.
        real_T: Root of the mean real variance of a single network.
        average_T: The same of the average over a training's networks, the central value.
    """

    trainings: int
    predicted_T: FloatArray
    real_T: FloatArray
    average_T: FloatArray

    @property
    def ratio(self) -> float:
        """Predicted over real, the median of the tenths."""
        return float(np.median(self.predicted_T / self.real_T))

    @property
    def real(self) -> float:
        """The real spread of a single network, the median of the tenths."""
        return float(np.median(self.real_T))

    @property
    def average(self) -> float:
        """The real spread of the average over networks, the median of the tenths."""
        return float(np.median(self.average_T))


def compare(predicted: Sequence[Columns], singles: Sequence[Columns], suffix: str) -> Spread | None:
    """The predicted spread beside the real one; None of fewer than two trainings.

    Args:
        predicted: The test rows of the trainings whose sigma_stat is in question.
        singles: Those of the trainings over which the real spread is taken.
        suffix: "" for R, "_log10" for log10 R.
    """
    if len(singles) < FEWEST:
        return None
    stat = f"sigma_stat{suffix}"
    predicted_N = np.mean([rows[stat].astype(np.float64) ** 2 for rows in predicted], axis=0)
    mean_RN = np.array([rows[MEANS[suffix]] for rows in singles], np.float64)
    within_N = np.mean([rows[stat].astype(np.float64) ** 2 for rows in singles], axis=0)
    average_N = mean_RN.var(axis=0, ddof=1)
    known = np.isfinite(predicted_N) & np.isfinite(average_N) & np.isfinite(within_N)
    tenths = np.array_split(np.argsort(predicted_N[known], kind="stable"), TENTHS)
    columns = (predicted_N, average_N + within_N, average_N)
    roots = [np.array([np.sqrt(c[known][rows].mean()) for rows in tenths]) for c in columns]
    return Spread(len(singles), *roots)


def errors_of(
    predicted: Sequence[Columns], singles: Sequence[Columns], suffix: str
) -> dict[str, float]:
    """Jackknife errors of the figures of a spread, leaving out one training at a time.

    None for fewer than three trainings.
    """
    count = len(singles)
    if count < FEWEST_FOR_ERROR:
        return {}
    without = [
        compare(predicted, [*singles[:left_out], *singles[left_out + 1 :]], suffix)
        for left_out in range(count)
    ]
    figures = {
        name: np.array([getattr(each, name) for each in without])
        for name in ("ratio", "real", "average")
    }
    return {name: float(np.sqrt((count - 1) * v.var())) for name, v in figures.items()}


LEVELS = {"q16": 0.16, "median": 0.5, "q84": 0.84}
KINDS = ("samples", "seeds")

StepRow = dict[str, float | int | str]
Weights = FloatArray | None


@dataclass(frozen=True)
class Point:
    """One training: its record and what it says of each test row."""

    record: PointRecord
    rows: Columns


def make_tables(
    scaling: ScalingSettings, points: Sequence[Point], oracle: Columns | None
) -> dict[str, pa.Table]:
    """The tables of a study.

    Args:
        scaling: The section.
        points: All trainings.
        oracle: The exact density of the test rows, where it is known.

    Returns:
        scaling: a row for each ladder and size; medians and quantiles over the test rows of the
        sigmas, averaged over the seeds, with the error of that average; scores; the real spreads.
        scaling_spread: predicted and real spread in tenths of the test rows. scaling_fits: see
        `fit_table`. One without rows is left out.
    """
    rows: list[StepRow] = []
    tenths: list[StepRow] = []
    for name, ladder in scaling.ladders.items():
        of_ladder = [point for point in points if point.record.ladder == name]
        singles = [p for p in points if p.record.ladder == (ladder.singles or name)]
        for size in sorted({point.record.rows for point in of_ladder}):
            nested = _select(of_ladder, size, "seeds")
            samples = _select(of_ladder, size, "samples")
            described = _describe(nested, samples, oracle)
            row = {"ladder": name, "budget": ladder.budget, **described}
            is_several = nested[0].record.networks > 1
            # Spreads are compared in tenths of the predicted one.
            for kind in KINDS if is_several else ():
                found = _spreads(nested, _select(singles, size, kind))
                row |= _figures(kind, found)
                tenths += _tenths({"ladder": name, "rows": size, "over": kind}, found)
            rows.append(row if is_several else _without_stat(row))
    tables = {
        "scaling": _table(rows),
        "scaling_spread": _table(tenths),
        "scaling_fits": fit_table(rows, scaling.negligible),
    }
    return {name: table for name, table in tables.items() if table.num_rows}


def _without_stat(row: StepRow) -> StepRow:
    """The figures of a single network: the spread of one (Eq. 42) is not 0 but unknown."""
    return {name: value for name, value in row.items() if not name.startswith("sigma_stat")}


def _select(points: Sequence[Point], size: int, kind: str) -> list[Point]:
    """Trainings on so many rows: all seeds of the nested subset, or the first of each sample."""
    fixed = "sample" if kind == "seeds" else "seed"
    return [p for p in points if p.record.rows == size and getattr(p.record, fixed) == 0]


def _describe(nested: Sequence[Point], samples: Sequence[Point], oracle: Columns | None) -> StepRow:
    """Figures of the trainings on the nested subset, averaged over the seeds.

    Their errors are those of that average; where there are further samples, with the part that
    another sample of the same size would change.
    """
    record, weights_N = nested[0].record, nested[0].rows.get(WEIGHT)
    row: StepRow = {
        "model": record.model,
        "rows": record.rows,
        "updates": record.updates,
        "networks": record.networks,
        "trainings": len(nested),
    }
    for column in (f"{name}{suffix}" for suffix in MEANS for name in SIGMAS):
        levels = [levels_of(point.rows[column], weights_N) for point in nested]
        others = [levels_of(point.rows[column], weights_N)["median"] for point in samples]
        row |= {f"{column}_{name}": float(np.mean([at[name] for at in levels])) for name in LEVELS}
        row |= _error(f"{column}_median", [at["median"] for at in levels], others)
    each, elsewhere = (
        [{**_scores(p.rows, oracle, weights_N), **p.record.scores} for p in points]
        for points in (nested, samples)
    )
    for name in each[0]:
        values = [scores[name] for scores in each]
        row[name] = float(np.mean(values))
        row |= _error(name, values, [scores[name] for scores in elsewhere])
    if oracle is not None:
        for suffix in MEANS:
            column = f"sigma_syst{suffix}"
            row[f"exact_{column}_median"] = levels_of(oracle[column], weights_N)["median"]
    return row


def levels_of(values_N: RealArray, weights_N: Weights) -> dict[str, float]:
    """Median and the bounds of the central 68 per cent, of the values that are numbers."""
    order = np.argsort(values_N)
    order = order[np.isfinite(values_N[order])]
    sums = np.cumsum(np.ones(len(order)) if weights_N is None else weights_N[order])
    # the largest sum so far: negative weights let it fall at times
    places = np.searchsorted(np.maximum.accumulate(sums), np.array([*LEVELS.values()]) * sums[-1])
    return dict(zip(LEVELS, map(float, values_N[order[places]]), strict=True))


def _error(name: str, of_seeds: Sequence[float], of_samples: Sequence[float]) -> StepRow:
    """The error of a mean over seeds; none of a single training."""
    if max(len(of_seeds), len(of_samples)) < FEWEST:
        return {}
    by_seed, by_sample = (
        float(np.var(values, ddof=1)) if len(values) >= FEWEST else 0.0
        for values in (of_seeds, of_samples)
    )
    variance = by_seed / len(of_seeds) + max(by_sample - by_seed, 0.0)
    return {f"{name}_error": float(np.sqrt(variance))}


def _scores(rows: Columns, oracle: Columns | None, weights_N: Weights) -> dict[str, float]:
    """NLL (natural log, density of log10 R), and how far it is above the exact density's."""
    log_p_N = rows["log_density"]
    known_N = np.isfinite(log_p_N)
    scores = {"nll": -float(np.average(log_p_N[known_N], weights=_of(weights_N, known_N)))}
    if oracle is not None:
        exact_N = oracle["log_density"]
        known_N &= np.isfinite(exact_N)
        excess_N = (exact_N - log_p_N)[known_N]
        scores["nll_excess"] = float(np.average(excess_N, weights=_of(weights_N, known_N)))
        ratio_N = rows["sigma_syst_log10"] / oracle["sigma_syst_log10"]
        scores["sigma_syst_log10_ratio_median"] = levels_of(ratio_N, weights_N)["median"]
    return scores


def _of(weights_N: Weights, rows_N: BoolArray) -> Weights:
    return None if weights_N is None else weights_N[rows_N]


Spreads = Mapping[str, tuple[Spread, dict[str, float]]]


def _spreads(nested: Sequence[Point], singles: Sequence[Point]) -> Spreads:
    """Spread and its errors by suffix; empty where there are too few trainings."""
    predicted, real = [p.rows for p in nested], [p.rows for p in singles]
    found = {suffix: compare(predicted, real, suffix) for suffix in MEANS}
    return {
        suffix: (spread, errors_of(predicted, real, suffix))
        for suffix, spread in found.items()
        if spread is not None
    }


def _figures(kind: str, found: Spreads) -> StepRow:
    row: StepRow = {}
    for suffix, (spread, errors) in found.items():
        row[f"trainings_over_{kind}"] = spread.trainings
        for name, figure in (
            ("real", f"spread_over_{kind}{suffix}"),
            ("average", f"spread_of_average_over_{kind}{suffix}"),
            ("ratio", f"sigma_stat_over_spread_over_{kind}{suffix}"),
        ):
            row[figure] = getattr(spread, name)
            row |= {f"{figure}_error": errors[name]} if name in errors else {}
    return row


def _tenths(place: StepRow, found: Spreads) -> list[StepRow]:
    return [
        {
            **place,
            "quantity": "log10" if suffix else "linear",
            "tenth": number + 1,
            "predicted": float(spread.predicted_T[number]),
            "real": float(spread.real_T[number]),
            "average": float(spread.average_T[number]),
        }
        for suffix, (spread, _) in found.items()
        for number in range(len(spread.real_T))
    ]


def _table(rows: Sequence[StepRow]) -> pa.Table:
    """A table with all columns that a row has; null where others have none."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})
