"""One plain network with a mixture output: its gradient, resume, workers and export."""

import numpy as np
import onnxruntime
import pytest
import torch
from reference.density_nll import summed_nll
from training_fixtures import job_of, write_tiny_dataset
from training_processes import assert_equal, train, train_on_workers

from pipeline.formats.errors import StoppedBySignal
from pipeline.formats.manifest import read_manifest, read_part
from training.checkpoint import newest_checkpoint
from training.data.rows import Chunk
from training.data.training_data import read_training_data, scalings_of
from training.export.finished import Trained
from training.export.mixture import networks_of
from training.export.model import export_model
from training.history import read_history
from training.learners.plain import DensityNetwork
from training.losses.density_nll import log_density
from training.networks.mlp import forward_fixed, split_member
from training.settings import MixtureDensitySettings
from training.steps.sampled import Batch
from training.worker import Worker


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"), with_weights=True)


def tiny(**changes):
    given = {"hidden": (8, 8), "components": 2, "epochs": 3, "batch_rows": 512}
    return MixtureDensitySettings.model_validate(given | changes)


def learner_of(dataset, settings):
    data = read_training_data(dataset, settings.features, settings.memory_mib)
    return DensityNetwork(data, settings, seed=3, worker=Worker()), data


@pytest.mark.parametrize("prior_sigma", [None, 0.5])
def test_gradient_is_that_of_autograd(dataset, prior_sigma):
    """Of the mean NLL of the batch, and of the prior's term if there is one."""
    settings = tiny(prior_sigma=prior_sigma)
    learner, data = learner_of(dataset, settings)
    rows = learner.plan[0].rows
    chunk = Chunk(torch.empty(rows, 4), torch.empty(rows), torch.empty(rows))
    data.train.sampler(3, 0)(learner.plan[:1], chunk)
    batch = Batch(chunk.x_NF, chunk.target_N, chunk.weight_N, torch.zeros(2, dtype=torch.int32), 0)
    learner.fill(batch)
    figures_C = torch.zeros(2)
    learner.reduce_gradients(rows, figures_C)
    theta_P = learner.theta_P.double().requires_grad_()
    outputs_BO = forward_fixed(split_member(theta_P, learner.sizes), chunk.x_NF.double())
    nll = summed_nll(
        outputs_BO, chunk.target_N.double(), chunk.weight_N.double(), settings.log_variance_bounds
    )
    loss = nll / rows
    if prior_sigma is not None:
        loss = loss + theta_P.square().sum() / (2.0 * len(data.train) * prior_sigma**2)
    (expected_P,) = torch.autograd.grad(loss, theta_P)
    torch.testing.assert_close(learner.networks[0].grad.double(), expected_P, rtol=1e-4, atol=1e-6)
    assert figures_C[0].item() == pytest.approx(nll.item(), rel=1e-5)


def test_resumed_training_is_bitwise_the_same(dataset, tmp_path):
    whole = train(dataset, tmp_path / "whole", tiny())
    asked = iter([False] * 12 + [True])
    with pytest.raises(StoppedBySignal):
        train(dataset, tmp_path / "cut", tiny(), should_stop=lambda: next(asked, True))
    assert 0 < newest_checkpoint(tmp_path / "cut", "a").epoch < 3
    assert_equal(train(dataset, tmp_path / "cut", tiny()), whole)


def test_two_workers_equal_one_to_rounding(dataset, tmp_path):
    settings = tiny(epochs=2)
    one = train(dataset, tmp_path / "one", settings)
    two = train_on_workers(2, dataset, tmp_path / "two", settings)
    torch.testing.assert_close(
        two.networks[0].theta_P, one.networks[0].theta_P, rtol=1e-4, atol=1e-5
    )


@pytest.fixture(scope="module")
def exported(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    settings = tiny(prior_sigma=1.0)
    train(dataset, folder, settings)
    card = export_model(
        job_of(dataset, settings, name="mdn", seed=11, folder=folder, fingerprint="a")
    )
    return folder, card, settings


def test_card_and_history(exported):
    folder, card, _ = exported
    assert (card.kind, card.density, card.num_networks) == (
        "mixture_density",
        "gaussian_mixture",
        1,
    )
    assert card.scores["validation_nll"] == pytest.approx(card.scores["validation_nll_single"])
    history = read_history(folder)
    assert history[-1]["validation_nll"] < history[0]["validation_nll"]
    assert history[-1]["prior"] > 0.0


def test_file_gives_the_networks_density(dataset, exported):
    folder, card, settings = exported
    manifest = read_manifest(dataset)
    (part, *_) = manifest.parts_of("validation")
    table = read_part(dataset, part)
    raw_NF = np.stack([table[feature.name].to_numpy() for feature in card.inputs], axis=1)
    session = onnxruntime.InferenceSession(folder / "networks.onnx")
    (outputs_SON,) = session.run(["networks"], {"features": raw_NF.astype(np.float32)})
    assert len(outputs_SON) == 1
    done = newest_checkpoint(folder, "a")
    networks = networks_of(Trained(manifest, card.inputs, done, 11), settings)
    scaled_NF = networks.scaled(torch.from_numpy(raw_NF.astype(np.float32)))
    layers = split_member(done.networks[0].theta_P, done.sizes)
    outputs_NO = forward_fixed(layers, scaled_NF)
    found_NO = torch.from_numpy(outputs_SON[0].T.copy())
    target_N = torch.zeros(len(raw_NF))
    bounds = settings.log_variance_bounds
    torch.testing.assert_close(
        log_density(found_NO, target_N, bounds),
        log_density(outputs_NO, target_N, bounds),
        rtol=1e-4,
        atol=1e-4,
    )
    assert len(scalings_of(manifest, card.inputs)) == raw_NF.shape[1]
