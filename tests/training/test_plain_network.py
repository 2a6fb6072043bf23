"""Networks with one output: their losses, the two stages, and their export."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from training_fixtures import job_of, tiny_dnn, write_tiny_dataset
from training_processes import assert_equal, train

from pipeline.formats.errors import StoppedBySignal
from pipeline.formats.manifest import read_manifest, read_part
from pipeline.formats.transforms import scale
from training.checkpoint import newest_checkpoint
from training.data.training_data import read_training_data, scalings_of
from training.export.model import export_model
from training.history import read_history
from training.losses.point import CrossEntropy, LeakyKernel
from training.networks import mlp as network
from training.settings import DnnSettings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"), with_weights=True)


def leaky_kernel(output, log10_truth, width, leakiness, *, is_log, residual="ratio"):
    """As in the public code of the note's authors: minus a Gaussian kernel plus a leak."""
    predicted = 10**output if is_log else 2 * (torch.tanh(output) + 1)
    x = predicted / 10**log10_truth
    x = x.log() if residual == "log_ratio" else x - 1
    kernel = torch.exp(-(x**2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))
    return -kernel + leakiness * x.abs()


def rows(count=400):
    generator = torch.Generator().manual_seed(2)
    output_B = 0.7 * torch.randn(count, generator=generator, dtype=torch.float64)
    target_B = 0.3 * torch.randn(count, generator=generator, dtype=torch.float64)
    weight_B = torch.randn(count, generator=generator, dtype=torch.float64) + 1.0
    return output_B.requires_grad_(), target_B, weight_B


@pytest.mark.parametrize("output", ["bounded", "log10"])
@pytest.mark.parametrize("residual", ["ratio", "log_ratio"])
@pytest.mark.parametrize(("epoch", "leakiness"), [(1, 0.05), (2, 0.0)])
def test_leaky_kernel_and_its_derivative(output, residual, epoch, leakiness):
    settings = tiny_dnn(output=output, residual=residual, width=0.2)
    output_B, target_B, weight_B = rows()
    shape = {"is_log": output == "log10", "residual": residual}
    loss_B = leaky_kernel(output_B, target_B, 0.2, leakiness, **shape)
    (expected_B,) = torch.autograd.grad((weight_B * loss_B).sum(), output_B)
    loss, grad_BO = LeakyKernel(settings, target_B), torch.full((len(target_B), 1), torch.nan)
    loss.start_epoch(epoch)
    grad_BO = grad_BO.double()
    total = loss(output_B.detach()[:, None], target_B, weight_B, grad_BO)
    torch.testing.assert_close(total, (weight_B * loss_B.detach()).sum())
    torch.testing.assert_close(grad_BO[:, 0], expected_B)
    torch.testing.assert_close(loss.of_rows(output_B.detach(), target_B), loss_B.detach())


def test_minimum_of_the_kernel_is_the_mode_in_log10():
    """Of a log-normal the mode of log10 is its median, whatever its width."""
    generator = torch.Generator().manual_seed(4)
    target_B = 0.2 + 0.15 * torch.randn(200_000, generator=generator, dtype=torch.float64)
    loss = LeakyKernel(tiny_dnn(output="log10", width=0.05), target_B)
    loss.start_epoch(2)
    grid = torch.linspace(-0.1, 0.5, 121, dtype=torch.float64)
    mean_loss = torch.stack([
        loss.of_rows(at.expand(len(target_B)), target_B).mean() for at in grid
    ])
    assert grid[mean_loss.argmin()].item() == pytest.approx(0.2, abs=0.02)


def test_bounded_output_is_positive_and_below_four():
    output_B = torch.tensor([-30.0, -9.0, 0.0, 1.0, 30.0])
    log10_B = LeakyKernel(DnnSettings(), torch.zeros(())).log10_of(output_B)
    expected = torch.log10(2 * (torch.tanh(output_B.double()[2:]) + 1)).float()
    torch.testing.assert_close(log10_B[2:], expected)
    assert torch.isfinite(log10_B).all()


def test_cross_entropy_and_its_derivative():
    output_B, _, weight_B = rows()
    label_B = (torch.arange(len(output_B)) % 3 == 0).double()
    reference = torch.nn.functional.binary_cross_entropy_with_logits
    total = reference(output_B, label_B, weight=weight_B, reduction="sum")
    (expected_B,) = torch.autograd.grad(total, output_B)
    grad_BO = torch.full((len(output_B), 1), torch.nan, dtype=torch.float64)
    found = CrossEntropy()(output_B.detach()[:, None], label_B, weight_B, grad_BO)
    torch.testing.assert_close(found, total.detach())
    torch.testing.assert_close(grad_BO[:, 0], expected_B)


