"""How the sigmas fall with the number of training rows N: fits, what they predict, how far.

Both have the form a (N / N_0)^-p + b with N_0 = 10^5 rows: sigma_stat with b = 0 unless the points
ask for more, sigma_syst constant (a = 0) unless the points ask for more. The first form that
describes the points, in this order, is taken.

The fits become a table that says what ten times the data would bring.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.optimize import OptimizeWarning, brentq, curve_fit
from scipy.stats import chi2

from pipeline.formats.seeds import generator
from pipeline.numerics.arrays import FloatArray
from pipeline.training_size.points import MEANS

REFERENCE_ROWS = 1e5
POWER, POWER_AND_FLOOR, CONSTANT = "a (N/1e5)^-p", "a (N/1e5)^-p + b", "b"
FALLING = (POWER, POWER_AND_FLOOR)  # what sigma_stat is tried with
FLAT = (CONSTANT, POWER_AND_FLOOR)  # what sigma_syst is tried with
NAMES = {POWER: ("a", "p"), POWER_AND_FLOOR: ("a", "p", "b"), CONSTANT: ("b",)}
DESCRIBES = 0.05  # p-value from which on a form describes the points
DRAWS = 1000
FARTHEST = 1e6  # times the largest size: where a crossing is looked for
FEWEST_SIZES = 3


@dataclass(frozen=True)
class Fit:
    """A form that was fitted to the points.

    Attributes:
        form: Which one.
        values: Of its parameters, in the order of NAMES.
        covariance: Of the parameters.
        chi2: Sum of squared deviations over errors; None where the points have no errors.
        ndf: Points less parameters.
    """

    form: str
    values: FloatArray
    covariance: FloatArray
    chi2: float | None
    ndf: int

    @property
    def p_value(self) -> float | None:
        """Chance of a larger chi2; None without errors."""
        return None if self.chi2 is None else float(chi2.sf(self.chi2, self.ndf))

    @property
    def is_determined(self) -> bool:
        """Whether the points fix all parameters."""
        return bool(np.isfinite(self.covariance).all())

    @property
    def warning(self) -> str:
        """What a reader has to know before using it; empty if nothing."""
        if not self.is_determined:
            return "the points do not fix all parameters"
        if self.p_value is None:
            return "the points have no errors (one training each), so the fit cannot be judged"
        if self.p_value < DESCRIBES:
            return (
                f"the fit does not describe the points: chi2 / ndf = {self.chi2:.3g} / {self.ndf}, "
                f"p = {self.p_value:.2g}"
            )
        return ""

    def __call__(self, rows: float | FloatArray) -> FloatArray:
        """The fitted value for a number of training rows."""
        return curve_of(self.form)(np.asarray(rows, np.float64), *self.values)

    def error_at(self, rows: float) -> float:
        """The error of the fitted value, from the covariance of the parameters."""
        steps = np.sqrt(np.diag(self.covariance)) * 1e-3 + 1e-12
        gradient = [
            (self._shifted(k, step)(rows) - self._shifted(k, -step)(rows)) / (2.0 * step)
            for k, step in enumerate(steps)
        ]
        return float(np.sqrt(np.array(gradient) @ self.covariance @ np.array(gradient)))

    def _shifted(self, number: int, step: float) -> "Fit":
        values = self.values.copy()
        values[number] += step
        return Fit(self.form, values, self.covariance, self.chi2, self.ndf)


def fit_sizes(
    rows: Sequence[float],
    values: Sequence[float],
    errors: Sequence[float] | None,
    forms: Sequence[str],
) -> Fit | None:
    """The first form that describes the points, or the last one that they fix.

    Points without errors cannot choose: sigma_stat gets the plain power, sigma_syst all parameters.

    Args:
        rows: Numbers of training rows.
        values: One for each.
        errors: Of the values; None where they are not known.
        forms: To be tried, in this order.

    Returns:
        None for fewer than three points, or where no form with fewer parameters could be fitted.
    """
    if len(rows) < FEWEST_SIZES:
        return None
    wanted = forms if errors is not None else [POWER if POWER in forms else forms[-1]]
    fitting = [form for form in wanted if len(NAMES[form]) < len(rows)]
    tried = [fit_form(rows, values, errors, form) for form in fitting]
    found = [fit for fit in tried if fit is not None]
    good = [fit for fit in found if not fit.warning]
    determined = [fit for fit in found if fit.is_determined]
    return next(iter([*good, *determined[::-1], *found]), None)


def fit_form(
    rows: Sequence[float], values: Sequence[float], errors: Sequence[float] | None, form: str
) -> Fit | None:
    """One form, fitted by least squares; None where the search does not end."""
    x, y = np.asarray(rows, np.float64), np.asarray(values, np.float64)
    sigma = None if errors is None else np.asarray(errors, np.float64)
    curve = curve_of(form)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # told by is_determined
            found, covariance = curve_fit(
                curve,
                x,
                y,
                p0=_start(form, x, y),
                sigma=sigma,
                absolute_sigma=sigma is not None,
                bounds=_bounds(form),
                maxfev=20_000,
            )
    except RuntimeError:
        return None
    deviation = (y - curve(x, *found)) / (1.0 if sigma is None else sigma)
    chi2_ = None if sigma is None else float(deviation @ deviation)
    return Fit(form, found, covariance, chi2_, len(x) - len(found))


def rows_where_negligible(
    stat: Fit, syst: Fit, share: float, largest: float
) -> tuple[float, float, float] | None:
    """Where sigma_stat falls below a share of sigma_syst: rows, and their 68 per cent interval.

    The interval is from parameters drawn with their covariance; its upper end is infinite where
    more than one in six of them never fall so low. None where the fits themselves do not.
    """
    found = _crossing(stat, syst, share, largest)
    if found is None:
        return None
    rng = generator(0, "rows where negligible")
    crossings = []
    for a, b in zip(_draws(stat, rng), _draws(syst, rng), strict=True):
        crossing = _crossing(a, b, share, largest)
        crossings.append(np.inf if crossing is None else crossing)
    low, high = np.quantile(crossings, [0.16, 0.84], method="nearest")
    return found, float(low), float(high)


def _draws(fit: Fit, rng: np.random.Generator) -> list[Fit]:
    drawn = rng.multivariate_normal(fit.values, fit.covariance, DRAWS, method="eigh")
    return [Fit(fit.form, values, fit.covariance, fit.chi2, fit.ndf) for values in drawn]


def _crossing(stat: Fit, syst: Fit, share: float, largest: float) -> float | None:
    def excess(log_rows: float) -> float:
        rows = 10.0**log_rows
        return float(stat(rows) - share * syst(rows))

    low, high = 0.0, float(np.log10(largest * FARTHEST))
    if excess(low) <= 0.0 or excess(high) >= 0.0:
        return None if excess(high) >= 0.0 else 1.0
    return float(10.0 ** brentq(excess, low, high))


def curve_of(form: str) -> Callable[..., FloatArray]:
    """The function of rows and the form's parameters."""

    def power(rows: FloatArray, a: float, p: float) -> FloatArray:
        return a * (rows / REFERENCE_ROWS) ** -p

    def with_floor(rows: FloatArray, a: float, p: float, b: float) -> FloatArray:
        return power(rows, a, p) + b

    def constant(rows: FloatArray, b: float) -> FloatArray:
        return np.full_like(rows, b)

    curves: dict[str, Callable[..., FloatArray]] = {
        POWER: power,
        POWER_AND_FLOOR: with_floor,
        CONSTANT: constant,
    }
    return curves[form]


