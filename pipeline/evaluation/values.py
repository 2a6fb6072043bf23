"""Columns of a calibrated set as numbers to reckon with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.deviations import quotients
from pipeline.evaluation.rows import Columns
from pipeline.statistics.binning import Floats


def wide(columns: Columns, name: str) -> Floats:
    """A column [N] in float64."""
    return np.ascontiguousarray(columns[name], np.float64)


def quotient(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """The quotient; NaN, which no histogram counts, where the divisor is not positive."""
    return quotients(*(np.ascontiguousarray(each, np.float64) for each in (above, below)))
