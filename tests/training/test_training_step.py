"""Each step's gradient against automatic differentiation of the formula that it stands for."""

import math

import numpy as np
import pytest
import torch
from reference.density_nll import summed_nll

from training.networks import mlp as network
from training.steps.noise import BLOCK_ROWS, fill_layer_noise, fill_pair_noise, keys_of_epoch
from training.steps.operations import COMPILED, PLAIN, operations_on
from training.steps.sampled import Batch, SampledStep
from training.steps.sums import GradientSums
from training.steps.weight_sets import SWISH, PairedStep, PlainStep, mixture_loss, rectified

SIZES = (4, 7, 5, 6)
BOUNDS = (-3.0, 0.5)
KEY = keys_of_epoch(3, 1, 2)[1]


def parameters(dtype=torch.float64, log_variance=-2.0):
    generator = torch.Generator().manual_seed(0)
    theta_P = network.initial_parameters(SIZES, log_variance, generator).to(dtype)
    return theta_P + 0.1 * torch.randn(len(theta_P), generator=generator, dtype=dtype)


def batch(rows, first_block=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x_BF = torch.randn(rows, SIZES[0], generator=generator, dtype=dtype)
    target_B = 0.3 * torch.randn(rows, generator=generator, dtype=dtype)
    weight_B = torch.randn(rows, generator=generator, dtype=dtype) + 1.0  # some are negative
    return Batch(x_BF, target_B, weight_B, KEY, first_block)


def sums_of(kind, theta_P, given, max_rows=None, **options):
    buffer = torch.full((len(theta_P) + 2,), torch.nan, dtype=theta_P.dtype)
    sums = GradientSums.of(buffer)
    options = {"bounds": BOUNDS, "operations": PLAIN} | options
    step = kind(theta_P, sums, SIZES, max_rows or len(given.x_BF), **options)
    step(given)
    return buffer[:-1]


def expected_of(forward, theta_P, given):
    theta_P = theta_P.clone().requires_grad_()
    nll = summed_nll(forward(theta_P), given.target_B, given.weight_B, BOUNDS)
    (grad_P,) = torch.autograd.grad(nll, theta_P)
    return torch.cat([grad_P, nll.detach()[None]])


def sampled_forward(theta_P, given):
    """Local reparametrisation as in the textbook."""
    rows = len(given.x_BF)
    buffers = [torch.empty(-(-rows // 512) * 512, width) for width in SIZES[1:]]
    noise = fill_layer_noise(buffers, given.key, given.first_block, rows)
    h_BF = given.x_BF
    layers = network.split_parameters(theta_P, SIZES)
    for index, (layer, noise_BO) in enumerate(zip(layers, noise, strict=True)):
        mean_BO = h_BF @ layer.mean_OF.T + layer.bias_O
        h_BF = mean_BO + (h_BF**2 @ layer.log_variance_OF.exp().T + 1e-12).sqrt() * noise_BO
        h_BF = h_BF.clamp(min=0.0) if index < len(layers) - 1 else h_BF
    return h_BF


def paired_forward(theta_P, given):
    """Row by row the network of its sub-batch."""
    num_weights = network.count_weights(SIZES)
    pairs = -(-len(given.x_BF) // 256)
    noise_NW = fill_pair_noise(
        torch.empty(pairs, num_weights), given.key, 2 * given.first_block, pairs
    ).double()
    outputs = []
    for first in range(0, len(given.x_BF), 128):
        pair, second = divmod(first // 128, 2)
        shift_W = noise_NW[pair] * (0.5 * theta_P[num_weights : 2 * num_weights]).exp()
        drawn_W = theta_P[:num_weights] + (-shift_W if second else shift_W)
        outputs.append(
            plain_forward(
                torch.cat([drawn_W, theta_P[2 * num_weights :]]), given.x_BF[first : first + 128]
            )
        )
    return torch.cat(outputs)


def plain_forward(theta_P, x_BF):
    num_weights = network.count_weights(SIZES)
    weights = network.split_weights(theta_P[:num_weights], SIZES)
    biases = theta_P[num_weights:].split(SIZES[1:])
    layers = [network.FixedLayer(*layer) for layer in zip(weights, biases, strict=True)]
    return network.forward_fixed(layers, x_BF)


@pytest.mark.parametrize("rows", [6, 1100])
def test_sampled_step_is_the_derivative(rows):
    theta_P, given = parameters(), batch(rows, first_block=3)
    expected = expected_of(lambda theta_P: sampled_forward(theta_P, given), theta_P, given)
    torch.testing.assert_close(sums_of(SampledStep, theta_P, given), expected)


@pytest.mark.parametrize("rows", [5, 130, 256, 1100])
def test_paired_step_is_the_derivative(rows):
    theta_P, given = parameters(), batch(rows, first_block=1)
    expected = expected_of(lambda theta_P: paired_forward(theta_P, given), theta_P, given)
    torch.testing.assert_close(sums_of(PairedStep, theta_P, given, 1536), expected)


@pytest.mark.parametrize(
    ("units", "activation"), [(rectified(PLAIN), "relu"), (SWISH, "swish")], ids=["relu", "swish"]
)
def test_plain_step_is_the_derivative(units, activation):
    theta_P, given = parameters(), batch(300)
    num_weights = network.count_weights(SIZES)
    theta_P = torch.cat([theta_P[:num_weights], theta_P[2 * num_weights :]])

    def forward(theta_P):
        return network.forward_fixed(network.split_member(theta_P, SIZES), given.x_BF, activation)

    buffer = torch.full((len(theta_P) + 2,), torch.nan, dtype=theta_P.dtype)
    sums = GradientSums.of(buffer)
    loss = mixture_loss(PLAIN, BOUNDS)
    PlainStep(theta_P, sums, SIZES, len(given.x_BF), units=units, loss=loss)(given)
    torch.testing.assert_close(buffer[:-1], expected_of(forward, theta_P, given))


@pytest.mark.parametrize("kind", [SampledStep, PairedStep])
def test_compiled_operations_equal_those_of_torch(kind):
    theta_P, given = parameters(torch.float32), batch(1100, dtype=torch.float32)
    assert operations_on(torch.device("cpu")) is COMPILED
    plain = sums_of(kind, theta_P, given)
    compiled = sums_of(kind, theta_P, given, operations=COMPILED)
    torch.testing.assert_close(compiled, plain, rtol=2e-5, atol=2e-5 * plain.abs().max().item())


@pytest.mark.parametrize("kind", [SampledStep, PairedStep])
def test_parts_of_a_batch_add_up_to_it(kind):
    """The slices of three workers, of unequal numbers of blocks."""
    theta_P, whole = parameters(), batch(4 * BLOCK_ROWS + 100)
    total = 0.0
    for begin, end in [(0, 1), (1, 3), (3, 5)]:
        rows = slice(begin * BLOCK_ROWS, end * BLOCK_ROWS)
        part = Batch(whole.x_BF[rows], whole.target_B[rows], whole.weight_B[rows], KEY, begin)
        total = total + sums_of(kind, theta_P, part)
    torch.testing.assert_close(total, sums_of(kind, theta_P, whole))


@pytest.mark.parametrize("operations", [PLAIN, COMPILED])
def test_first_layer_has_the_moments_of_its_weights(operations):
    """Units have mean mu x + bias and variance sigma^2 x^2."""
    mean_B, variance_B = torch.tensor([0.5, -1.0]), torch.tensor([0.3, 2.0])
    rows = 200_000
    noise_BO = torch.empty(-(-rows // BLOCK_ROWS) * BLOCK_ROWS, 2)
    (noise_BO,) = fill_layer_noise([noise_BO], KEY, 0, rows)
    out_BO, spread_BO = mean_B.repeat(rows, 1), variance_B.repeat(rows, 1)
    operations.sample(out_BO, spread_BO, torch.empty(rows, 2), noise_BO, False)
    assert ((out_BO.mean(0) - mean_B).abs() < 5 * (variance_B / rows).sqrt()).all()
    assert ((out_BO.var(0) / variance_B - 1).abs() < 5 * math.sqrt(2 / rows)).all()


@pytest.mark.parametrize("operations", [PLAIN, COMPILED])
def test_a_row_of_zeros_is_finite_and_a_broken_one_is_seen(operations):
    theta_P = parameters(torch.float32)
    given = batch(3, dtype=torch.float32)
    given.x_BF.zero_()
    assert torch.isfinite(sums_of(SampledStep, theta_P, given, operations=operations)).all()
    given.x_BF[1, 2] = torch.nan
    for kind in (SampledStep, PairedStep):
        assert torch.isnan(sums_of(kind, theta_P, given, operations=operations)[-1])


def test_a_variance_in_bfloat16_changes_its_gradient_little():
    theta_P, given = parameters(torch.float32, -6.0), batch(900, dtype=torch.float32)
    exact = sums_of(SampledStep, theta_P, given)
    rough = sums_of(SampledStep, theta_P, given, precision="bfloat16")
    assert 0.0 < (rough - exact).norm() / exact.norm() < 0.01
    same = sums_of(SampledStep, theta_P, given, precision="tf32")
    assert np.array_equal(same, exact)  # on a CPU
