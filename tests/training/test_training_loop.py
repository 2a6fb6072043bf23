import errno
import json
import logging

import pytest
import torch
from reference.density_nll import summed_nll
from training_fixtures import tiny_dnn, tiny_settings, write_tiny_dataset
from training_processes import (
    CLOCK,
    assert_equal,
    kill_within_epoch,
    train,
    train_on_workers,
    without_clock,
)

from pipeline.formats.errors import StoppedBySignal
from pipeline.formats.seeds import derive_seed
from training.checkpoint import CHECKPOINTS, newest_checkpoint
from training.data.rows import permutation
from training.data.training_data import read_training_data
from training.epoch import LossNotFiniteError, Run
from training.history import read_history
from training.loop import train_network
from training.losses.density_nll import log_density
from training.networks import mlp as network
from training.steps.noise import BLOCK_ROWS, fill_layer_noise, keys_of_epoch
from training.worker import Worker

LITTLE = 0.05  # MiB, a third of what the rows need


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"), with_weights=True, group_rows=100)


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("alone"))


def test_same_seed_same_weights_and_another_seed_others(dataset, tmp_path, alone):
    assert_equal(alone, train(dataset, tmp_path / "again"))
    other = train(dataset, tmp_path / "other", tiny_settings(epochs=1), seed=12)
    assert not torch.equal(other.networks[0].theta_P, alone.networks[0].theta_P)


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
    sizes = (4, *settings.hidden, settings.num_outputs)
    order_N = permutation(len(rows), 11, 0)
    buffers = [torch.empty(6 * BLOCK_ROWS, size) for size in sizes[1:]]
    noise = fill_layer_noise(buffers, keys_of_epoch(11, 0, 1)[0], 0, len(rows))
    outputs = rows.x_NF[order_N]
    for layer, noise_BO in zip(network.split_parameters(theta_P, sizes), noise, strict=True):
        sigma_BO = (outputs**2 @ layer.log_variance_OF.exp().T).sqrt()
        outputs = outputs @ layer.mean_OF.T + layer.bias_O + sigma_BO * noise_BO
        outputs = outputs if layer.bias_O.shape == (6,) else outputs.relu()
    weight_N = rows.weight_N[order_N]
    bounds = settings.log_variance_bounds
    nll = summed_nll(outputs, rows.target_N[order_N], weight_N, bounds) / len(rows)
    kl = network.kl_divergence(theta_P, network.count_weights(sizes), 0.5) / len(rows)
    (nll + kl).backward()
    grad_P = theta_P.grad
    step_P = settings.optimizer.learning_rate * grad_P / (grad_P.abs() + 1e-8)
    is_clear = grad_P.abs() > 1e-5  # below, the sign is rounding
    torch.testing.assert_close(
        (start - found.networks[0].theta_P)[is_clear], step_P[is_clear], rtol=5e-3, atol=1e-6
    )
    assert found.history[0]["train_nll"] == pytest.approx(nll.item(), rel=1e-5)


def initial_parameters(settings):
    """What a training with seed 11 starts from."""
    sizes = (4, *settings.hidden, settings.num_outputs)
    generator = torch.Generator().manual_seed(derive_seed(11, "initial weights"))
    return network.initial_parameters(sizes, settings.initial_log_variance, generator)


@pytest.mark.parametrize(
    ("world_size", "settings"),
    [
        (2, tiny_settings()),
        (3, tiny_settings()),
        (2, tiny_settings(estimator="antithetic")),
        (2, tiny_settings(memory_mib=LITTLE)),
        (2, tiny_dnn()),
    ],
)
def test_workers_equal_one_worker_to_rounding(dataset, tmp_path, world_size, settings):
    score = "loss" if settings.kind == "dnn" else "nll"
    alone = train(dataset, tmp_path / "alone", settings)
    shared = train_on_workers(world_size, dataset, tmp_path / "shared", settings)
    assert shared.world_size == world_size
    torch.testing.assert_close(
        shared.networks[0].theta_P, alone.networks[0].theta_P, rtol=0.0, atol=2e-4
    )
    for one, many in zip(alone.history, shared.history, strict=False):
        for name in (f"train_{score}", f"validation_{score}"):
            assert many[name] == pytest.approx(one[name], abs=1e-4)


def test_killed_training_continues_as_if_uninterrupted(dataset, tmp_path):
    whole = train(dataset, tmp_path / "whole", tiny_settings(epochs=5))
    folder = tmp_path / "killed"
    kill_within_epoch(1, dataset, folder, tiny_settings(epochs=5), epoch=3)
    with (folder / "history.jsonl").open("a") as history:
        history.write('{"epoch": 4, "train_nll')  # a line that was being written
    resumed = train(dataset, folder, tiny_settings(epochs=5))
    assert_equal(whole, resumed)
    assert without_clock(read_history(folder)) == without_clock(resumed.history)
    assert [record["epoch"] for record in read_history(folder)] == [1, 2, 3, 4, 5]


def test_last_two_checkpoints_are_kept(dataset, tmp_path):
    train(dataset, tmp_path)
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    assert names == [
        "epoch-000002-network-000.pt",
        "epoch-000002.pt",
        "epoch-000003-network-000.pt",
        "epoch-000003.pt",
    ]


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


def test_a_checkpoint_that_the_disk_does_not_give_is_kept(dataset, tmp_path, monkeypatch):
    train(dataset, tmp_path, tiny_settings(epochs=2))
    before = sorted((tmp_path / CHECKPOINTS).iterdir())

    def fail(*_args, **_kwargs):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", fail)
        with pytest.raises(OSError, match="Input/output error"):
            train(dataset, tmp_path)
    assert sorted((tmp_path / CHECKPOINTS).iterdir()) == before
    assert train(dataset, tmp_path).epoch == 3


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(dataset, tmp_path):
    whole = train(dataset, tmp_path)
    newest = tmp_path / CHECKPOINTS / "epoch-000003.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_equal(whole, train(dataset, tmp_path))


