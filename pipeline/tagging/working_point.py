"""The score above which a cluster is tagged.

Shape letters: N rows.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.errors import UserError


def choose_threshold(
    score_N: NDArray[np.float32], weight_N: NDArray[np.float64], loss: float
) -> float:
    """The smallest score above which lies no more than a share of the weight of ordinary clusters.

    Args:
        score_N: Of ordinary clusters.
        weight_N: Theirs; single ones may be negative.
        loss: The share.

    Raises:
        UserError: There are no ordinary clusters, or their weights do not sum to more than 0.
    """
    total = float(weight_N.sum())
    if not total > 0.0:
        msg = (
            f"tag: the {len(score_N)} validation clusters without the label have weights that sum "
            f"to {total:g}; give dataset.split.validation a larger fraction"
        )
        raise UserError(msg)
    order_N = np.argsort(score_N, kind="stable")[::-1]
    sorted_N, above_N = score_N[order_N], np.cumsum(weight_N[order_N])
    # a threshold tags all clusters of a higher score: `above` of the last one of these counts
    is_last = np.append(sorted_N[1:] != sorted_N[:-1], True)
    too_much = np.flatnonzero(is_last & (above_N > loss * total))
    return float(sorted_N[too_much[0]])
