"""The sum of workers in shared memory, among real processes."""

import itertools
import mmap
import multiprocessing
import os
import platform
import socket

import pytest
import torch
from torch import distributed

from training.ray import shared_sum
from training.ray.shared_sum import MEMORY, SharedSum, memory_size, sum_over_workers
from training.worker import CPU

SPAWN = multiprocessing.get_context("spawn")
WORKERS = 3
SHAPES = ((), (7,), (5, 3), (300_001,))  # the last is longer than a slot

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not MEMORY.exists(),
    reason="workers add in shared memory on x86",
)


def tensor_of(rank, shape, dtype):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(shape, generator=generator, dtype=dtype)


def work(rank, port, folder, task):
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORKERS
    )
    task(rank, folder)
    distributed.destroy_process_group()


def add_all(rank, folder):
    add = sum_over_workers(rank, WORKERS, CPU)
    assert isinstance(add, SharedSum)
    kinds = list(itertools.product((torch.float32, torch.float64), SHAPES))
    for turn, (dtype, shape) in enumerate([*kinds, *kinds[:3] * 200]):
        tensors = [tensor_of(other + turn, shape, dtype) for other in range(WORKERS)]
        add(tensors[rank])
        expected = [tensor_of(other + turn, shape, dtype) for other in range(WORKERS)]
        assert torch.equal(tensors[rank], expected[0] + expected[1] + expected[2]), turn
    (folder / str(rank)).touch()


def lose_one(rank, folder):
    add = sum_over_workers(rank, WORKERS, CPU)
    add(torch.ones(3))
    if rank == 1:
        os._exit(0)
    with pytest.raises(RuntimeError, match=r"worker 1 \(process \d+\) has ended"):
        add(torch.ones(3))
    (folder / str(rank)).touch()
    os._exit(0)  # the group has lost a worker too


def have_no_memory(rank, folder):
    if rank == 2:  # as if it were on another machine
        shared_sum._open_file = lambda *_: None
    add = sum_over_workers(rank, WORKERS, CPU)
    assert not isinstance(add, SharedSum)
    tensor = torch.full((4,), float(rank))
    add(tensor)
    assert tensor.tolist() == [3.0] * 4
    (folder / str(rank)).touch()


def run(task, folder):
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    processes = [
        SPAWN.Process(target=work, args=(rank, port, folder, task)) for rank in range(WORKERS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return sorted(path.name for path in folder.iterdir())


def test_workers_add_in_the_order_of_their_ranks(tmp_path):
    assert run(add_all, tmp_path) == ["0", "1", "2"]


def test_an_ended_worker_is_not_waited_for(tmp_path):
    assert run(lose_one, tmp_path) == ["0", "2"]


def test_workers_that_share_no_memory_add_through_the_group(tmp_path):
    assert run(have_no_memory, tmp_path) == ["0", "1", "2"]


def test_one_worker_needs_nothing():
    tensor = torch.arange(5.0)
    SharedSum(mmap.mmap(-1, memory_size(1)), 0, 1)(tensor)
    assert tensor.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_no_file_stays_behind(tmp_path):
    before = set(MEMORY.glob("topocal-sum-*"))
    run(have_no_memory, tmp_path)
    assert set(MEMORY.glob("topocal-sum-*")) <= before
