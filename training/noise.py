"""Normal numbers keyed by (seed, epoch, step, block of rows), made while the last step computes.

A block is 512 rows of the global batch. The numbers of a row depend on its place in the batch
alone, so they are the same for any number of workers and threads.

Shape letters: B rows of this worker, O outputs of a layer.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed

BLOCK_ROWS = 512


@dataclass(frozen=True)
class StepRows:
    """The rows of one global batch that one worker takes: whole blocks, the last may be short.

    Attributes:
        step: Number of the batch in its epoch.
        start: Place of the worker's first row in the epoch's permutation.
        rows: Rows of the worker; 0 where a short batch has fewer blocks than there are workers.
        first_block: Number of the worker's first block in the batch.
        batch_rows: Rows of the global batch.
    """

    step: int
    start: int
    rows: int
    first_block: int
    batch_rows: int


def plan_epoch(num_rows: int, batch_rows: int, rank: int, world_size: int) -> list[StepRows]:
    """The rows that worker `rank` takes of each batch; the last batch may be short."""
    steps = []
    for step, first in enumerate(range(0, num_rows, batch_rows)):
        rows = min(batch_rows, num_rows - first)
        blocks = -(-rows // BLOCK_ROWS)
        begin, end = rank * blocks // world_size, (rank + 1) * blocks // world_size
        low, high = min(begin * BLOCK_ROWS, rows), min(end * BLOCK_ROWS, rows)
        steps.append(StepRows(step, first + low, high - low, begin, rows))
    return steps


def fill_noise(buffers: Sequence[Tensor], seed: int, epoch: int, rows: StepRows) -> list[Tensor]:
    """Fill the first rows of each layer's buffer [B, O] with this step's numbers; their views."""
    views = [buffer_BO[: rows.rows] for buffer_BO in buffers]
    generator = torch.Generator(device=views[0].device)
    for first in range(0, rows.rows, BLOCK_ROWS):
        block = rows.first_block + first // BLOCK_ROWS
        generator.manual_seed(derive_seed(seed, "noise", epoch, rows.step, block))
        for view_BO in views:
            view_BO[first : first + BLOCK_ROWS].normal_(generator=generator)
    return views


def noise_of_epoch(
    seed: int,
    epoch: int,
    steps: Sequence[StepRows],
    buffers: tuple[Sequence[Tensor], Sequence[Tensor]],
    maker: Executor,
) -> Iterator[list[Tensor]]:
    """The noise of each step in turn, one step ahead of its use.

    Args:
        seed: Of the training.
        epoch: Counted from 0.
        steps: The worker's plan.
        buffers: Two sets of one [B, O] per layer, used in turn.
        maker: Runs one call at a time, in another thread or at once.
    """
    pending = maker.submit(fill_noise, buffers[0], seed, epoch, steps[0])
    for index in range(len(steps)):
        noise = pending.result()
        if index + 1 < len(steps):
            following = buffers[(index + 1) % 2]
            pending = maker.submit(fill_noise, following, seed, epoch, steps[index + 1])
        yield noise
