"""Trainings of the repulsive ensemble, in one process and in several."""

import itertools
import json
import logging

import pytest
import torch
from training_fixtures import job_of, tiny_ensemble, write_tiny_dataset
from training_processes import CLOCK, assert_equal, kill_within_epoch, train, train_on_workers

from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.seeds import derive_seed
from training.checkpoint import CHECKPOINTS, newest_checkpoint
from training.data.training_data import read_training_data
from training.epoch import LossNotFiniteError
from training.history import describe_epoch, read_history
from training.learners.ensemble import share_members
from training.loop import train_network
from training.losses.density_nll import log_density
from training.networks import mlp as network
from training.train import train_model
from training.worker import Worker

LITTLE = 0.05  # MiB, a third of what the rows need
STRONG = 1e5  # of a repulsion that shows in every bit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"), with_weights=True, group_rows=100)


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("alone"), tiny_ensemble())


def parameters(checkpoint):
    return torch.stack([each.theta_P for each in checkpoint.networks])


@pytest.mark.parametrize(("members", "workers"), [(5, 1), (5, 2), (50, 3), (3, 3)])
def test_every_member_has_one_worker(members, workers):
    shares = [share_members(members, rank, workers) for rank in range(workers)]
    assert list(itertools.chain.from_iterable(shares)) == list(range(members))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("world_size", "changes"),
    [
        (2, {}),
        (3, {"repulsion_scale": STRONG}),
        (2, {"kernel": "nll", "repulsion_scale": STRONG, "memory_mib": LITTLE}),
    ],
)
def test_any_number_of_workers_gives_the_same_bits(dataset, tmp_path, world_size, changes):
    settings = tiny_ensemble(**changes)
    alone = train(dataset, tmp_path / "alone", settings)
    shared = train_on_workers(world_size, dataset, tmp_path / "shared", settings)
    assert shared.world_size == world_size
    assert_equal(shared, alone)


def test_killed_training_continues_on_another_number_of_workers(dataset, tmp_path):
    """Killed on three workers, then on two, then finished by one."""
    settings, folder = tiny_ensemble(epochs=4, repulsion_scale=STRONG), tmp_path / "killed"
    whole = train(dataset, tmp_path / "whole", settings)
    kill_within_epoch(3, dataset, folder, settings, epoch=1)
    kill_within_epoch(2, dataset, folder, settings, epoch=3)
    assert_equal(train(dataset, folder, settings), whole)
    assert [record["epoch"] for record in read_history(folder)] == [1, 2, 3, 4]


def test_other_number_of_workers_is_no_warning(dataset, tmp_path, caplog):
    train_on_workers(2, dataset, tmp_path, tiny_ensemble(epochs=1))
    train(dataset, tmp_path, tiny_ensemble(epochs=2))
    assert "only to rounding" not in caplog.text
    train(dataset, tmp_path, tiny_ensemble(epochs=3), worker=Worker(threads=2))
    assert "only to rounding" in caplog.text


def test_training_lowers_the_loss_and_members_differ(alone):
    losses = [record["train_nll"] for record in alone.history]
    assert losses == sorted(losses, reverse=True)
    theta_MP = parameters(alone)
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(theta_MP, 2))


def test_without_repulsion_a_member_is_what_it_is_alone(dataset, tmp_path, alone):
    """A plain ensemble: nothing of the others reaches it; with repulsion something does."""
    one, few, many = (
        parameters(
            train(dataset, tmp_path / str(members), tiny_ensemble(
                members=members, repulsion_scale=0.0
            ))
        )
        for members in (1, 2, 5)
    )  # fmt: skip
    assert torch.equal(one[0], many[0])
    assert torch.equal(few, many[:2])
    assert not torch.equal(parameters(alone), many)


def test_first_step_is_adam_on_the_sum_of_the_members_losses(dataset, tmp_path):
    """One batch, no repulsion: the mean NLL and the prior, member by member."""
    settings = tiny_ensemble(epochs=1, batch_rows=5000, prior_sigma=0.5, repulsion_scale=0.0)
    found = parameters(train(dataset, tmp_path, settings))
    rows = read_training_data(dataset, None).train
    sizes = (4, *settings.hidden, settings.num_outputs)
    for member, after_P in enumerate(found):
        generator = torch.Generator().manual_seed(derive_seed(11, "initial weights", member))
        theta_P = network.initial_member(sizes, generator).requires_grad_()
        outputs = network.forward_fixed(network.split_member(theta_P, sizes), rows.x_NF)
        log_p_N = log_density(outputs, rows.target_N, settings.log_variance_bounds)
        prior = theta_P.square().sum() / (2 * len(rows) * 0.5**2)
        (prior - (rows.weight_N * log_p_N).mean()).backward()
        grad_P = theta_P.grad
        step_P = settings.optimizer.learning_rate * grad_P / (grad_P.abs() + 1e-8)
        is_clear = grad_P.abs() > 1e-5  # below, the sign is rounding
        torch.testing.assert_close(
            (theta_P.detach() - after_P)[is_clear], step_P[is_clear], rtol=5e-3, atol=1e-6
        )


