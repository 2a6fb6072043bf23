"""The figures of one part's rows, as pairs of a key and an accumulator; scores are in `scores`."""

from collections.abc import Mapping

import numpy as np

from pipeline.evaluation.accumulators import (
    CORRELATIONS,
    MAP,
    PAIR_CENTRAL,
    PAIR_PLANES,
    PAIR_SIGMA,
    PLANE,
    PULL,
    PULL_LINEAR,
    PULL_LOG,
    RATIO,
    RATIO_IN,
    RATIO_MEANS,
    RATIO_ON_TRUTH,
    SELECTION,
    SIGMA_RATIO,
    SIGMAS,
    SPECTRUM,
    WINDOW,
    Key,
)
from pipeline.evaluation.baseline import BaselineHistogram
from pipeline.evaluation.plan import EvaluationPlan
from pipeline.evaluation.rows import (
    BASELINE,
    EVERYWHERE,
    TARGET,
    UNCALIBRATED,
    VERSUS,
    EvaluationSlab,
    Leaves,
    Quantity,
    quotient,
    select,
    wide,
)
from pipeline.evaluation.scores import NLL, NLL_EXCESS, fill_scores
from pipeline.numerics.arrays import Columns, FloatArray, Int32Array
from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import UNSEEN, Spacing, around_one, evenly
from pipeline.statistics.histogram import FineHistogram
from pipeline.statistics.moments import BinMoments


