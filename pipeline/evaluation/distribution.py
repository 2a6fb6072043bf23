"""Median, narrowest interval and their statistical errors of a finely binned distribution."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.spacing import Floats

CONTENT = 0.68  # of the narrowest interval (arXiv 2412.04370, Eqs. 37 and 38)

# A share of rows that is reached exactly, as 102 of 150, must not seem missed for the rounding of
# a sum: the next entry may be far away.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """Occupied cells in rising order, taken as evenly filled.

    Against the exact order statistics a quantile is off by at most one cell's width and the
    width of the narrowest interval by at most two, since an entry never leaves its cell.

    Attributes:
        low: [C] lower edges.
        high: [C] upper edges.
        weights: [C] positive.
        rows: Number of rows.
        squares: Sum of the rows' squared weights.
    """

    low: Floats
    high: Floats
    weights: Floats
    rows: int
    squares: float

    @property
    def effective_rows(self) -> float:
        """(sum w)^2 / sum w^2; 0 without rows."""
        return float(self.weights.sum()) ** 2 / self.squares if self.squares else 0.0

    def quantile(self, probability: float) -> float:
        """The smallest x below which the given share of the weight lies; NaN without rows."""
        if not len(self.weights):
            return math.nan
        return float(self._upper(np.array([probability * self.weights.sum()]))[0])

    def narrowest(self, content: float = CONTENT) -> tuple[float, float]:
        """Ends of the narrowest interval with the given share of the weight (Eq. 38).

        The density is constant in each cell, so one end of a narrowest interval is at a cell's
        edge: trying all lower edges as left ends and all upper edges as right ends is exact.
        Both ends are NaN without rows.
        """
        if not len(self.weights):
            return math.nan, math.nan
        after = np.cumsum(self.weights)
        before = after - self.weights
        need = content * after[-1]
        starts = before + need <= after[-1] * (1 + ROUNDING)
        stops = after - need >= -ROUNDING * after[-1]
        left = np.concatenate([self.low[starts], self._lower(after[stops] - need)])
        right = np.concatenate([self._upper(before[starts] + need), self.high[stops]])
        best = int(np.argmin(right - left))
        return float(left[best]), float(right[best])

    def width(self, content: float = CONTENT) -> float:
        """Width of the narrowest interval, Q68 by default (Eq. 37)."""
        left, right = self.narrowest(content)
        return right - left

    @property
    def median_error(self) -> float:
        """Half the distance of the quantiles at 0.5 -+ 0.5 / sqrt(n), n the effective rows.

        The rank of the median has the standard deviation sqrt(n) / 2 whatever the density.
        """
        shift = min(0.5 / np.sqrt(self.effective_rows), 0.5)
        return (self.quantile(0.5 + shift) - self.quantile(0.5 - shift)) / 2

    @property
    def width_error(self) -> float:
        """Statistical error of Q68: half the change of width over the error of its content.

        The content of an interval varies by d = sqrt(0.68 x 0.32 / n); the narrowest interval
        with content 0.68 +- d is as much wider or narrower. For a Gaussian of width s this is
        1.93 s / sqrt(n).
        """
        shift = np.sqrt(CONTENT * (1 - CONTENT) / self.effective_rows)
        shift = min(float(shift), 1 - CONTENT)
        return (self.width(CONTENT + shift) - self.width(CONTENT - shift)) / 2

    def relative_resolution(self) -> tuple[float, float]:
        """sigma_rel = Q68 / (2 median) and its statistical error (Eqs. 17 and 39).

        The errors of width and median are added as if independent, as for symmetric densities.
        """
        if not len(self.weights):
            return math.nan, math.nan
        median = self.quantile(0.5)
        resolution = self.width() / (2 * median)
        error = math.hypot(self.width_error / 2, resolution * self.median_error) / median
        return resolution, error

    def _upper(self, amounts: Floats) -> Floats:
        """The smallest x below which these amounts of weight lie."""
        after = np.cumsum(self.weights)
        met = amounts - ROUNDING * after[-1]
        cell = np.minimum(np.searchsorted(after, met, side="left"), len(after) - 1)
        return self._inside(cell, amounts - (after - self.weights)[cell])

    def _lower(self, amounts: Floats) -> Floats:
        """The largest x below which these amounts of weight lie."""
        before = np.cumsum(self.weights) - self.weights
        met = amounts + ROUNDING * self.weights.sum()
        cell = np.maximum(np.searchsorted(before, met, side="right") - 1, 0)
        return self._inside(cell, amounts - before[cell])

    def _inside(self, cell: np.ndarray, amount: Floats) -> Floats:
        share = np.clip(amount / self.weights[cell], 0.0, 1.0)
        return np.asarray(self.low[cell] + share * (self.high - self.low)[cell])