def test_stages_follow_each_other():
    settings = DnnSettings(stages=[{"epochs": 2, "leakiness": 0.05}, {"epochs": 3}])
    assert settings.epochs == 5
    assert [settings.leakiness_at(epoch) for epoch in range(5)] == [0.05, 0.05, 0.0, 0.0, 0.0]
    assert DnnSettings().epochs == 200


def test_history_tells_the_loss_of_the_stage(dataset, tmp_path):
    settings = tiny_dnn()
    found = train(dataset, tmp_path, settings)
    rows = read_training_data(dataset, None).validation
    layers = network.split_member(found.networks[0].theta_P, (4, 16, 12, 1))
    output_B = network.forward_fixed(layers, rows.x_NF, "swish")[:, 0]
    loss_B = leaky_kernel(output_B, rows.target_N, 0.3, 0.0, is_log=False)
    expected = (rows.weight_N * loss_B).double().mean().item()
    assert found.history[-1]["validation_loss"] == pytest.approx(expected, rel=1e-5)
    longer = train(dataset, tmp_path / "leaky", tiny_dnn(stages=[{"epochs": 3, "leakiness": 0.05}]))
    assert longer.history[1]["train_loss"] == found.history[1]["train_loss"]
    assert longer.history[2]["train_loss"] > found.history[2]["train_loss"]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_resumed_training_is_bitwise_the_same_across_the_border_of_stages(
    dataset, tmp_path, stop_after
):
    whole = train(dataset, tmp_path / "whole", tiny_dnn())
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > 3 * stop_after  # three batches an epoch

    with pytest.raises(StoppedBySignal, match=f"after epoch {stop_after} of 3"):
        train(dataset, tmp_path / "stopped", tiny_dnn(), should_stop=stop)
    assert_equal(whole, train(dataset, tmp_path / "stopped", tiny_dnn()))


@pytest.fixture(scope="module", params=["bounded", "log10"])
def exported(request, dataset, tmp_path_factory):
    """The folder of a trained network, its settings and its card."""
    folder = tmp_path_factory.mktemp("models") / "dnn"
    settings = tiny_dnn(
        output=request.param, activation="swish" if request.param == "bounded" else "relu"
    )
    train(dataset, folder, settings)
    card = export_model(
        job_of(dataset, settings, name="dnn", seed=11, folder=folder, fingerprint="a")
    )
    return folder, settings, card


def test_exported_file_takes_raw_features_and_answers_as_torch(dataset, exported):
    folder, settings, card = exported
    assert (card.kind, card.density, card.num_networks) == ("dnn", "point", None)
    assert [output.name for output in card.outputs] == ["response"]
    assert DnnSettings.model_validate(card.settings) == settings
    manifest = read_manifest(dataset)
    table = read_part(dataset, manifest.parts_of("test")[0])
    names = [feature.name for feature in card.inputs]
    raw_NF = np.stack([table[name].to_numpy() for name in names], axis=1)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found_N,) = session.run(None, {"features": raw_NF})
    x_NF = scale({n: table[n].to_numpy() for n in names}, scalings_of(manifest, card.inputs))
    theta_P = newest_checkpoint(folder, "a").networks[0].theta_P
    layers = network.split_member(theta_P, (4, 16, 12, 1))
    output_N = network.forward_fixed(layers, torch.from_numpy(x_NF), settings.activation)[:, 0]
    expected_N = 10 ** LeakyKernel(settings, torch.zeros(())).log10_of(output_N)
    np.testing.assert_allclose(found_N, expected_N.numpy(), rtol=1e-5)


def test_card_has_the_loss_and_the_median_error_of_the_validation_rows(dataset, exported):
    folder, settings, card = exported
    last = read_history(folder)[-1]
    assert card.scores["validation_loss"] == pytest.approx(last["validation_loss"], rel=1e-5)
    assert card.scores["train_loss"] == last["train_loss"]
    rows = read_training_data(dataset, None).validation
    theta_P = newest_checkpoint(folder, "a").networks[0].theta_P
    layers = network.split_member(theta_P, (4, 16, 12, 1))
    output_N = network.forward_fixed(layers, rows.x_NF, settings.activation)[:, 0]
    error_N = (
        (LeakyKernel(settings, torch.zeros(())).log10_of(output_N) - rows.target_N).abs().numpy()
    )
    order_N = np.argsort(error_N)
    share_N = np.cumsum(rows.weight_N.numpy()[order_N], dtype=np.float64)
    expected = error_N[order_N][np.searchsorted(share_N, 0.5 * share_N[-1])]
    assert card.scores["validation_median_abs_error_log10"] == pytest.approx(expected, rel=1e-5)
