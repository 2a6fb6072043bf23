"""Selection of one block of clusters: cuts that are counted, floors that are counted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.columns import Cut

Arrays = Mapping[str, NDArray[Any]]


def select(
    arrays: Arrays, cuts: Sequence[Cut], finite: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which rows are kept, and how many are left at each step of the cut flow.

    Args:
        arrays: Columns of equal length N.
        cuts: In order.
        finite: Columns that must be finite; the first step.

    Returns:
        keep [N], and counts [2 + cuts]: all rows, finite rows, rows after each cut.
    """
    num_rows = len(next(iter(arrays.values())))
    keep = np.ones(num_rows, dtype=bool)
    for name in finite:
        keep &= np.isfinite(arrays[name])
    counts = [num_rows, int(keep.sum())]
    for cut in cuts:
        keep &= cut.keeps(arrays[cut.column])
        counts.append(int(keep.sum()))
    return keep, np.array(counts, dtype=np.int64)


def raise_to_floor(values: NDArray[np.float32], floor: float) -> tuple[NDArray[np.float32], int]:
    """The values with those below the floor raised to it, and how many were."""
    is_below = values < np.float32(floor)
    return np.where(is_below, np.float32(floor), values), int(is_below.sum())
