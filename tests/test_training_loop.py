import json
import logging
import multiprocessing
import signal
import socket
import time

import pytest
import torch
from torch import distributed
from training_fixtures import tiny_settings, write_tiny_dataset

from pipeline.formats.errors import StoppedBySignal
from pipeline.formats.seeds import derive_seed
from training import network
from training.checkpoint import CHECKPOINTS, newest_checkpoint
from training.data import Rows, TrainingData, permutation, read_training_data
from training.epoch import LossNotFiniteError, Worker
from training.history import read_history
from training.loop import train_network
from training.noise import fill_noise, plan_epoch
from training.objective import summed_nll

SPAWN = multiprocessing.get_context("spawn")
CLOCK = {"seconds", "rows_per_second", "seconds_left"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"), with_weights=True)


def train(dataset, folder, settings=None, **changes):
    wanted = {"seed": 11, "fingerprint": "a", "folder": folder} | changes
    settings = settings or tiny_settings()
    train_network(read_training_data(dataset, settings.features), settings, **wanted)
    return newest_checkpoint(folder, wanted["fingerprint"])


def without_clock(history):
    return [{key: record[key] for key in record.keys() - CLOCK} for record in history]


def assert_equal(one, other):
    """Bitwise equal parameters, moments and losses."""
    assert one.epoch == other.epoch
    assert torch.equal(one.theta_P, other.theta_P)
    for key, value in one.optimizer["state"][0].items():
        assert torch.equal(value, other.optimizer["state"][0][key])
    assert without_clock(one.history) == without_clock(other.history)


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def run_worker(rank, world_size, port, dataset, folder):
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    worker = Worker(rank=rank, world_size=world_size, all_reduce=distributed.all_reduce)
    train(dataset, folder, worker=worker)
    distributed.destroy_process_group()


def run_until_killed(dataset, folder, epoch):
    """Train slowly from this epoch on, so that the process is killed within it."""

    def wait_in_epoch():
        if len(read_history(folder)) >= epoch:
            (folder / "within").touch()
            time.sleep(0.5)
        return False

    train(dataset, folder, tiny_settings(epochs=5), should_stop=wait_in_epoch)


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("alone"))


def test_same_seed_same_weights_and_another_seed_others(dataset, tmp_path, alone):
    assert_equal(alone, train(dataset, tmp_path / "again"))
    other = train(dataset, tmp_path / "other", tiny_settings(epochs=1), seed=12)
    assert not torch.equal(other.theta_P, alone.theta_P)


def test_training_lowers_the_loss(alone):
    assert alone.history[-1]["train_nll"] < alone.history[0]["train_nll"]
    assert alone.history[-1]["validation_nll"] < alone.history[0]["validation_nll"]
    assert [record["learning_rate"] for record in alone.history] == pytest.approx([
        3e-3,
        3e-3,
        3e-4,
    ])


def test_first_step_is_adam_on_the_weighted_mean_plus_kl(dataset, tmp_path):
    """One batch, one step, written out with automatic gradients and Adam's formula."""
    settings = tiny_settings(epochs=1, batch_rows=5000, prior_sigma=0.5)
    found = train(dataset, tmp_path, settings)
    rows = read_training_data(dataset, None).train
    start = initial_parameters(settings)
    theta_P = start.clone().requires_grad_()
    sizes = network.layer_sizes(4, settings.hidden, settings.components)
    order_N = permutation(len(rows), 11, 0)
    plan = plan_epoch(len(rows), settings.batch_rows, 0, 1)
    noise = fill_noise([torch.empty(len(rows), size) for size in sizes[1:]], 11, 0, plan[0])
    outputs = network.forward_sampled(
        network.split_parameters(theta_P, sizes), rows.x_NF[order_N], noise
    )
    weight_N = rows.weight_N[order_N]
    bounds = settings.log_variance_bounds
    nll = summed_nll(outputs, rows.target_N[order_N], weight_N, bounds) / len(rows)
    kl = network.kl_divergence(theta_P, network.count_weights(sizes), 0.5) / len(rows)
    (nll + kl).backward()
    grad_P = theta_P.grad
    step_P = settings.optimizer.learning_rate * grad_P / (grad_P.abs() + 1e-8)
    is_clear = grad_P.abs() > 1e-5  # below, the sign is rounding
    torch.testing.assert_close(
        (start - found.theta_P)[is_clear], step_P[is_clear], rtol=5e-3, atol=1e-6
    )
    assert found.history[0]["train_nll"] == pytest.approx(nll.item(), rel=1e-5)


def initial_parameters(settings):
    """What a training with seed 11 starts from."""
    sizes = network.layer_sizes(4, settings.hidden, settings.components)
    generator = torch.Generator().manual_seed(derive_seed(11, "initial weights"))
    return network.initial_parameters(sizes, settings.initial_log_variance, generator)


