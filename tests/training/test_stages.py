"""A training in stages: losses, trained parts, batches and rates; resume at any point."""

import numpy as np
import pytest
import torch
from training_fixtures import job_of, write_tiny_dataset
from training_processes import assert_equal, train, train_on_workers

from pipeline.formats.errors import StoppedBySignal
from pipeline.formats.manifest import columns_of, read_manifest, read_part
from training.checkpoint import newest_checkpoint
from training.export.model import export_model
from training.export.onnx_file import run_onnx
from training.losses.density_nll import mixture_mean
from training.settings import MixtureDensitySettings

TWO = [
    {"epochs": 2, "loss": "squared_error", "optimizer": {"learning_rate": 3e-3, "milestones": [1]}},
    {"epochs": 3, "trained": ["output"], "batch_rows": 1024},
    {"epochs": 2, "batch_rows": 256},
]


def staged(stages=TWO, **changes):
    given = {"hidden": (8, 8), "components": 2, "batch_rows": 512, "stages": stages}
    return MixtureDensitySettings.model_validate(given | changes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """The folder of a training that was never stopped, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(dataset, folder, staged())


def test_epochs_are_those_of_all_stages():
    assert staged().epochs == 7
    assert [staged().stage_at(epoch) for epoch in range(8)] == [0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="epochs: the stages have 7, got 5; leave the key out"):
        staged(epochs=5)
    rows = 3000  # batches of 512, 1024, 256
    assert staged().updates(rows) == 2 * 6 + 3 * 3 + 2 * 12


def test_a_model_without_stages_says_nothing_of_them():
    """So that models from before there were any stay up to date."""
    assert not {"stages", "family"} & MixtureDensitySettings().model_dump().keys()


def test_each_stage_has_its_loss_rate_and_batches(whole):
    _, done = whole
    scores = [sorted(key for key in record if key.startswith("train_")) for record in done.history]
    assert scores == [["train_loss"]] * 2 + [["train_nll"]] * 5
    rates = [record["learning_rate"] for record in done.history]
    np.testing.assert_allclose(rates, [3e-3, 3e-4, *[1e-4] * 5])
    assert done.history[1]["validation_loss"] < done.history[0]["validation_loss"]


def test_frozen_parts_keep_their_values_to_the_bit(dataset, tmp_path, whole):
    at_two, at_five = (
        train(dataset, tmp_path / str(count), staged(TWO[:count]), fingerprint="a")
        for count in (1, 2)
    )
    hidden, output = range(2)
    assert torch.equal(at_two.networks[hidden].theta_P, at_five.networks[hidden].theta_P)
    assert not torch.equal(at_two.networks[output].theta_P, at_five.networks[output].theta_P)
    _, done = whole
    assert not torch.equal(at_five.networks[hidden].theta_P, done.networks[hidden].theta_P)


def test_moments_start_anew_for_what_changes_alone(whole):
    """The output is trained with the same loss from the second stage on; the hidden layers anew."""
    _, done = whole
    hidden, output = (int(network.step) for network in done.networks)
    steps = [staged().in_stage(stage).batch_rows for stage in range(3)]
    per_epoch = [-(-done.num_rows // rows) for rows in steps]
    assert hidden == 2 * per_epoch[2]
    assert output == 3 * per_epoch[1] + 2 * per_epoch[2]


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 6])
def test_resumed_at_any_point_it_is_bitwise_the_same(stop_after, dataset, tmp_path, whole):
    """Within a stage and at its end."""
    _, done = whole
    folder = tmp_path / "cut"

    def stop():
        found = newest_checkpoint(folder, "a")
        return found is not None and found.epoch >= stop_after

    with pytest.raises(StoppedBySignal):
        train(dataset, folder, staged(), should_stop=stop)
    assert newest_checkpoint(folder, "a").epoch == stop_after
    assert_equal(train(dataset, folder, staged()), done)


def test_two_workers_make_the_same_to_rounding(dataset, tmp_path, whole):
    _, done = whole
    found = train_on_workers(2, dataset, tmp_path, staged())
    for two, one in zip(found.networks, done.networks, strict=True):
        torch.testing.assert_close(two.theta_P, one.theta_P, rtol=1e-3, atol=1e-5)


def test_the_parts_are_exported_as_one_network(dataset, whole):
    folder, done = whole
    job = job_of(dataset, staged(), name="m", seed=11, folder=folder, fingerprint="a")
    card = export_model(job)
    assert (card.num_networks, card.num_components) == (1, 2)
    manifest = read_manifest(dataset)
    (part, *_) = manifest.parts_of("validation")
    rows = columns_of(read_part(dataset, part))
    raw_NF = torch.from_numpy(np.stack([rows[f.name] for f in card.inputs], axis=1)).float()
    networks = run_onnx(folder / "networks.onnx", raw_NF, ["networks"])["networks"]
    mean_N = mixture_mean(torch.from_numpy(networks[0].T))
    truth_N = torch.from_numpy(np.log10(rows[card.require_target().name]))
    assert (mean_N - truth_N).square().mean() < truth_N.var()
    assert card.scores["validation_nll"] == pytest.approx(
        done.history[-1]["validation_nll"], rel=1e-4
    )
