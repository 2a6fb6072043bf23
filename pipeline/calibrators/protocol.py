"""What `calibrate` and `apply` know of a model: rows in, the columns of a calibrated set out.

A density, a point estimate, quantiles, a table and a column of the input all answer to it, so that
neither the jobs nor the evaluation have a case for any of them.
"""

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.calibrated_set import Functionals
from pipeline.formats.columns import Target
from pipeline.formats.ragged import every_element
from pipeline.numerics.arrays import BoolArray, Columns, FloatArray

Ranges = Mapping[str, tuple[float, float]]


class Calibrator(Protocol):
    """Anything that turns rows into the columns of a calibrated set."""

    @property
    def target(self) -> Target:
        """What is predicted."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that it needs besides the target's numerator."""

    @property
    def ranges(self) -> Ranges:
        """By input: the training range; rows outside it are not `in_domain`."""

    @property
    def functionals(self) -> Functionals:
        """What the central value and the sigmas are."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `calibrate` always gives, in the order of `calibrated_columns`."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Those that it gives with truth; only a density has any."""

    @property
    def slabs_at_once(self) -> int:
        """Slabs of rows that go into one call: more than one where a row needs little memory."""

    def scoring_crps(self, share: float) -> "Calibrator":
        """The same calibrator, which gives the CRPS of this share of the rows if it has one."""

    def calibrate(self, rows: Columns, truth: FloatArray | None = None) -> Columns:
        """The columns of a calibrated set for N rows, and flags `*_at_bound` if there are any.

        Args:
            rows: The inputs and the target's numerator [N].
            truth: The transformed true target [N], for scores of a density; None without truth.
        """


class PointEstimate:
    """What all calibrators have in common that give one value a row and no density."""

    __slots__ = ()

    target: Target

    @property
    def functionals(self) -> Functionals:
        """Which functional of a density it is nearest to is not known here."""
        return Functionals("point")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of central value, calibrated value and domain flag."""
        return (self.target.name, self.target.calibrated, "in_domain")

    @property
    def scores(self) -> tuple[str, ...]:
        """No scores: a proper score of a row needs a density."""
        return ()

    @property
    def slabs_at_once(self) -> int:
        """One: a network's layers fill the cache."""
        return 1

    def scoring_crps(self, share: float) -> Self:
        """Itself: only a density has a CRPS."""
        del share
        return self


def calibrated_pair(target: Target, rows: Columns, central: NDArray[Any]) -> Columns:
    """The central value [N] and the calibrated value that follows from it (Eq. 6), as float32."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a prediction of 0 calibrates to infinity
        calibrated = target.calibrate(rows, central)
    return {
        target.name: central.astype(np.float32),
        target.calibrated: calibrated.astype(np.float32),
    }


def is_inside(rows: Columns, ranges: Ranges) -> BoolArray:
    """Whether every listed column of N rows lies within its range."""
    inside = np.ones(len(next(iter(rows.values()))), dtype=bool)
    for name, (low, high) in ranges.items():
        inside &= every_element(rows[name], lambda v, low=low, high=high: (v >= low) & (v <= high))
    return inside