def test_other_thread_count_is_told(dataset, tmp_path, caplog):
    train(dataset, tmp_path, tiny_settings(epochs=1))
    train(dataset, tmp_path, tiny_settings(epochs=2), worker=Worker(threads=2))
    assert "only to rounding" in caplog.text


def test_validation_loss_is_that_of_the_averaged_density(dataset, alone):
    """Eight weight sets, one after the other; the same in each epoch."""
    settings, rows = tiny_settings(), read_training_data(dataset, None).validation
    sizes = (4, *settings.hidden, settings.num_outputs)
    layers = network.split_parameters(alone.networks[0].theta_P, sizes)
    density_N = 0.0
    for index in range(8):
        generator = torch.Generator().manual_seed(derive_seed(11, "validation", index))
        outputs = network.forward_fixed(network.draw_weights(layers, generator), rows.x_NF)
        log_p_N = log_density(outputs, rows.target_N, settings.log_variance_bounds)
        density_N = density_N + log_p_N.double().exp() / 8
    expected = -(rows.weight_N * density_N.log()).mean().item()
    assert alone.history[-1]["validation_nll"] == pytest.approx(expected, rel=1e-5)
    mean_W = alone.networks[0].theta_P[: network.count_weights(sizes)]
    log_variance_W = alone.networks[0].theta_P[len(mean_W) : 2 * len(mean_W)]
    assert alone.history[-1]["log_variance_q50"] == pytest.approx(
        log_variance_W.median().item(), abs=1e-3
    )


def test_stop_keeps_the_last_complete_epoch(dataset, tmp_path):
    steps = []

    def stop_in_second_epoch():
        steps.append(None)
        return len(steps) == 5  # three batches an epoch

    with pytest.raises(StoppedBySignal, match="after epoch 1 of 3"):
        train(dataset, tmp_path, should_stop=stop_in_second_epoch)
    assert newest_checkpoint(tmp_path, "a").epoch == 1
    assert_equal(train(dataset, tmp_path), train(dataset, tmp_path / "whole"))


@pytest.fixture(params=["each step", "each epoch"])
def _looks(request, monkeypatch):
    """The host looks at each step, or, as it does with a GPU, at the end of an epoch only."""
    monkeypatch.setattr(Run, "is_stepwise", request.param == "each step")


@pytest.mark.usefixtures("_looks")
@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e25])
def test_fault_names_batch_and_column_and_the_checkpoint_is_kept(dataset, tmp_path, value):
    """1e25 overflows in its square, within the products of the variances."""
    train(dataset, tmp_path, tiny_settings(epochs=1))
    kept = newest_checkpoint(tmp_path, "a")
    data = read_training_data(dataset, None)
    data.train.x_NF[7, 2] = value
    batch = permutation(len(data.train), 11, 1).tolist().index(7) // 1100 + 1
    named = rf"epoch 2, batch {batch}: the .* is .*beyond 20 after scaling: angle \(1 rows\);"
    with pytest.raises(LossNotFiniteError, match=named):
        train_network(data, tiny_settings(), seed=11, fingerprint="a", folder=tmp_path)
    assert_equal(newest_checkpoint(tmp_path, "a"), kept)
    assert len(read_history(tmp_path)) == 1


@pytest.mark.usefixtures("_looks")
def test_gradient_that_is_not_finite_stops_before_its_update(dataset, tmp_path, monkeypatch):
    data = read_training_data(dataset, None)
    states = []

    def spoil_second_batch(grad_P, theta_P, **_):
        states.append(theta_P.clone())
        if len(states) == 2:
            grad_P[5] = torch.inf

    monkeypatch.setattr(network, "add_kl_gradient", spoil_second_batch)
    with pytest.raises(LossNotFiniteError, match=r"batch 2: the norm of the gradient is inf.*rate"):
        train_network(data, tiny_settings(), seed=11, fingerprint="a", folder=tmp_path)
    assert not torch.equal(states[0], states[1])
    assert all(torch.equal(states[1], later) for later in states[2:])
    assert newest_checkpoint(tmp_path, "a") is None


def test_looking_at_each_epoch_changes_nothing(dataset, tmp_path, alone, monkeypatch):
    monkeypatch.setattr(Run, "is_stepwise", False)
    assert_equal(train(dataset, tmp_path), alone)


def test_negative_weights_are_trained_on(tmp_path):
    dataset = write_tiny_dataset(tmp_path / "dataset", with_weights=True)
    data = read_training_data(dataset, None)
    data.train.weight_N[::10] *= -1.0
    data.validation.weight_N[::10] *= -1.0
    train_network(data, tiny_settings(), seed=1, fingerprint="a", folder=tmp_path)
    losses = [record["validation_nll"] for record in read_history(tmp_path)]
    assert losses == sorted(losses, reverse=True)


def test_history_lines_have_all_figures(dataset, tmp_path):
    train(dataset, tmp_path)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    expected = {"epoch", "learning_rate", "train_nll", "kl", "validation_nll"} | CLOCK
    expected |= {"gradient_norm", "gradient_norm_max"}
    expected |= {"log_variance_q05", "log_variance_q50", "log_variance_q95"}
    assert all(set(json.loads(line)) == expected for line in lines)
    assert read_history(tmp_path)[-1]["seconds_left"] == 0.0
