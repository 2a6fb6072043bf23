"""Which rows of a batch a worker takes, and normal numbers keyed by (seed, epoch, step, block).

A block is 512 rows of the global batch. The numbers of a row depend on its place in the batch
alone, so they are the same for any number of workers and threads.

Shape letters: B rows of this worker, O outputs of a layer, P pairs of sub-batches, W weights.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training.steps.normals import NoiseKey, fill_normals, normals_on_device

BLOCK_ROWS = 512
HALF_ROWS = BLOCK_ROWS // 2  # a counter makes the numbers of two rows that are this far apart
PAIR_ROWS = 256  # two sub-batches, with the weights mean + noise and mean - noise


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


def keys_of_epoch(seed: int, epoch: int, num_steps: int) -> Tensor:
    """The key of each step's noise, int32 [steps, 2]: two halves of 32 bits."""
    seeds = [derive_seed(seed, "noise", epoch, step) for step in range(num_steps)]
    return torch.from_numpy(np.array(seeds, dtype="<u8").view("<i4").reshape(-1, 2))


def fill_layer_noise(
    buffers: Sequence[Tensor], key: Tensor, first_block: int, rows: int
) -> list[Tensor]:
    """Fill the first rows of each layer's buffer [B, O] with one step's numbers; their views.

    Args:
        buffers: Float32, of whole blocks, on the device of the key.
        key: Of the step, int32 [2].
        first_block: Of the worker in the batch.
        rows: Of the worker.
    """
    blocks, widths = -(-rows // BLOCK_ROWS), [buffer_BO.shape[1] for buffer_BO in buffers]
    before = [HALF_ROWS * width for width in (0, *itertools.accumulate(widths))]
    first = first_block * before[-1]
    if key.device.type == "cpu":
        halves = _as_key(key)
        for buffer_BO, start in zip(buffers, before[:-1], strict=True):
            size = BLOCK_ROWS * buffer_BO.shape[1]
            flat = buffer_BO[:rows].view(-1).numpy()
            for block in range(blocks):
                part = flat[block * size : (block + 1) * size]
                fill_normals(part, halves, first + block * before[-1] + start, size // 2)
    else:
        counter = torch.arange(blocks * before[-1], dtype=torch.int32, device=key.device) + first
        both = torch.stack(normals_on_device(counter.view(blocks, -1), key), dim=1)
        for buffer_BO, start, end in zip(buffers, before[:-1], before[1:], strict=True):
            view = buffer_BO[: blocks * BLOCK_ROWS].view(blocks, 2, end - start)
            view.copy_(both[:, :, start:end])
    return [buffer_BO[:rows] for buffer_BO in buffers]


def fill_pair_noise(buffer_PW: Tensor, key: Tensor, first_pair: int, pairs: int) -> Tensor:
    """Fill the rows of the first pairs of sub-batches with one step's numbers; their view."""
    num_weights = buffer_PW.shape[1]
    half = -(-num_weights // 2)
    if key.device.type == "cpu":
        halves = _as_key(key)
        for pair, noise_W in enumerate(buffer_PW[:pairs].numpy()):
            fill_normals(noise_W, halves, (first_pair + pair) * half, half)
    else:
        counter = torch.arange(pairs * half, dtype=torch.int32, device=key.device)
        both = normals_on_device((counter + first_pair * half).view(pairs, half), key)
        buffer_PW[:pairs].copy_(torch.cat(both, dim=1)[:, :num_weights])
    return buffer_PW[:pairs]


def _as_key(key: Tensor) -> NoiseKey:
    low, high = key.tolist()
    return np.uint32(low & 0xFFFFFFFF), np.uint32(high & 0xFFFFFFFF)