def test_validation_loss_is_that_of_the_averaged_density(dataset, alone):
    rows = read_training_data(dataset, None).validation
    density_N = 0.0
    for theta_P in parameters(alone):
        layers = network.split_member(theta_P, alone.sizes)
        log_p_N = log_density(network.forward_fixed(layers, rows.x_NF), rows.target_N, (-14.0, 0.0))
        density_N = density_N + log_p_N.double().exp() / len(alone.networks)
    expected = -(rows.weight_N * density_N.log()).mean().item()
    assert alone.history[-1]["validation_nll"] == pytest.approx(expected, rel=1e-6)
    prior = parameters(alone).double().square().sum() / (2 * alone.num_rows) / 5
    assert alone.history[-1]["prior"] == pytest.approx(prior.item(), rel=1e-12)


def test_history_lines_have_all_figures(dataset, tmp_path, alone):
    train(dataset, tmp_path, tiny_ensemble(epochs=1))
    (line,) = (tmp_path / "history.jsonl").read_text().splitlines()
    record = json.loads(line)
    expected = {"epoch", "learning_rate", "train_nll", "prior", "validation_nll"} | CLOCK
    expected |= {"gradient_norm", "gradient_norm_max", "repulsion_ratio", "bandwidth", "spread"}
    assert set(record) == expected
    assert 0.0 < record["repulsion_ratio"] < 1.0
    assert "prior/row" in describe_epoch(record, 1)
    assert alone.history[0]["spread"] > alone.history[-1]["spread"]


def test_the_ratio_follows_the_scale(dataset, tmp_path):
    """In a single step the members are the same for all scales."""
    ratios = [
        train(
            dataset, tmp_path / str(scale), tiny_ensemble(
                epochs=1, batch_rows=5000, repulsion_scale=scale
            ),
        ).history[0]["repulsion_ratio"]
        for scale in (0.0, 1.0, 1000.0)
    ]  # fmt: skip
    assert ratios[0] == 0.0
    assert ratios[2] == pytest.approx(1000.0 * ratios[1], rel=1e-5)


def test_a_checkpoint_is_a_file_for_each_member_and_an_index(dataset, tmp_path):
    settings = tiny_ensemble(members=2)
    whole = train(dataset, tmp_path, settings)
    folder = tmp_path / CHECKPOINTS
    names = {path.name for path in folder.iterdir()}
    assert names == {
        f"epoch-00000{epoch}{suffix}.pt"
        for epoch in (2, 3)
        for suffix in ("", "-network-000", "-network-001")
    }
    one = folder / "epoch-000003-network-001.pt"
    assert one.stat().st_size < 1.3 * (3 * 4 * parameters(whole).shape[1] + 3000)
    one.write_bytes(one.read_bytes()[:-100])
    assert newest_checkpoint(tmp_path, "a").epoch == 2
    assert_equal(train(dataset, tmp_path, settings), whole)
    (folder / "epoch-000003-network-000.pt").unlink()
    assert newest_checkpoint(tmp_path, "a").epoch == 2


def test_networks_without_an_index_are_no_checkpoint(dataset, tmp_path):
    """As if killed while the members were being written."""
    settings = tiny_ensemble(members=2)
    whole = train(dataset, tmp_path, settings)
    folder = tmp_path / CHECKPOINTS
    (folder / "epoch-000003.pt").unlink()
    stranger = folder / "epoch-000007-network-000.pt"
    stranger.write_bytes(b"of a run that was killed")
    assert newest_checkpoint(tmp_path, "a").epoch == 2
    assert_equal(train(dataset, tmp_path, settings), whole)
    assert not stranger.exists()


def test_stop_keeps_the_last_complete_epoch(dataset, tmp_path, alone):
    steps = []

    def stop_in_second_epoch():
        steps.append(None)
        return len(steps) == 5  # three batches an epoch

    with pytest.raises(StoppedBySignal, match="after epoch 1 of 3"):
        train(dataset, tmp_path, tiny_ensemble(), should_stop=stop_in_second_epoch)
    assert_equal(train(dataset, tmp_path, tiny_ensemble()), alone)


def test_fault_names_batch_and_column(dataset, tmp_path):
    data = read_training_data(dataset, None)
    data.train.x_NF[7, 2] = torch.inf
    with pytest.raises(LossNotFiniteError, match=r"epoch 1, batch \d: .*scaling: angle \(1 rows\)"):
        train_network(data, tiny_ensemble(), seed=11, fingerprint="a", folder=tmp_path)
    assert newest_checkpoint(tmp_path, "a") is None


def test_raw_outputs_as_kernel_are_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="absent"):
        train_model(
            job_of(
                tmp_path / "absent",
                tiny_ensemble(kernel="outputs"),
                name="a",
                seed=1,
                folder=tmp_path / "a",
                fingerprint="a",
                workers=1,
                threads=1,
                gpu=False,
                address="none",
            )
        )
    assert "components stand in another order" in caplog.text


def test_more_workers_than_members_are_refused(tmp_path):
    from training.ray.workers import fit

    with pytest.raises(UserError, match="7 workers share 5 members, so 2 would idle"):
        fit(
            job_of(
                tmp_path,
                tiny_ensemble(),
                name="a",
                seed=1,
                folder=tmp_path,
                fingerprint="a",
                workers=7,
                gpu=False,
                threads=1,
            )
        )
