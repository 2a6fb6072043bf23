import math

import pytest
import torch
from reference.density_nll import summed_nll

from training.losses.density_nll import log_density, split_outputs

BOUNDS = (-14.0, 0.0)


def slow_nll(outputs, target, weight):
    """The definition, row by row and component by component."""
    components = outputs.shape[1] // 3
    total = 0.0
    for row, log_r, w in zip(outputs.tolist(), target.tolist(), weight.tolist(), strict=False):
        logits = row[2 * components :]
        norm = sum(math.exp(logit) for logit in logits)
        density = 0.0
        for k in range(components):
            variance = math.exp(min(max(row[components + k], BOUNDS[0]), BOUNDS[1]))
            gauss = math.exp(-((log_r - row[k]) ** 2) / (2 * variance))
            density += math.exp(logits[k]) / norm * gauss / math.sqrt(2 * math.pi * variance)
        total -= w * math.log(density)
    return total


@pytest.mark.parametrize("components", [1, 2, 5])
def test_nll_equals_its_slow_twin(components):
    generator = torch.Generator().manual_seed(components)
    outputs = torch.randn(40, 3 * components, generator=generator, dtype=torch.float64)
    target = torch.randn(40, generator=generator, dtype=torch.float64)
    weight = torch.rand(40, generator=generator, dtype=torch.float64)
    ones = torch.ones_like(weight)
    assert summed_nll(outputs, target, weight, BOUNDS).item() == pytest.approx(
        slow_nll(outputs, target, weight), rel=1e-12
    )
    assert summed_nll(outputs, target, None, BOUNDS).item() == pytest.approx(
        slow_nll(outputs, target, ones), rel=1e-12
    )


def test_density_integrates_to_one():
    outputs = torch.tensor([0.3, -0.8, -2.0, -30.0, 1.0, -1.0], dtype=torch.float64)
    grid = torch.linspace(-4, 4, 800_001, dtype=torch.float64)
    density = log_density(outputs.expand(len(grid), -1), grid, BOUNDS).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-7)


def test_far_targets_and_large_logits_stay_finite():
    outputs = torch.tensor([[0.0, 0.0, -40.0, 40.0, 300.0, -300.0]], requires_grad=True)
    nll = summed_nll(outputs, torch.tensor([9.0]), None, BOUNDS)
    nll.backward()
    assert torch.isfinite(nll)
    assert torch.isfinite(outputs.grad).all()


def test_log_variances_are_clamped_and_weights_normalised():
    outputs = torch.tensor([[0.1, 0.2, -50.0, 50.0, 3.0, 4.0]])
    _, log_variance, log_weight = split_outputs(outputs, BOUNDS)
    assert log_variance.tolist() == [[-14.0, 0.0]]
    assert log_weight.exp().sum().item() == pytest.approx(1.0, rel=1e-6)
