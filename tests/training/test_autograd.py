"""The learners of any module: each treatment against the hand-written step of the same network."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_fixtures import job_of, tiny_ensemble, tiny_settings, write_tiny_dataset
from training_processes import assert_equal, train, train_on_workers

from pipeline.formats.card import read_card
from pipeline.formats.errors import StoppedBySignal
from training.checkpoint import newest_checkpoint
from training.export.model import export_model
from training.learners.autograd import AutogradBayesian
from training.losses.density_nll import log_density, mixture_mean
from training.networks import mlp
from training.networks.modules import fully_connected
from training.settings import BnnSettings, MixtureDensitySettings, RepulsiveEnsembleSettings
from training.steps.autograd import (
    AutogradMembersStep,
    AutogradStep,
    FlatParameters,
    Forward,
    add_kl_gradient,
    draw_weights,
    kl_divergence,
    with_gaussian_weights,
)
from training.steps.members import FIGURES, EnsembleStep, aligned_rows
from training.steps.noise import keys_of_epoch
from training.steps.operations import PLAIN
from training.steps.sampled import Batch, SampledStep
from training.steps.sums import GradientSums
from training.steps.weight_sets import PlainStep, mixture_loss, rectified

SIZES = (4, 7, 5, 6)
BOUNDS = (-3.0, 0.5)
KEY = keys_of_epoch(3, 1, 2)[1]
PRECISION = [(torch.float32, 1e-6), (torch.float64, 1e-12)]


def loss_of(outputs, target):
    return -log_density(outputs, target, BOUNDS)


def batch_of(rows, dtype):
    generator = torch.Generator().manual_seed(1)
    x_BF = torch.randn(rows, SIZES[0], generator=generator, dtype=dtype)
    target_B = 0.3 * torch.randn(rows, generator=generator, dtype=dtype)
    weight_B = torch.randn(rows, generator=generator, dtype=dtype) + 1.0  # some are negative
    return Batch(x_BF, target_B, weight_B, KEY, first_block=3)


def plain_module(seed=0):
    return fully_connected(SIZES, torch.Generator().manual_seed(seed))


def gaussian_module(names=None):
    generator = torch.Generator().manual_seed(5)

    def draw(layer):
        return -2.0 + 0.1 * torch.randn(layer.weight.shape, generator=generator)

    return with_gaussian_weights(plain_module(), names, draw)


def by_name(module, theta_P):
    return FlatParameters.of(module).views(theta_P)


def handwritten_order(module, vector_P):
    """The numbers of a vector in the order of `mlp`: weights, log variances if any, then biases."""
    views = by_name(module, vector_P)
    parts = [
        [values.flatten() for name, values in views.items() if name.endswith(kind)]
        for kind in ("weight", "log_variance", "bias")
    ]
    return torch.cat([each for part in parts for each in part])


def sums_for(theta_P):
    return GradientSums.of(torch.full((len(theta_P) + 2,), torch.nan, dtype=theta_P.dtype))


def scaled_difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def autograd_sums(module, given, dtype):
    theta_P = FlatParameters.of(module).values(module).to(dtype).requires_grad_()
    sums = sums_for(theta_P.detach())
    AutogradStep(theta_P, sums, Forward(module), loss_of, len(given.x_BF))(given)
    return theta_P.detach(), sums


@pytest.mark.parametrize(("dtype", "allowed"), PRECISION)
def test_a_plain_network(dtype, allowed):
    module, given = plain_module(), batch_of(600, dtype)
    theta_P, found = autograd_sums(module, given, dtype)
    same_P = handwritten_order(module, theta_P)
    expected = sums_for(same_P)
    loss = mixture_loss(PLAIN, BOUNDS)
    PlainStep(same_P, expected, SIZES, 600, units=rectified(PLAIN), loss=loss)(given)
    gradient_P = handwritten_order(module, found.gradient_P)
    assert scaled_difference(gradient_P, expected.gradient_P) < allowed
    assert scaled_difference(found.loss, expected.loss) < allowed


@pytest.mark.parametrize(("dtype", "allowed"), PRECISION)
@pytest.mark.parametrize("rows", [6, 1100])
def test_a_network_with_gaussian_weights(rows, dtype, allowed):
    """With the same noise, row by row."""
    module, given = gaussian_module(), batch_of(rows, dtype)
    theta_P, found = autograd_sums(module, given, dtype)
    same_P = handwritten_order(module, theta_P)
    expected = sums_for(same_P)
    SampledStep(same_P, expected, SIZES, rows, bounds=BOUNDS, operations=PLAIN)(given)
    gradient_P = handwritten_order(module, found.gradient_P)
    assert scaled_difference(gradient_P, expected.gradient_P) < allowed
    assert scaled_difference(found.loss, expected.loss) < allowed
    prior = {"prior_sigma": 0.7, "num_rows": 1000}
    add_kl_gradient(found.gradient_P, theta_P, module, *prior.values())
    weights = mlp.count_weights(SIZES)
    mlp.add_kl_gradient(expected.gradient_P, same_P, num_weights=weights, **prior)
    gradient_P = handwritten_order(module, found.gradient_P)
    assert scaled_difference(gradient_P, expected.gradient_P) < allowed
    kl = mlp.kl_divergence(same_P, weights, 0.7).item()
    assert kl_divergence(theta_P, module, 0.7) == pytest.approx(kl, rel=10 * allowed)


@pytest.mark.parametrize(("dtype", "allowed"), PRECISION)
@pytest.mark.parametrize("kernel", ["mixture_mean", "nll", "outputs"])
def test_members_that_repel_each_other(kernel, dtype, allowed):
    members, rows = 3, 200
    module, given = plain_module(), batch_of(rows, dtype)
    starts = [plain_module(seed) for seed in range(members)]
    leaves = [FlatParameters.of(each).values(each).to(dtype).requires_grad_() for each in starts]
    gradients = [torch.full_like(each, torch.nan) for each in leaves]
    settings = tiny_ensemble(
        members=members, kernel=kernel, log_variance_bounds=BOUNDS, repulsion_scale=3e3
    )
    num_rows = 1000
    predict = {
        "mixture_mean": lambda outputs, _: mixture_mean(outputs),
        "nll": loss_of,
        "outputs": lambda outputs, _: outputs,
    }
    step = AutogradMembersStep(
        leaves,
        gradients,
        Forward(module),
        loss=loss_of,
        predict=predict[kernel],
        members=members,
        numbers=range(members),
        strength=settings.repulsion_scale / num_rows,
        prior=1.0 / (num_rows * settings.prior_sigma**2),
        all_reduce=lambda _: None,
    )
    step(given)
    same_MP = torch.stack([handwritten_order(module, each.detach()) for each in leaves])
    theta_MP = aligned_rows(*same_MP.shape, same_MP).copy_(same_MP)
    grad_MP = aligned_rows(*same_MP.shape, same_MP)
    expected = EnsembleStep(
        theta_MP,
        grad_MP,
        SIZES,
        rows,
        settings=settings,
        num_rows=num_rows,
        numbers=range(members),
        all_reduce=lambda _: None,
        operations=PLAIN,
    )
    expected(given)
    for found_P, expected_P in zip(gradients, grad_MP, strict=True):
        assert scaled_difference(handwritten_order(module, found_P), expected_P) < 3 * allowed
    assert step.figures_MF.shape == (members, FIGURES)
    torch.testing.assert_close(step.figures_MF, expected.figures_MF, rtol=1e2 * allowed, atol=0.0)
    torch.testing.assert_close(step.bandwidth, expected.bandwidth, rtol=1e2 * allowed, atol=0.0)


def test_gaussian_weights_in_named_layers_alone():
    """The KL is that of these layers, and a draw leaves the others as they are."""
    module = gaussian_module(["4"])
    theta_P = FlatParameters.of(module).values(module)
    assert [name for name in by_name(module, theta_P) if name.endswith("log_variance")] == [
        "4.log_variance"
    ]
    _, sums = autograd_sums(module, batch_of(20, torch.float32), torch.float32)
    before_P = sums.gradient_P.clone()
    add_kl_gradient(sums.gradient_P, theta_P, module, 1.0, 100)
    moved = {
        name
        for name, change in by_name(module, sums.gradient_P - before_P).items()
        if change.abs().max() > 0
    }
    assert moved == {"4.weight", "4.log_variance"}
    drawn = draw_weights(module, theta_P, torch.Generator().manual_seed(2))
    assert torch.equal(drawn["0.weight"], by_name(module, theta_P)["0.weight"])
    assert not torch.equal(drawn["4.weight"], by_name(module, theta_P)["4.weight"])


def test_a_name_that_is_no_linear_layer_is_refused():
    with pytest.raises(ValueError, match="no linear layer is called 1; there are 0, 2, 4"):
        gaussian_module(["1"])


def test_a_layer_that_elements_of_a_row_share_is_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 6)

        def forward(self, x_BF):
            return self.layer(x_BF.view(-1, 2, 2)).sum(dim=1)

    module = with_gaussian_weights(Shared(), None, lambda layer: torch.zeros_like(layer.weight))
    with pytest.raises(ValueError, match="takes a layer that sees each row once"):
        autograd_sums(module, batch_of(8, torch.float32), torch.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset"), with_weights=True)


SPLIT = {"family": "split_normal", "hidden": (8, 8), "epochs": 3, "batch_rows": 512}
KINDS = {
    "mixture_density": MixtureDensitySettings(**SPLIT, prior_sigma=1.0),
    "bnn": BnnSettings(**SPLIT, samples=3),
    "repulsive_ensemble": RepulsiveEnsembleSettings(**SPLIT, members=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_family_learns_and_resumes_bitwise(kind, dataset, tmp_path):
    settings = KINDS[kind]
    whole = train(dataset, tmp_path / "whole", settings)
    losses = [record["validation_nll"] for record in whole.history]
    assert losses[-1] < losses[0]
    asked = iter([False] * 12 + [True])
    with pytest.raises(StoppedBySignal):
        train(dataset, tmp_path / "cut", settings, should_stop=lambda: next(asked, True))
    assert 0 < newest_checkpoint(tmp_path / "cut", "a").epoch < settings.epochs
    assert_equal(train(dataset, tmp_path / "cut", settings), whole)


@pytest.mark.parametrize("kind", ["bnn", "repulsive_ensemble"])
def test_two_workers_make_the_same(kind, dataset, tmp_path):
    """To rounding where they share the rows of a batch."""
    settings = KINDS[kind]
    one = train(dataset, tmp_path / "one", settings)
    two = train_on_workers(2, dataset, tmp_path / "two", settings)
    for found, expected in zip(two.networks, one.networks, strict=True):
        torch.testing.assert_close(found.theta_P, expected.theta_P, rtol=1e-3, atol=1e-5)


def test_gaussian_mixtures_train_as_the_handwritten_learner(dataset, tmp_path, monkeypatch):
    """The same start, the same noise: equal but for rounding after an epoch."""
    settings = tiny_settings(epochs=1)
    expected = train(dataset, tmp_path / "handwritten", settings)
    monkeypatch.setattr("training.learners.bayesian.BayesianNetwork", AutogradBayesian)
    found = train(dataset, tmp_path / "autograd", settings)
    for key in ("train_nll", "validation_nll", "kl"):
        assert found.history[0][key] == pytest.approx(expected.history[0][key], rel=1e-3)


def test_the_last_layer_alone_is_gaussian(dataset, tmp_path):
    """Its networks share the layers before it, and only its weights are drawn."""
    settings = BnnSettings(
        hidden=(8, 8), epochs=2, batch_rows=512, samples=3, gaussian_layers=(-1,)
    )
    train(dataset, tmp_path, settings)
    job = {"name": "last", "seed": 11, "folder": tmp_path, "fingerprint": "a"}
    export_model(job_of(dataset, settings, **job))
    tensors = load_file(tmp_path / "weights.safetensors")
    logs = [name for name in tensors if name.endswith("log_variance")]
    assert logs == ["4.log_variance"]
    for name in ("weight.0", "bias.0", "weight.1", "bias.1", "bias.2"):
        first, *others = (tensors[f"drawn.{number:03d}.{name}"] for number in range(3))
        assert all(torch.equal(each, first) for each in others)
    first, second = (tensors[f"drawn.{number:03d}.weight.2"] for number in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(tensors["0.weight"], tensors["drawn.000.weight.0"])
    card = read_card(tmp_path)
    assert card.num_networks == 3
    assert card.scores["kl_per_row"] > 0


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"there are 3 layers, 0 to 2, got \[3\]"):
        BnnSettings(hidden=(8, 8), gaussian_layers=(0, 3))


def test_few_digits_change_products_alone(dataset, tmp_path):
    """Gradient and parameters stay float32, outputs are near those of float32."""
    module, given = gaussian_module(), batch_of(200, torch.float32)
    theta_P = FlatParameters.of(module).values(module)
    found = {}
    for autocast in (None, "bfloat16"):
        leaf_P, sums = theta_P.clone().requires_grad_(), sums_for(theta_P)
        forward = Forward(module, autocast=autocast)
        AutogradStep(leaf_P, sums, forward, loss_of, len(given.x_BF))(given)
        assert sums.gradient_P.dtype == torch.float32
        found[autocast] = sums.gradient_P.clone()
    assert not torch.equal(found[None], found["bfloat16"])
    assert scaled_difference(found["bfloat16"], found[None]) < 0.05
    settings = BnnSettings(hidden=(8,), epochs=2, batch_rows=512, samples=2, autocast="bfloat16")
    done = train(dataset, tmp_path, settings)
    assert all(torch.isfinite(network.theta_P).all() for network in done.networks)
    assert done.networks[0].theta_P.dtype == torch.float32


def test_a_compiled_module_is_the_same_function():
    """Traced once for all numbers of rows; without the compiler of kernels, which takes minutes."""
    module = plain_module()
    theta_P = FlatParameters.of(module).values(module).requires_grad_()
    plain, fused = Forward(module), Forward(module, fuse=True, backend="aot_eager")
    for rows in (5, 9):
        x_BF = batch_of(rows, torch.float32).x_BF
        expected, found = plain(theta_P, (x_BF,)), fused(theta_P, (x_BF,))
        torch.testing.assert_close(found, expected)
        gradients = [
            torch.autograd.grad(each.square().sum(), theta_P)[0] for each in (found, expected)
        ]
        torch.testing.assert_close(*gradients)
