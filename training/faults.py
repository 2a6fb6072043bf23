"""What is told when a loss or gradient is not finite.

Shape letters: B rows of a batch, F features, C columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.formats.errors import UserError
from training.data.rows import Chunk
from training.data.training_data import TrainingData

EXTREME = 20.0  # of a scaled value, or of log10 of the target


class LossNotFiniteError(UserError):
    """The loss became infinite or NaN; the last good checkpoint is kept."""


def name_columns(
    data: TrainingData, batch: Chunk, rows: int, all_reduce: Callable[[Tensor], None]
) -> str:
    """Which columns have values that are not finite, or are extreme after scaling.

    Args:
        data: Knows the columns' names.
        batch: Holds this worker's rows of the batch first.
        rows: How many they are.
        all_reduce: Sums over all workers.
    """
    values_BC = torch.cat([batch.x_NF[:rows], batch.target_N[:rows, None]], dim=1)
    counts_C = (~(values_BC.abs() <= EXTREME)).sum(0, dtype=torch.float32)
    all_reduce(counts_C)
    found = [
        f"{name} ({count:.0f} rows)"
        for name, count in zip(data.columns, counts_C.tolist(), strict=True)
        if count
    ]
    if not found:
        return (
            f"all scaled values are finite and within {EXTREME:.0f}: lower optimizer.learning_rate"
        )
    return f"values not finite or beyond {EXTREME:.0f} after scaling: {', '.join(found)}"
