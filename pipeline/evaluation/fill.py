"""The figures of one part's rows, as pairs of a key and an accumulator."""

from collections.abc import Iterator, Mapping

import numpy as np

from pipeline.evaluation.baseline import BaselineHistogram
from pipeline.evaluation.fine import FineHistogram
from pipeline.evaluation.rows import (
    BASELINE,
    COVERAGES,
    EVERYWHERE,
    TARGET,
    UNCALIBRATED,
    VERSUS,
    Columns,
    Key,
    Leaf,
    Rows,
)
from pipeline.evaluation.spacing import Floats, Spacing

Leaves = Iterator[tuple[Key, Leaf]]

SIGMAS = ("sigma_tot", "sigma_syst", "sigma_stat")


def fill_truth(rows: Rows) -> Leaves:
    """The uncalibrated scale, and the target itself against each axis."""
    yield from _fill_ratio(rows, UNCALIBRATED, rows.numerator / rows.denominator)
    yield from _fill_plane(rows, TARGET, rows.target)


def fill_set(rows: Rows, name: str, columns: Columns, reference: Columns | None) -> Leaves:
    """Everything about one calibrated set.

    Args:
        rows: The truth.
        name: Of the set.
        columns: Of the set; figures whose columns it lacks are left out.
        reference: The set to compare with; None if this is that set or there is none.
    """
    target = rows.plan.target
    central = _wide(columns, target.name)
    ratio = _wide(columns, target.calibrated) / rows.denominator
    yield from _fill_ratio(rows, name, ratio)
    yield from rows.mean_profile("delta_r", name, 1 / ratio - 1)
    yield from _fill_plane(rows, name, central)
    if "log_density" in columns:
        yield from _fill_scores(rows, name, columns, reference)
    if "sigma_tot" in columns:
        yield from _fill_pulls(rows, name, columns, central)
        yield from _fill_sigmas(rows, name, columns, reference)
    if "in_domain" in columns:
        yield from rows.moments("in_domain", name, columns["in_domain"])


def fill_baseline(rows: Rows, baseline: BaselineHistogram, reference: Columns | None) -> Leaves:
    """The negative log density of the baseline, and its excess over the reference's."""
    nll = -baseline.log_density(rows.numerator, rows.target)
    yield from rows.moments("nll", BASELINE, nll)
    if reference is not None and "log_density" in reference:
        yield from rows.moments("excess", BASELINE, nll + _wide(reference, "log_density"))


def fill_pair(rows: Rows, first: str, second: str, sets: Mapping[str, Columns]) -> Leaves:
    """Relative differences of two sets' uncertainties and central values (Fig. 11b)."""
    name, one, two = f"{first}{VERSUS}{second}", sets[first], sets[second]
    spacing = rows.plan.settings.fine.difference
    central = rows.plan.target.name
    shift = _quotient(_wide(one, central), _wide(two, central)) - 1
    yield from rows.profile("pair_central", name, spacing.index(shift), spacing)
    if "sigma_tot" in one and "sigma_tot" in two:
        change = _quotient(_wide(one, "sigma_tot"), _wide(two, "sigma_tot")) - 1
        yield from rows.histogram("pair_sigma", name, change, spacing)


def _fill_ratio(rows: Rows, name: str, ratio: Floats) -> Leaves:
    spacing = rows.plan.settings.fine.ratio
    yield from rows.profile("ratio", name, spacing.index(ratio), spacing)
    yield from rows.histogram("ratio_in", name, ratio, spacing)
    yield from rows.mean_profile("delta_e", name, ratio - 1)


def _fill_plane(rows: Rows, name: str, values: Floats) -> Leaves:
    spacing = rows.plan.plane
    yield from rows.profile("plane", name, spacing.index(values), spacing)


def _fill_scores(rows: Rows, name: str, columns: Columns, reference: Columns | None) -> Leaves:
    # Rows to which a density gives no weight at all have an infinite score; they are left out
    # of the mean, and counted: the moments then hold fewer rows than the population, for which
    # the summary has no score.
    nll = -_wide(columns, "log_density")
    yield from rows.moments("nll", name, nll)
    if reference is not None and "log_density" in reference:
        yield from rows.moments("excess", name, nll + _wide(reference, "log_density"))
    spacing = Spacing(scale="linear", low=0.0, high=1.0, cells=rows.plan.settings.fine.pit_cells)
    if "pit" in columns:
        # A value of exactly 1 belongs to the last cell, not beyond it.
        pit = np.minimum(_wide(columns, "pit"), np.nextafter(1.0, 0.0))
        yield from rows.histogram("pit", name, pit, spacing)
    for figure, (low, high, _) in COVERAGES.items():
        if low in columns and high in columns:
            inside = (rows.target >= columns[low]) & (rows.target <= columns[high])
            yield from rows.moments(figure, name, inside)


def _fill_pulls(rows: Rows, name: str, columns: Columns, central: Floats) -> Leaves:
    spacing = rows.plan.settings.fine.pull
    pull = _quotient(central - rows.target, _wide(columns, "sigma_tot"))
    yield from rows.histogram("t_tot", name, pull, spacing)
    if "sigma_tot_log10" in columns:
        distance = np.log10(_quotient(central, rows.target))
        log_pull = _quotient(distance, _wide(columns, "sigma_tot_log10"))
        yield from rows.histogram("t_log", name, log_pull, spacing)
        yield from rows.profile("pull", name, spacing.index(log_pull), spacing)


def _fill_sigmas(rows: Rows, name: str, columns: Columns, reference: Columns | None) -> Leaves:
    fine = rows.plan.settings.fine
    for figure in SIGMAS:
        if figure in columns:
            sigma = _wide(columns, figure)
            leaf = FineHistogram.of(sigma, fine.sigma, weights=rows.weights)
            yield Key(figure, name, EVERYWHERE), leaf
    log = "sigma_tot_log10"
    if reference is not None and log in reference and log in columns:
        change = _quotient(_wide(columns, log), _wide(reference, log))
        yield from rows.histogram("sigma_ratio", name, change, fine.relative)


def _quotient(above: Floats, below: Floats) -> Floats:
    """The quotient; NaN, which no histogram counts, where the divisor is not positive."""
    safe = np.where(below > 0, below, np.nan)
    return np.asarray(above / safe)


def _wide(columns: Columns, name: str) -> Floats:
    return np.asarray(columns[name], dtype=np.float64)