def _start(form: str, x: FloatArray, y: FloatArray) -> list[float]:
    if form == CONSTANT:
        return [float(y.mean())]
    if form == POWER:
        slope, at = np.polyfit(np.log(x / REFERENCE_ROWS), np.log(np.abs(y) + 1e-300), 1)
        return [float(np.exp(at)), float(-slope)]
    floor = float(0.9 * y[np.argmax(x)])
    fall = float(y[np.argmin(x)]) - floor
    return [fall * (float(x.min()) / REFERENCE_ROWS) ** 0.5, 0.5, floor]


def _bounds(form: str) -> tuple[list[float], list[float]]:
    """A floor is not negative and a power falls; what is left of it may rise to the floor."""
    free = np.inf
    return {
        CONSTANT: ([-free], [free]),
        POWER: ([-free, -5.0], [free, 5.0]),
        POWER_AND_FLOOR: ([-free, 0.0, 0.0], [free, 5.0, free]),
    }[form]


MORE = 10  # times the largest sample: what is predicted
STAT, SYST, REAL = "sigma_stat{}_median", "sigma_syst{}_median", "spread_over_samples{}"
FORMS = {STAT: FALLING, REAL: FALLING, SYST: FLAT}

PointRow = Mapping[str, Any]


def fit_table(sizes: Sequence[PointRow], negligible: float) -> pa.Table:
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


def _fit(steps: Sequence[PointRow], name: str, forms: Sequence[str]) -> Fit | None:
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
    fits: Mapping[str, Fit | None], negligible: float, steps: Sequence[PointRow]
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
