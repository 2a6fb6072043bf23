"""The fits of a scaling study as a table: what ten times the data would bring, and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.training_size.fits import FALLING, FLAT, NAMES, Fit, fit_sizes, rows_where_negligible
from pipeline.training_size.points import MEANS

MORE = 10  # times the largest sample: what is predicted
STAT, SYST, REAL = "sigma_stat{}_median", "sigma_syst{}_median", "spread_over_samples{}"
FORMS = {STAT: FALLING, REAL: FALLING, SYST: FLAT}

Row = Mapping[str, Any]


def fit_table(sizes: Sequence[Row], negligible: float) -> pa.Table:
    """A row for each ladder and quantity that has three sizes or more.

    Args:
        sizes: Rows of the table `scaling`.
        negligible: Share of sigma_syst.

    Returns:
        Form and parameters with errors, chi2, p-value and what is wrong with the fit if anything;
        the value at ten times the largest sample; for sigma_stat the training rows from which on
        it is below that share of sigma_syst, with their 68 per cent interval (infinite where it
        cannot be told).
    """
    rows: list[dict[str, Any]] = []
    for ladder in dict.fromkeys(row["ladder"] for row in sizes):
        steps = [row for row in sizes if row["ladder"] == ladder]
        for suffix in MEANS:
            fits = {name: _fit(steps, name.format(suffix), FORMS[name]) for name in FORMS}
            rows += [
                {
                    "ladder": ladder,
                    "quantity": name.format(suffix).removesuffix("_median"),
                    **_described(fit, max(row["rows"] for row in steps)),
                    **(_reach(fits, negligible, steps) if name == STAT else {}),
                }
                for name, fit in fits.items()
                if fit is not None
            ]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _fit(steps: Sequence[Row], name: str, forms: Sequence[str]) -> Fit | None:
    known = [row for row in steps if row.get(name) is not None]
    values = [row[name] for row in known]
    errors = [row.get(f"{name}_error") for row in known]
    counts = [row["rows"] for row in known]
    return fit_sizes(counts, values, pooled(values, errors), forms)


def pooled(values: Sequence[float], errors: Sequence[float | None]) -> list[float] | None:
    """The points' errors with one relative size, the root of the mean square of those given.

    Each is from a few trainings, so that one is often far too small by chance. None if fewer than
    half of the points have an error.
    """
    relative = [e / abs(v) for v, e in zip(values, errors, strict=True) if e is not None and v]
    if 2 * len(relative) <= len(values) or not any(relative):
        return None
    size = float(np.sqrt(np.mean(np.square(relative))))
    return [size * abs(value) for value in values]


def _described(fit: Fit, largest: int) -> dict[str, Any]:
    errors = np.sqrt(np.diag(fit.covariance)) if fit.is_determined else [None] * len(fit.values)
    return {
        "form": fit.form,
        **{name: float(value) for name, value in zip(NAMES[fit.form], fit.values, strict=True)},
        **{
            f"{name}_error": None if error is None else float(error)
            for name, error in zip(NAMES[fit.form], errors, strict=True)
        },
        "chi2": fit.chi2,
        "ndf": fit.ndf,
        "p_value": fit.p_value,
        "warning": fit.warning,
        "predicted_rows": MORE * largest,
        "predicted": float(fit(float(MORE * largest))),
        "predicted_error": fit.error_at(float(MORE * largest)) if fit.is_determined else None,
    }


def _reach(
    fits: Mapping[str, Fit | None], negligible: float, steps: Sequence[Row]
) -> dict[str, Any]:
    stat, syst = fits[STAT], fits[SYST]
    if stat is None or syst is None or not (stat.is_determined and syst.is_determined):
        return {}
    largest = float(max(row["rows"] for row in steps))
    found = rows_where_negligible(stat, syst, negligible, largest)
    reach = {"negligible_share": negligible}
    if found is None:
        return reach
    names = ("negligible_rows", "negligible_rows_low", "negligible_rows_high")
    return reach | dict(zip(names, found, strict=True))
