"""Median, narrowest interval and their statistical errors of a finely binned distribution.

The search for quantiles and narrowest intervals of evenly filled bins is compiled.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from pipeline.numerics.arrays import FloatArray
from pipeline.numerics.compiled import exact_kernel

# A share of rows that is reached exactly, as 102 of 150, must not seem missed for the rounding of
# a sum: the next entry may be far away.
ROUNDING = 1e-12


@exact_kernel
def narrowest_interval(
    low: FloatArray, high: FloatArray, weights: FloatArray, content: float
) -> tuple[float, float, int, int]:
    """Ends of the narrowest interval with the given share, and the fine bins that hold them.

    The density is constant in each fine bin, so one end of a narrowest interval is at an edge:
    trying all lower edges as left ends and all upper edges as right ends is exact. The other end
    only moves up as the first does.

    Args:
        low: [C] lower edges, rising; C > 0.
        high: [C] upper edges.
        weights: [C] positive.
        content: Share of the weight.
    """
    after = np.cumsum(weights)
    fine_bins = low, high, weights, after
    one, two = _from_left(fine_bins, content), _from_right(fine_bins, content)
    return two if two[1] - two[0] < one[1] - one[0] else one


@exact_kernel
def _from_left(
    fine_bins: tuple[FloatArray, FloatArray, FloatArray, FloatArray], content: float
) -> tuple[float, float, int, int]:
    """The narrowest of the intervals that begin with a fine bin."""
    low, high, weights, after = fine_bins
    last = len(weights) - 1
    need, slack = content * after[last], ROUNDING * after[last]
    best, found, at = np.inf, (np.nan, np.nan, 0, 0), 0
    for i in range(len(weights)):
        amount = after[i] - weights[i] + need
        if not amount <= after[last] * (1 + ROUNDING):
            break
        while at < last and after[at] < amount - slack:
            at += 1
        end = _inside(low, high, weights, at, amount - (after[at] - weights[at]))
        if end - low[i] < best:
            best, found = end - low[i], (low[i], end, i, at)
    return found


@exact_kernel
def _from_right(
    fine_bins: tuple[FloatArray, FloatArray, FloatArray, FloatArray], content: float
) -> tuple[float, float, int, int]:
    """The narrowest of the intervals that end with a fine bin."""
    low, high, weights, after = fine_bins
    last = len(weights) - 1
    need, slack = content * after[last], ROUNDING * after[last]
    best, found, at = np.inf, (np.nan, np.nan, 0, 0), 0
    for i in range(len(weights)):
        amount = after[i] - need
        if not amount >= -slack:
            continue
        while at < last and after[at + 1] - weights[at + 1] <= amount + slack:
            at += 1
        start = _inside(low, high, weights, at, amount - (after[at] - weights[at]))
        if high[i] - start < best:
            best, found = high[i] - start, (start, high[i], at, i)
    return found


@exact_kernel
def quantile_of(
    low: FloatArray, high: FloatArray, weights: FloatArray, probability: float
) -> tuple[float, int]:
    """The smallest x below which the given share of the weight lies, and its fine bin; C > 0."""
    size = len(weights)
    after = np.cumsum(weights)
    amount = probability * after[size - 1]
    met = amount - ROUNDING * after[size - 1]
    at = min(np.searchsorted(after, met), size - 1)
    return _inside(low, high, weights, at, amount - (after[at] - weights[at])), at


@exact_kernel
def _inside(
    low: FloatArray, high: FloatArray, weights: FloatArray, at: int, amount: float
) -> float:
    share = min(max(amount / weights[at], 0.0), 1.0)
    return float(low[at] + share * (high[at] - low[at]))


@exact_kernel
def median_and_width(
    low: FloatArray, high: FloatArray, weights: FloatArray, content: float, effective_rows: float
) -> tuple[float, float, float, float, float, float, float]:
    """Median, its error, ends and width of the narrowest interval, its error and its bound; C > 0.

    The rank of the median has the standard deviation sqrt(n) / 2 whatever the density, n the
    effective rows: its error is half the distance of the quantiles at 0.5 -+ 0.5 / sqrt(n). The
    content c of an interval varies by d = sqrt(c (1 - c) / n), and the narrowest interval with
    content c +- d is as much wider or narrower: half of that is the width's error, for a Gaussian
    of width s and c = 0.68 it is 1.93 s / sqrt(n).
    """
    median, _ = quantile_of(low, high, weights, 0.5)
    shift = min(0.5 / np.sqrt(effective_rows), 0.5)
    above, _ = quantile_of(low, high, weights, 0.5 + shift)
    below, _ = quantile_of(low, high, weights, 0.5 - shift)
    left, right, first, last = narrowest_interval(low, high, weights, content)
    step = min(np.sqrt(content * (1 - content) / effective_rows), 1 - content)
    wide = narrowest_interval(low, high, weights, content + step)
    narrow = narrowest_interval(low, high, weights, content - step)
    error = ((wide[1] - wide[0]) - (narrow[1] - narrow[0])) / 2
    reach = high[first] - low[first], high[last] - low[last]
    bound = np.inf if min(reach) <= 0 else reach[0] + reach[1]
    return median, (above - below) / 2, left, right, right - left, error, bound


CONTENT = 0.68  # of the narrowest interval (arXiv 2412.04370, Eqs. 37 and 38)


class Estimates(NamedTuple):
    """Median and narrowest interval, with their errors and bounds.

    A bound is how far the estimate of the rows themselves may lie from the one given: infinite
    where it lies beyond the fine bins, NaN where negative weights made fine bins flow together.
    """

    median: float
    median_error: float
    median_bound: float
    left: float
    right: float
    width: float
    width_error: float
    width_bound: float


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """Occupied fine bins in rising order, taken as evenly filled.

    Against the exact order statistics a quantile is off by at most one fine bin's width and the
    width of the narrowest interval by at most two, since an entry never leaves its fine bin.

    Rows may have negative weights. The sum of weights below x, F, may then fall with x; it is
    replaced by the rising function next to it (least squares: isotonic regression), which has the
    same total and lies between the largest F below x and the smallest above. Where that moves F
    by more than its own statistical error, the root of the sum of w^2, or where the total is not
    positive, the weights define no distribution and all estimates are NaN.

    Attributes:
        low: [C] lower edges.
        high: [C] upper edges.
        weights: [C] of either sign.
        rows: Number of rows.
        squares: Sum of the rows' squared weights.
    """

    low: FloatArray
    high: FloatArray
    weights: FloatArray
    rows: int
    squares: float

    @property
    def effective_rows(self) -> float:
        """(sum w)^2 / sum w^2; 0 without rows."""
        return float(self.weights.sum()) ** 2 / self.squares if self.squares else 0.0

    def rising(self) -> "Distribution | None":
        """The same with positive weights only; None if there is no such distribution."""
        if not len(self.weights) or self.weights.sum() <= 0:
            return None
        if (self.weights > 0).all():
            return self
        below = np.cumsum(self.weights)
        total = below[-1]
        even = np.clip(isotonic_regression(below).x, 0.0, total)
        if np.abs(even - below).max() > math.sqrt(self.squares):
            return None
        weights = np.diff(even, prepend=0.0)
        keep = weights > ROUNDING * total
        return Distribution(self.low[keep], self.high[keep], weights[keep], self.rows, self.squares)

    def quantile(self, probability: float) -> float:
        """The smallest x below which the given share of the weight lies; NaN without rows."""
        rising = self.rising()
        if rising is None:
            return math.nan
        return float(quantile_of(rising.low, rising.high, rising.weights, probability)[0])

    def share_below(self, x: float) -> float:
        """The share of the weight below x; NaN where there is none."""
        total = float(self.weights.sum())
        if not total > 0:
            return math.nan
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        inside = np.where(self.high <= x, 1.0, np.clip((x - self.low) / width, 0.0, 1.0))
        return float((self.weights * inside).sum()) / total

    def estimates(self) -> Estimates | None:
        """Median and narrowest interval; None if there is no distribution.

        The exact median lies where the fine bins' F first reaches a half, with negative weights
        between there and where it does so for the last time.
        """
        rising = self.rising()
        if rising is None:
            return None
        median, median_error, *interval, bound = median_and_width(
            rising.low, rising.high, rising.weights, CONTENT, self.effective_rows
        )
        below = np.cumsum(self.weights)
        is_less = below < below[-1] * (0.5 - ROUNDING)
        first = int(np.argmin(is_less))
        last = len(is_less) - int(np.argmax(is_less[::-1])) if is_less.any() else first
        low, high = float(self.low[first]), float(self.high[last])
        reach = max(median - low, high - median) if low < high else math.inf
        bounds = reach, bound if rising is self else math.nan
        left, right, width, width_error = interval
        return Estimates(
            median, median_error, bounds[0], left, right, width, width_error, bounds[1]
        )

    def inverse(self) -> "Distribution":
        """The distribution of 1/x, from the same fine bins in the reverse order."""
        low, high = 1 / self.high[::-1], 1 / self.low[::-1]
        return Distribution(low, high, self.weights[::-1].copy(), self.rows, self.squares)

    def narrowest(self, content: float = CONTENT) -> tuple[float, float]:
        """Ends of the narrowest interval with the given share of the weight (Eq. 38).

        Both ends are NaN without rows.
        """
        rising = self.rising()
        if rising is None:
            return math.nan, math.nan
        left, right, _, _ = narrowest_interval(rising.low, rising.high, rising.weights, content)
        return float(left), float(right)

    def relative_resolution(self) -> tuple[float, float]:
        """sigma_rel = Q68 / (2 median) and its statistical error (Eqs. 17 and 39).

        The errors of width and median are added as if independent, as for symmetric densities.
        """
        found = self.estimates()
        if found is None:
            return math.nan, math.nan
        resolution = found.width / (2 * found.median)
        error = math.hypot(found.width_error / 2, resolution * found.median_error) / found.median
        return resolution, error
