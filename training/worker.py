"""One of the processes that share a training: its place, its device and its sum over all."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

CPU = torch.device("cpu")


def _keep(_summed: Tensor) -> None:
    """The sum over one worker."""


def sum_over_workers(world_size: int) -> Callable[[Tensor], None]:
    """What replaces a tensor by its sum over so many workers, in place.

    All workers call it together, in torch's process group: gloo on CPUs, NCCL on GPUs.
    """
    return _keep if world_size == 1 else _sum_over_group


def _sum_over_group(summed: Tensor) -> None:
    distributed.all_reduce(summed)


@dataclass(frozen=True)
class Worker:
    """One of the processes that share a training.

    Attributes:
        rank: Its number.
        world_size: How many there are.
        threads: Compute threads of each.
        device: Where it computes.
        fuse: Let torch compile what lies between the matrix products, on a GPU.
        all_reduce: Replaces a tensor by its sum over all workers, in place.
    """

    rank: int = 0
    world_size: int = 1
    threads: int = 1
    device: torch.device = CPU
    fuse: bool = False
    all_reduce: Callable[[Tensor], None] = _keep
