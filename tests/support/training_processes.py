"""Trainings in this process or in real ones, and what makes two of them equal."""

import multiprocessing
import signal
import socket
import time

import torch
from torch import distributed
from training_fixtures import tiny_settings

from training.checkpoint import newest_checkpoint
from training.data.training_data import read_data_for
from training.history import read_history
from training.loop import train_network
from training.worker import Worker, sum_over_workers

CLOCK = {"seconds", "rows_per_second", "seconds_left"}
SPAWN = multiprocessing.get_context("spawn")


def train(dataset, folder, settings=None, **changes):
    """Train with seed 11; the last checkpoint."""
    wanted = {"seed": 11, "fingerprint": "a", "folder": folder} | changes
    settings = settings or tiny_settings()
    data = read_data_for(settings, dataset)
    train_network(data, settings, **wanted)
    return newest_checkpoint(folder, wanted["fingerprint"])


def without_clock(history):
    return [{key: record[key] for key in record.keys() - CLOCK} for record in history]


def assert_equal(one, other):
    """Bitwise equal parameters, moments and losses."""
    assert one.epoch == other.epoch
    assert len(one.networks) == len(other.networks)
    for network, twin in zip(one.networks, other.networks, strict=True):
        for key, value in vars(network).items():
            assert torch.equal(value, getattr(twin, key))
    assert without_clock(one.history) == without_clock(other.history)


def train_on_workers(world_size, dataset, folder, settings):
    """Train with so many processes; the last checkpoint."""
    processes = start_workers(world_size, dataset, folder, settings)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return newest_checkpoint(folder, "a")


def kill_within_epoch(world_size, dataset, folder, settings, epoch):
    """Train with so many processes and kill all after this many complete epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    processes = start_workers(world_size, dataset, folder, settings, epoch)
    while all(process.is_alive() for process in processes) and not (folder / "within").exists():
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.join()
    assert {process.exitcode for process in processes} == {-signal.SIGKILL}
    (folder / "within").unlink()
    assert newest_checkpoint(folder, "a").epoch == epoch


def start_workers(world_size, dataset, folder, settings, slow_from=None):
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    processes = [
        SPAWN.Process(
            target=_work, args=(rank, world_size, port, dataset, folder, settings, slow_from)
        )
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    return processes


def _work(rank, world_size, port, dataset, folder, settings, slow_from):
    def wait_in_epoch():
        """From this epoch on train slowly, so that the process is killed within it."""
        if slow_from is not None and len(read_history(folder)) >= slow_from:
            (folder / "within").touch()
            time.sleep(0.5)
        return False

    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    worker = Worker(rank=rank, world_size=world_size, all_reduce=sum_over_workers(world_size))
    train(dataset, folder, settings, worker=worker, should_stop=wait_in_epoch)
    distributed.destroy_process_group()
