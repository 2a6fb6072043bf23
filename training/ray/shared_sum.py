"""Sums over the workers of one machine, through memory that they share.

gloo sends through sockets and a thread of its own, which takes two to three milliseconds for the
gradient of a Bayesian network on a virtual machine: a third of a step of two workers. In shared
memory the same takes as long as the copies.
"""

import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed

from training.worker import keep

MEMORY = Path("/dev/shm")  # noqa: S108 - for files that only their owner can open
SLOT_BYTES = 2**20  # of each worker; longer tensors go piece by piece
LINE = 8  # integers of a cache line, so that no two workers write into the same
# Where others see stores in the order in which they were made: a count tells of what is before.
ORDERED = {"x86_64", "amd64"}
SPIN_SECONDS = 0.002  # that a worker waits without sleeping: most steps take all equally long
SLEEP_SECONDS = 5e-5
LOOK_SECONDS = 1.0  # between two looks whether the others are alive


def sum_over_workers(rank: int, world_size: int, device: torch.device) -> Callable[[Tensor], None]:
    """What replaces a tensor by its sum over all workers, in place.

    All workers call this together, in torch's process group. Those of one machine that compute on
    CPUs add in shared memory, others through the group.
    """
    if world_size == 1:
        return keep
    if device.type == "cpu" and platform.machine().lower() in ORDERED:
        memory = _share_memory(rank, world_size)
        if memory is not None:
            return SharedSum(memory, rank, world_size)
    return _sum_by_group


class SharedSum:
    """Replaces a tensor by its sum over the workers: in the order of their ranks, in place."""

    def __init__(self, memory: mmap.mmap, rank: int, world_size: int) -> None:
        """Take one's place.

        Args:
            memory: Zeros, of `memory_size`, that all workers see.
            rank: Of this worker.
            world_size: How many there are.

        """
        self.rank = rank
        heads = torch.frombuffer(memory, dtype=torch.int64, count=LINE * world_size)
        self.arrived_W, self.process_W = heads.view(world_size, LINE)[:, :2].numpy().T
        slots = torch.frombuffer(memory, dtype=torch.uint8, offset=heads.nbytes)
        self.slots = slots.view(2, world_size, SLOT_BYTES)
        self.count = 0
        self.process_W[rank] = os.getpid()

    def __call__(self, summed: Tensor) -> None:
        """Sum; every worker calls it with a tensor of the same shape and type.

        Raises:
            RuntimeError: Another worker's process has ended.
        """
        for piece in torch.split(summed.view(-1), SLOT_BYTES // summed.element_size()):
            self._sum(piece)

    def _sum(self, piece: Tensor) -> None:
        # Two slots in turn: who writes into one knows that all have read what was in it, because
        # all have arrived at the other since.
        self.count += 1
        slots = [slot[: piece.nbytes].view(piece.dtype) for slot in self.slots[self.count % 2]]
        slots[self.rank].copy_(piece)
        self.arrived_W[self.rank] = self.count
        self._wait()
        piece.copy_(slots[0])
        for slot in slots[1:]:
            piece.add_(slot)

    def _wait(self) -> None:
        """Until all have written."""
        started = looked = time.monotonic()
        while self.arrived_W.min() < self.count:
            now = time.monotonic()
            if now - started > SPIN_SECONDS:
                time.sleep(SLEEP_SECONDS)
            else:
                os.sched_yield()
            if now - looked > LOOK_SECONDS:
                self._look()
                looked = now

    def _look(self) -> None:
        for rank, process in enumerate(self.process_W.tolist()):
            if self.arrived_W[rank] < self.count and process and not _is_alive(process):
                msg = f"worker {rank} (process {process}) has ended"
                raise RuntimeError(msg)


def memory_size(world_size: int) -> int:
    """Bytes that so many workers share."""
    return 8 * LINE * world_size + 2 * SLOT_BYTES * world_size


def _share_memory(rank: int, world_size: int) -> mmap.mmap | None:
    """Zeros that all workers see; None where not all can."""
    size = memory_size(world_size)
    names: list[str | None] = [_new_file(size) if rank == 0 else None]
    distributed.broadcast_object_list(names, src=0)
    memory = None if names[0] is None else _open_file(Path(names[0]), size)
    # Whether a process is alive is seen from the same namespace alone.
    place = None if memory is None else Path("/proc/self/ns/pid").readlink()
    places: list[Path | None] = [None] * world_size
    distributed.all_gather_object(places, place)
    if rank == 0 and names[0] is not None:
        Path(names[0]).unlink()  # what it holds lasts as long as a worker
    return memory if set(places) == {place} else None


def _new_file(size: int) -> str | None:
    """A new file with its memory reserved; None where there is not as much."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="topocal-sum-", dir=MEMORY)
    except OSError:
        return None
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        Path(name).unlink()
        return None
    finally:
        os.close(descriptor)
    return name


def _open_file(path: Path, size: int) -> mmap.mmap | None:
    try:
        with path.open("r+b") as opened:
            return mmap.mmap(opened.fileno(), size)
    except OSError:  # another machine, or another user
        return None


def _is_alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    is_ended = {"Z", "X"}  # also where nobody has taken note of it
    return status.rpartition(")")[2].split()[0] not in is_ended


def _sum_by_group(summed: Tensor) -> None:
    distributed.all_reduce(summed)
