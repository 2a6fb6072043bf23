"""How the sigmas fall with the number of training rows N: fits, what they predict, how far.

Both have the form a (N / N_0)^-p + b with N_0 = 10^5 rows: sigma_stat with b = 0 unless the points
ask for more, sigma_syst constant (a = 0) unless the points ask for more. The first form that
describes the points, in this order, is taken.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, brentq, curve_fit
from scipy.stats import chi2

from pipeline.formats.seeds import generator

Values = NDArray[np.float64]
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
    values: Values
    covariance: Values
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

    def __call__(self, rows: float | Values) -> Values:
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


def curve_of(form: str) -> Callable[..., Values]:
    """The function of rows and the form's parameters."""

    def power(rows: Values, a: float, p: float) -> Values:
        return a * (rows / REFERENCE_ROWS) ** -p

    def with_floor(rows: Values, a: float, p: float, b: float) -> Values:
        return power(rows, a, p) + b

    def constant(rows: Values, b: float) -> Values:
        return np.full_like(rows, b)

    curves: dict[str, Callable[..., Values]] = {
        POWER: power,
        POWER_AND_FLOOR: with_floor,
        CONSTANT: constant,
    }
    return curves[form]


def _start(form: str, x: Values, y: Values) -> list[float]:
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
