import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from training.networks import mlp as network

SIZES = (4, 7, 5, 6)


def layers_with(theta_P):
    return network.split_parameters(theta_P, SIZES)


def random_parameters(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    theta_P = network.initial_parameters(SIZES, -2.0, generator).to(dtype)
    return theta_P + 0.1 * torch.randn(len(theta_P), generator=generator, dtype=dtype)


def test_initial_parameters_have_the_widths_of_their_layers():
    sizes = (400, 300, 200)
    theta_P = network.initial_parameters(sizes, -9.0, torch.Generator().manual_seed(1))
    for inputs, layer in zip(sizes, network.split_parameters(theta_P, sizes), strict=False):
        assert layer.mean_OF.std().item() == pytest.approx(1 / math.sqrt(inputs), rel=0.02)
        assert layer.log_variance_OF.mean().item() == pytest.approx(-9.0, abs=1e-4)
        assert layer.log_variance_OF.std().item() == pytest.approx(1e-3, rel=0.02)
        assert not layer.bias_O.any()


@pytest.mark.parametrize("prior_sigma", [1.0, 0.4])
def test_kl_is_that_of_torch_and_leaves_biases_out(prior_sigma):
    theta_P = random_parameters(dtype=torch.float64)
    expected = sum(
        kl_divergence(
            Normal(layer.mean_OF, torch.exp(0.5 * layer.log_variance_OF)),
            Normal(torch.zeros((), dtype=torch.float64), prior_sigma),
        ).sum()
        for layer in layers_with(theta_P)
    )
    found = network.kl_divergence(theta_P, network.count_weights(SIZES), prior_sigma)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_kl_gradient_is_the_derivative():
    theta_P = random_parameters(dtype=torch.float64).requires_grad_()
    num_weights = network.count_weights(SIZES)
    (expected_P,) = torch.autograd.grad(
        network.kl_divergence(theta_P, num_weights, 0.7) / 50, theta_P
    )
    found_P = torch.ones_like(theta_P)
    network.add_kl_gradient(
        found_P, theta_P.detach(), num_weights=num_weights, prior_sigma=0.7, num_rows=50
    )
    torch.testing.assert_close(found_P - 1.0, expected_P)


def test_drawn_weights_have_the_posteriors_moments():
    theta_P = random_parameters()
    layers = layers_with(theta_P)
    generator = torch.Generator().manual_seed(6)
    drawn = torch.stack([
        network.draw_weights(layers, generator)[1].weight_OF for _ in range(20_000)
    ])
    sigma_OF = torch.exp(0.5 * layers[1].log_variance_OF)
    pull_OF = (drawn.mean(0) - layers[1].mean_OF) / (sigma_OF / math.sqrt(len(drawn)))
    assert pull_OF.abs().max() < 5
    torch.testing.assert_close(drawn.std(0), sigma_OF, rtol=0.03, atol=0.0)


def test_weight_sets_in_front_equal_one_after_the_other():
    theta_P, generator = random_parameters(), torch.Generator().manual_seed(7)
    sets = [network.draw_weights(layers_with(theta_P), generator) for _ in range(3)]
    x_BF = torch.randn(9, 4, generator=generator)
    stacked = [
        network.FixedLayer(
            torch.stack([layer.weight_OF for layer in layers]),
            torch.stack([layer.bias_O for layer in layers]).unsqueeze(1),
        )
        for layers in zip(*sets, strict=False)
    ]
    together = network.forward_fixed(stacked, x_BF.unsqueeze(0))
    for weights, outputs in zip(sets, together, strict=False):
        torch.testing.assert_close(network.forward_fixed(weights, x_BF), outputs)
