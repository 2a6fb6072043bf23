"""Quantiles and narrowest intervals of evenly filled cells; compiled."""

import numpy as np

from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import Floats

# A share of rows that is reached exactly, as 102 of 150, must not seem missed for the rounding of
# a sum: the next entry may be far away.
ROUNDING = 1e-12


@exact_kernel
def narrowest_interval(
    low: Floats, high: Floats, weights: Floats, content: float
) -> tuple[float, float, int, int]:
    """Ends of the narrowest interval with the given share, and the cells that hold them.

    The density is constant in each cell, so one end of a narrowest interval is at a cell's edge:
    trying all lower edges as left ends and all upper edges as right ends is exact. The other end
    only moves up as the first does.

    Args:
        low: [C] lower edges, rising; C > 0.
        high: [C] upper edges.
        weights: [C] positive.
        content: Share of the weight.
    """
    after = np.cumsum(weights)
    cells = low, high, weights, after
    one, two = _from_left(cells, content), _from_right(cells, content)
    return two if two[1] - two[0] < one[1] - one[0] else one


@exact_kernel
def _from_left(
    cells: tuple[Floats, Floats, Floats, Floats], content: float
) -> tuple[float, float, int, int]:
    """The narrowest of the intervals that begin with a cell."""
    low, high, weights, after = cells
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
    cells: tuple[Floats, Floats, Floats, Floats], content: float
) -> tuple[float, float, int, int]:
    """The narrowest of the intervals that end with a cell."""
    low, high, weights, after = cells
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
    low: Floats, high: Floats, weights: Floats, probability: float
) -> tuple[float, int]:
    """The smallest x below which the given share of the weight lies, and its cell; C > 0."""
    size = len(weights)
    after = np.cumsum(weights)
    amount = probability * after[size - 1]
    met = amount - ROUNDING * after[size - 1]
    at = min(np.searchsorted(after, met), size - 1)
    return _inside(low, high, weights, at, amount - (after[at] - weights[at])), at


@exact_kernel
def _inside(low: Floats, high: Floats, weights: Floats, at: int, amount: float) -> float:
    share = min(max(amount / weights[at], 0.0), 1.0)
    return float(low[at] + share * (high[at] - low[at]))


@exact_kernel
def median_and_width(
    low: Floats, high: Floats, weights: Floats, content: float, effective_rows: float
) -> tuple[float, float, float, float, float, float, float]:
    """Median, its error, ends and width of the narrowest interval, its error and its bound.

    The same numbers as of the functions above, in one call; C > 0.
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
