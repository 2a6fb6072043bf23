"""Streaming mean, standard deviation and range of many columns: `of` a block, `+`, read off.

Shape letters: C columns, N rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from pipeline.numerics.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of C columns over some rows, weighted with weights that are not negative.

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
    mean: FloatArray
    spread: FloatArray
    minimum: FloatArray
    maximum: FloatArray

    @classmethod
    def of(cls, columns: Sequence[FloatArray], weights_N: FloatArray | None = None) -> Self:
        """The moments of one block of rows.

        Args:
            columns: C columns [N].
            weights_N: Not negative; each row counts 1 if None.
        """
        num_rows = len(columns[0])
        # NumPy's own sums, not BLAS: their order depends on nothing but the length.
        total = float(num_rows) if weights_N is None else float(weights_N.sum())
        mean, spread = np.empty(len(columns)), np.empty(len(columns))
        for at, values in enumerate(columns):  # one by one, so that each stays in the cache
            weighted = values if weights_N is None else values * weights_N
            mean[at] = weighted.sum() / (total or 1.0)
            square = values - mean[at]
            square *= square
            spread[at] = (square if weights_N is None else square * weights_N).sum()
        return cls(
            count=num_rows,
            sum_of_weights=total,
            mean=mean,
            spread=spread,
            minimum=np.array([values.min(initial=np.inf) for values in columns]),
            maximum=np.array([values.max(initial=-np.inf) for values in columns]),
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


def merge_tables(
    one: "Mapping[str, SignedMoments]", other: "Mapping[str, SignedMoments]"
) -> "dict[str, SignedMoments]":
    """The moments, by table, of the rows of both."""
    return {table: moments + other[table] for table, moments in one.items()}


@dataclass(frozen=True, slots=True)
class SignedMoments:
    """Moments of C columns over rows whose weights may be negative.

    Rows of either sign are summed apart, each sum as stable as for positive weights; they meet
    when the result is read off.

    Attributes:
        plus: Rows with weights of zero or more.
        minus: Rows with negative weights, counted with their absolute values.
    """

    plus: Moments
    minus: Moments
    count: int = field(init=False)
    sum_of_weights: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", self.plus.count + self.minus.count)
        total = self.plus.sum_of_weights - self.minus.sum_of_weights
        object.__setattr__(self, "sum_of_weights", total)

    @classmethod
    def of(cls, columns: Sequence[FloatArray], weights_N: FloatArray | None = None) -> Self:
        """The moments of one block of rows, as Moments.of, with weights of any sign."""
        if weights_N is None:
            return cls(Moments.of(columns), Moments.of([values[:0] for values in columns]))
        is_minus = weights_N < 0
        plus = Moments.of([values[~is_minus] for values in columns], weights_N[~is_minus])
        minus = Moments.of([values[is_minus] for values in columns], -weights_N[is_minus])
        return cls(plus, minus)

    def __add__(self, other: "SignedMoments") -> "SignedMoments":
        return SignedMoments(self.plus + other.plus, self.minus + other.minus)

    @property
    def mean(self) -> FloatArray:
        """Weighted mean [C]; the weights must not sum to zero."""
        share = self.minus.sum_of_weights / self.sum_of_weights
        return self.plus.mean + (self.plus.mean - self.minus.mean) * share

    @property
    def std(self) -> FloatArray:
        """Standard deviation [C], divided by the sum of weights as scikit-learn does.

        NaN where negative weights make the variance negative.
        """
        share = self.minus.sum_of_weights / self.sum_of_weights
        step = self.plus.mean - self.minus.mean
        spread = self.plus.spread - self.minus.spread
        spread = spread - step**2 * (self.plus.sum_of_weights * share)
        with np.errstate(invalid="ignore"):
            return np.sqrt(spread / self.sum_of_weights)

    @property
    def minimum(self) -> FloatArray:
        """Smallest value of each of C columns."""
        return np.minimum(self.plus.minimum, self.minus.minimum)

    @property
    def maximum(self) -> FloatArray:
        """Largest value of each of C columns."""
        return np.maximum(self.plus.maximum, self.minus.maximum)
