"""What is measured of each row, where NumPy would pass several times over the rows; compiled."""

import numpy as np

from pipeline.numerics.compiled import exact_kernel
from pipeline.statistics.binning import Floats


@exact_kernel
def quotients(above: Floats, below: Floats) -> Floats:
    """The quotient of each row [N]; NaN where the divisor is not positive."""
    out = np.empty_like(above)
    for i in range(len(above)):
        out[i] = above[i] / below[i] if below[i] > 0.0 else np.nan
    return out


@exact_kernel
def deviations(ratios: Floats, low: float, high: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Of ratios [N]: ratio - 1, the same if between the bounds, 1 / ratio - 1, the same likewise.

    What is not between them is NaN.
    """
    first, second = np.empty_like(ratios), np.empty_like(ratios)
    third, fourth = np.empty_like(ratios), np.empty_like(ratios)
    for i in range(len(ratios)):
        one, two = ratios[i] - 1.0, 1.0 / ratios[i] - 1.0
        first[i], third[i] = one, two
        second[i] = one if low < one < high else np.nan
        fourth[i] = two if low < two < high else np.nan
    return first, second, third, fourth
