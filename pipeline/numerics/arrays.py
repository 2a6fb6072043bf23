"""The array types that modules share, so that one name means one thing.

Letters in brackets in docstrings give the shape: [N] is a row, [N, F] a row and a feature.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
RealArray = NDArray[np.floating]  # float32 or float64
IntArray = NDArray[np.int64]
Int32Array = NDArray[np.int32]
BoolArray = NDArray[np.bool_]

# By name: the values [N] of N rows. A column of lists is a `formats.ragged.Ragged`, which is
# indexed as an array is.
Columns = dict[str, NDArray[Any]]
