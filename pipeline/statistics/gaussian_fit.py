"""A Gaussian with a common mean and two widths, fitted to the core of a histogram."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtr

from pipeline.numerics.arrays import FloatArray
from pipeline.statistics.histogram import FineHistogram

BINS_PER_WIDTH = 10  # display bins in a half width of the core
WINDOW = 1.5  # half widths on either side that the fit sees; tails are no Gaussian's
MIN_EFFECTIVE_ROWS = 200.0
ROUNDS = 4


@dataclass(frozen=True, slots=True)
class CoreFit:
    """A fitted two-sided Gaussian (arXiv 2412.04370, Figs. 11b and 12b).

    Attributes:
        mean: Common mean; the peak.
        left: Width below the mean.
        right: Width above it.
        mean_error: Statistical, from the curvature; likewise the next two.
        left_error: Of the left width.
        right_error: Of the right width.
        height: Density of the histogram's total weight at the mean.
        low: Lower end of the fitted window.
        high: Upper end.
    """

    mean: float
    left: float
    right: float
    mean_error: float
    left_error: float
    right_error: float
    height: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Mean of the widths left and right of the peak."""
        return (self.left + self.right) / 2


def fit_core(histogram: FineHistogram) -> CoreFit | None:
    """The fit to an inclusive histogram on a linear spacing.

    The Poisson deviance of bins about a tenth of the core's half width is minimised; bins are
    integrated, so that their width does not enter. The window of 1.5 half widths on either
    side follows the fit until it stands still.

    Returns:
        None if there are too few rows for a core, or the fit fails or runs to a bound.
    """
    distribution = histogram.distribution()
    if distribution.effective_rows < MIN_EFFECTIVE_ROWS:
        return None
    left, right = distribution.narrowest(0.4)  # around the peak, whatever the tails
    if right <= left:
        return None
    group = max(1, round((right - left) / BINS_PER_WIDTH / histogram.spacing.resolution))
    edges, _, weights, squares = histogram.rebinned(group)
    # Rows of unit weight with the same power, so that the deviance and its curvature are right.
    scale = weights.sum() / squares.sum() if squares.sum() else 1.0
    start = np.array([(left + right) / 2, np.log(right - left), np.log(right - left)])
    return _follow(edges, weights * scale, start, 1 / scale, float(distribution.weights.sum()))


def _follow(
    edges: FloatArray, counts: FloatArray, shape: FloatArray, unit: float, total: float
) -> CoreFit | None:
    parameters = np.array([*shape, np.log(max(counts.max(), 1.0) / (edges[1] - edges[0]))])
    bounds = _bounds(parameters)
    for _ in range(ROUNDS):
        window = _window(edges, parameters)
        if window.stop - window.start < 5:
            return None
        inside, seen = edges[window.start : window.stop + 1], counts[window]
        fit = least_squares(_deviance, parameters, bounds=bounds, args=(inside, seen))
        if not fit.success or (fit.active_mask != 0).any():
            return None
        parameters = fit.x
    errors = np.sqrt(np.diag(np.linalg.pinv(fit.jac.T @ fit.jac)))
    mean, (left, right) = float(parameters[0]), np.exp(parameters[1:3]).tolist()
    return CoreFit(
        mean=mean,
        left=left,
        right=right,
        mean_error=float(errors[0]),
        left_error=left * float(errors[1]),
        right_error=right * float(errors[2]),
        height=float(np.exp(parameters[3]) * unit / total),
        low=float(inside[0]),
        high=float(inside[-1]),
    )


def _bounds(start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A core near the start: mean within four half widths, widths and height within e^3."""
    reach = np.array([4 * np.exp(start[1]), 3.0, 3.0, 3.0])
    return start - reach, start + reach


def _window(edges: FloatArray, parameters: FloatArray) -> slice:
    low = parameters[0] - WINDOW * np.exp(parameters[1])
    high = parameters[0] + WINDOW * np.exp(parameters[2])
    start, stop = np.searchsorted(edges, [low, high])
    return slice(max(int(start) - 1, 0), min(int(stop), len(edges) - 1))


def _deviance(parameters: FloatArray, edges: FloatArray, counts: FloatArray) -> FloatArray:
    """Signed square roots of the bins' Poisson deviances; their squares' sum is minimised."""
    expected = np.maximum(np.diff(_integral(edges, parameters)), 1e-9)
    ratio = np.where(counts > 0, counts, 1.0) / expected
    deviance = 2 * (expected - counts + np.where(counts > 0, counts * np.log(ratio), 0.0))
    return np.asarray(np.sign(counts - expected) * np.sqrt(np.maximum(deviance, 0.0)))


def _integral(x: FloatArray, parameters: FloatArray) -> FloatArray:
    """Integral of the two-sided Gaussian from its mean to x."""
    width = np.exp(np.where(x < parameters[0], parameters[1], parameters[2]))
    area = np.sqrt(2 * np.pi) * width * np.exp(parameters[3])
    return np.asarray(area * (ndtr((x - parameters[0]) / width) - 0.5))