@exact_kernel
def deviations(
    ratios: FloatArray, low: float, high: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Of ratios [N]: ratio - 1, the same if between the bounds, 1 / ratio - 1, the same likewise.

    What is not between them is NaN.
    """
    first, second = np.empty_like(ratios), np.empty_like(ratios)
    third, fourth = np.empty_like(ratios), np.empty_like(ratios)
    for i in range(len(ratios)):
        one, two = ratios[i] - 1.0, 1.0 / ratios[i] - 1.0
        first[i], third[i] = one, two
        second[i] = one if low < one < high else np.nan
        fourth[i] = two if low < two < high else np.nan
    return first, second, third, fourth


def fill_truth(rows: EvaluationSlab) -> Leaves:
    """The uncalibrated scale, the target against each axis, spectra by class, and the map."""
    plan = rows.plan
    yield from _fill_ratio(rows, UNCALIBRATED, rows.numerator / rows.denominator)
    _fill_plane(rows, TARGET, rows.target)
    rows.add(SPECTRUM, EVERYWHERE, class_spacing(plan), _classify(rows))
    yield from _fill_map(rows, EVERYWHERE, None)


def fill_set(
    rows: EvaluationSlab, name: str, columns: Columns, reference: Columns | None
) -> Leaves:
    """Everything about one calibrated set.

    Args:
        rows: The truth.
        name: Of the set.
        columns: Of the set; figures whose columns it lacks are left out.
        reference: The set to compare with; None if this is that set or there is none.
    """
    target = rows.plan.target
    central = wide(columns, target.name)
    ratio = wide(columns, target.calibrated) / rows.denominator
    yield from _fill_ratio(rows, name, ratio)
    _fill_plane(rows, name, central)
    yield from fill_scores(rows, name, columns, reference)
    if "sigma_tot" in columns:
        yield from _fill_pulls(rows, name, columns, central)
        yield from _fill_sigmas(rows, name, columns, reference)
        yield from _fill_window(rows, name, columns)


def fill_baseline(
    rows: EvaluationSlab, baseline: BaselineHistogram, reference: Columns | None
) -> Leaves:
    """The negative log density of the baseline, and its excess over the reference's."""
    nll = -baseline.log_density(rows.numerator, rows.target)
    yield from rows.moments(NLL.figure, BASELINE, nll)
    if reference is not None and "log_density" in reference:
        yield from rows.moments(NLL_EXCESS.figure, BASELINE, nll + wide(reference, "log_density"))


def fill_selection(
    rows: EvaluationSlab, name: str, ranked_by: str, sets: Mapping[str, Columns]
) -> Leaves:
    """A set's ratio in bins of the relative uncertainty of a set, its own or another's."""
    rank = rows.plan.settings.fine.rank
    if ranked_by not in rows.ranks:
        ranking = sets[ranked_by]
        relative = quotient(wide(ranking, "sigma_tot"), wide(ranking, rows.plan.target.name))
        # Rows without an uncertainty are dropped first.
        fine_bins = rank.index(np.where(np.isnan(relative), np.inf, relative))
        rows.ranks[ranked_by] = fine_bins.astype(np.uint16)
    bins = rows.ranks[ranked_by]
    yield Key(SELECTION, name, ranked_by), rows.binned(rows.ratios[name], bins, rank.width)


def fill_pair(rows: EvaluationSlab, first: str, second: str, sets: Mapping[str, Columns]) -> Leaves:
    """Relative differences of two sets' uncertainties and central values (Fig. 11b)."""
    name, one, two = f"{first}{VERSUS}{second}", sets[first], sets[second]
    spacing = rows.plan.settings.fine.difference
    central = rows.plan.target.name
    shift = quotient(wide(one, central), wide(two, central)) - 1
    moved = Quantity.of(shift, spacing)
    yield rows.on_axis(PAIR_CENTRAL, name, moved, rows.plan.truth_axis)
    if "sigma_tot" in one and "sigma_tot" in two:
        change = quotient(wide(one, "sigma_tot"), wide(two, "sigma_tot")) - 1
        yield from rows.histogram(PAIR_SIGMA, name, Quantity.of(change, spacing))
        yield from _fill_pair_planes(rows, name, one, two)


def _fill_pair_planes(rows: EvaluationSlab, name: str, one: Columns, two: Columns) -> Leaves:
    """Both sets' relative uncertainties and pulls in two dimensions, and their correlations."""
    fine, central = rows.plan.settings.fine, rows.plan.target.name
    relative = [quotient(wide(each, "sigma_tot"), wide(each, central)) for each in (two, one)]
    yield from _fill_pair_plane(
        rows, ("sigma_rel", name), relative, (fine.pair_relative, fine.rank)
    )
    if rows.plan.target.sigma in one and rows.plan.target.sigma in two:
        pulls = [_log_pull(rows, each, wide(each, central)) for each in (two, one)]
        yield from _fill_pair_plane(rows, ("t_log", name), pulls, (fine.pair_pull, fine.pull))


def _fill_pair_plane(
    rows: EvaluationSlab,
    names: tuple[str, str],
    values: list[FloatArray],
    spacings: tuple[Spacing, Spacing],
) -> Leaves:
    """Two quantities in two dimensions, and the moments of their correlation.

    The correlation is that of rows of which both lie within the second spacing: a single row far
    out could decide it.
    """
    (figure, name), (spacing, reach) = names, spacings
    across, up = values
    fine_bins = spacing.index(across), spacing.index(up)
    yield rows.plane(Key(PAIR_PLANES[figure], name, EVERYWHERE), *fine_bins, (spacing, spacing))
    known = [(each > reach.low) & (each < reach.high) for each in values]
    both = np.where(known[0] & known[1], 1.0, np.nan)
    sums = [across * both, up * both, (across + up) * both]
    bins = np.zeros(len(both), np.uint16)
    leaf = BinMoments.of_several(sums, bins=bins, num_bins=1, weights=rows.weights)
    yield Key(CORRELATIONS[figure], name, EVERYWHERE), leaf


def class_spacing(plan: EvaluationPlan) -> Spacing:
    """A fine bin for each combination of the classes that a row is in."""
    number = 2 ** len(plan.classes)
    return Spacing(scale="linear", low=0.0, high=float(number), cells=number)


def _classify(rows: EvaluationSlab) -> Int32Array:
    """Rows by their classes: bit i of the fine bin's number says that a row is in class i."""
    code = np.ones(len(rows.target), np.int32)
    for bit, conditions in enumerate(rows.plan.classes.values()):
        code[select(rows.table, rows.plan, conditions)] += 1 << bit
    return code


def _fill_ratio(rows: EvaluationSlab, name: str, ratio: FloatArray) -> Leaves:
    fine = rows.plan.settings.fine
    quantity = Quantity.of(ratio, fine.ratio)
    yield rows.on_axis(RATIO_ON_TRUTH, name, quantity, rows.plan.truth_axis)
    rows.profile(RATIO, name, quantity, around_one(fine.ratio))
    rows.ratios[name] = quantity
    yield from rows.histogram(RATIO_IN, name, quantity)
    low, high = rows.plan.settings.truncate
    yield rows.means(RATIO_MEANS, name, deviations(ratio, low, high))


def _fill_plane(rows: EvaluationSlab, name: str, values: FloatArray) -> None:
    if rows.plan.plane_axes:
        quantity = Quantity.of(values, rows.plan.plane)
        rows.add(PLANE, name, rows.plan.plane, quantity.fine_bins)


def _fill_map(rows: EvaluationSlab, name: str, chosen: FloatArray | None) -> Leaves:
    if (plan := rows.plan.map) is None:
        return
    distance = wide(rows.table, plan.distance)
    rapidity = wide(rows.table, plan.rapidity)
    if chosen is not None:
        distance = distance * chosen
    r = plan.r.index(distance / np.cosh(rapidity))
    z = plan.z.index(np.abs(distance * np.tanh(rapidity)))
    yield rows.plane(Key(MAP, name, EVERYWHERE), z, r, (plan.z, plan.r))


def _fill_window(rows: EvaluationSlab, name: str, columns: Columns) -> Leaves:
    """Where the clusters of very large uncertainty are, and what they look like (Fig. 14b)."""
    window = rows.plan.settings.sigma_window
    if window is None:
        return
    sigma = columns["sigma_tot"]
    inside = (sigma > window[0]) & (sigma < window[1])
    fine_bin = np.where(inside, np.int32(1), np.int32(UNSEEN))
    rows.add(WINDOW, name, Spacing(scale="linear", low=0, high=1, cells=1), fine_bin)
    yield from _fill_map(rows, name, np.where(inside, 1.0, np.nan))


def _fill_pulls(rows: EvaluationSlab, name: str, columns: Columns, central: FloatArray) -> Leaves:
    spacing = rows.plan.settings.fine.pull
    pull = quotient(central - rows.target, wide(columns, "sigma_tot"))
    yield from rows.histogram(PULL_LINEAR, name, Quantity.of(pull, spacing))
    if rows.plan.target.sigma in columns:
        quantity = Quantity.of(_log_pull(rows, columns, central), spacing)
        yield from rows.histogram(PULL_LOG, name, quantity)
        rows.profile(PULL, name, quantity, evenly(spacing, rows.plan.settings.fine.score_group))


def _log_pull(rows: EvaluationSlab, columns: Columns, central: FloatArray) -> FloatArray:
    """The pull of the transformed target, NaN where there is none."""
    target = rows.plan.target
    if target.transform == "log10":
        distance = np.log10(quotient(central, rows.target))
    else:
        distance = central - rows.target
    return quotient(distance, wide(columns, target.sigma))


def _fill_sigmas(
    rows: EvaluationSlab, name: str, columns: Columns, reference: Columns | None
) -> Leaves:
    fine = rows.plan.settings.fine
    for figure in SIGMAS:
        if figure.name in columns:
            leaf = FineHistogram.of(columns[figure.name], fine.sigma, weights=rows.weights)
            yield Key(figure, name, EVERYWHERE), leaf
    log = rows.plan.target.sigma
    if reference is not None and log in reference and log in columns:
        change = quotient(wide(columns, log), wide(reference, log))
        yield from rows.histogram(SIGMA_RATIO, name, Quantity.of(change, fine.relative))
