"""Streaming mean, standard deviation and range of many columns: `of` a block, `+`, read off."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Weighted moments of C columns over some rows.

    `spread` is the weighted sum of squared deviations from the mean; merging keeps deviations
    instead of sums of squares, since those cancel (Chan, Golub, LeVeque 1979).

    Attributes:
        count: Number of rows.
        sum_of_weights: Their weights' sum.
        mean: [C].
        spread: [C].
        minimum: [C]; +inf without rows.
        maximum: [C]; -inf without rows.
    """

    count: int
    sum_of_weights: float
    mean: Values
    spread: Values
    minimum: Values
    maximum: Values

    @classmethod
    def of(cls, values_NC: Values, weights_N: Values) -> Self:
        """The moments of one block of rows; of no rows, the identity of `+`."""
        num_columns = values_NC.shape[1]
        total = float(weights_N.sum())
        if len(values_NC) == 0 or total == 0.0:
            zero = np.zeros(num_columns)
            return cls(len(values_NC), 0.0, zero, zero, zero + np.inf, zero - np.inf)
        mean = weights_N @ values_NC / total
        spread = weights_N @ (values_NC - mean) ** 2
        return cls(
            len(values_NC), total, mean, spread, values_NC.min(axis=0), values_NC.max(axis=0)
        )

    def __add__(self, other: "Moments") -> "Moments":
        total = self.sum_of_weights + other.sum_of_weights
        share = other.sum_of_weights / total if total else 0.0
        step = other.mean - self.mean
        return Moments(
            count=self.count + other.count,
            sum_of_weights=total,
            mean=self.mean + step * share,
            spread=self.spread + other.spread + step**2 * (self.sum_of_weights * share),
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
        )

    @property
    def std(self) -> Values:
        """Standard deviation [C], divided by the sum of weights as scikit-learn does."""
        if self.sum_of_weights == 0.0:
            return np.zeros_like(self.spread)
        return np.sqrt(self.spread / self.sum_of_weights)