@pytest.mark.parametrize("world_size", [2, 3])
def test_workers_equal_one_worker_to_rounding(dataset, tmp_path, alone, world_size):
    port = free_port()
    processes = [
        SPAWN.Process(target=run_worker, args=(rank, world_size, port, dataset, tmp_path))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    shared = newest_checkpoint(tmp_path, "a")
    assert shared.world_size == world_size
    torch.testing.assert_close(shared.theta_P, alone.theta_P, rtol=0.0, atol=2e-4)
    for one, many in zip(alone.history, shared.history, strict=False):
        assert many["train_nll"] == pytest.approx(one["train_nll"], abs=1e-4)
        assert many["validation_nll"] == pytest.approx(one["validation_nll"], abs=1e-4)


def test_killed_training_continues_as_if_uninterrupted(dataset, tmp_path):
    whole = train(dataset, tmp_path / "whole", tiny_settings(epochs=5))
    folder = tmp_path / "killed"
    folder.mkdir()
    process = SPAWN.Process(target=run_until_killed, args=(dataset, folder, 3))
    process.start()
    while process.is_alive() and not (folder / "within").exists():
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert newest_checkpoint(folder, "a").epoch == 3
    with (folder / "history.jsonl").open("a") as history:
        history.write('{"epoch": 4, "train_nll')  # a line that was being written
    resumed = train(dataset, folder, tiny_settings(epochs=5))
    assert_equal(whole, resumed)
    assert without_clock(read_history(folder)) == without_clock(resumed.history)
    assert [record["epoch"] for record in read_history(folder)] == [1, 2, 3, 4, 5]


def test_last_two_checkpoints_are_kept(dataset, tmp_path):
    train(dataset, tmp_path)
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    assert names == ["epoch-000002.pt", "epoch-000003.pt"]


def test_foreign_and_damaged_checkpoints_are_removed(dataset, tmp_path, caplog):
    train(dataset, tmp_path, tiny_settings(epochs=2))
    damaged = tmp_path / CHECKPOINTS / "epoch-000009.pt"
    damaged.write_bytes(b"PK no checkpoint")
    with caplog.at_level(logging.INFO):
        found = train(dataset, tmp_path, tiny_settings(epochs=1), fingerprint="b")
    assert found.epoch == 1
    assert newest_checkpoint(tmp_path, "a") is None
    assert "from other settings or data" in caplog.text
    assert "cannot be read" in caplog.text
    assert len(read_history(tmp_path)) == 1


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(dataset, tmp_path):
    whole = train(dataset, tmp_path)
    newest = tmp_path / CHECKPOINTS / "epoch-000003.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_equal(whole, train(dataset, tmp_path))


def test_other_thread_count_is_told(dataset, tmp_path, caplog):
    train(dataset, tmp_path, tiny_settings(epochs=1))
    train(dataset, tmp_path, tiny_settings(epochs=2), worker=Worker(threads=2))
    assert "only to rounding" in caplog.text


def test_stop_keeps_the_last_complete_epoch(dataset, tmp_path):
    steps = []

    def stop_in_second_epoch():
        steps.append(None)
        return len(steps) == 5  # three batches an epoch

    with pytest.raises(StoppedBySignal, match="after epoch 1 of 3"):
        train(dataset, tmp_path, should_stop=stop_in_second_epoch)
    assert newest_checkpoint(tmp_path, "a").epoch == 1
    assert_equal(train(dataset, tmp_path), train(dataset, tmp_path / "whole"))


def test_loss_that_is_not_finite_is_named_and_the_checkpoint_kept(dataset, tmp_path):
    train(dataset, tmp_path, tiny_settings(epochs=1))
    kept = newest_checkpoint(tmp_path, "a")
    data = read_training_data(dataset, None)
    x_NF = data.train.x_NF.clone()
    x_NF[7, 2] = torch.inf
    broken = Rows(x_NF, data.train.target_N, data.train.weight_N)
    order = permutation(len(broken), 11, 1).tolist()
    batch = order.index(7) // 1100 + 1
    with pytest.raises(LossNotFiniteError, match=rf"epoch 2, batch {batch} is nan"):
        train_network(
            TrainingData(broken, data.validation),
            tiny_settings(epochs=3),
            seed=11,
            fingerprint="a",
            folder=tmp_path,
        )
    assert_equal(newest_checkpoint(tmp_path, "a"), kept)
    assert len(read_history(tmp_path)) == 1


def test_history_lines_have_all_figures(dataset, tmp_path):
    train(dataset, tmp_path)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    expected = {"epoch", "learning_rate", "train_nll", "kl", "validation_nll"} | CLOCK
    assert all(set(json.loads(line)) == expected for line in lines)
    assert read_history(tmp_path)[-1]["seconds_left"] == 0.0
