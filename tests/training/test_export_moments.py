import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import truncnorm

from training.export.moments import (
    mass_between,
    moments_of_l_within,
    moments_within,
    sigmas_within,
    upper_tail,
)

LN10 = math.log(10.0)
RANGE = (-1.1, 1.6)
SEARCH_RANGE = torch.tensor(RANGE)


def integrated_moments(mean, log_variance, log_weight, search_range):
    """Mean and variance of R by summing the density over a fine grid around each component."""
    s = np.exp(0.5 * log_variance)
    total = np.zeros(3)
    for m, width, weight in zip(mean, s, np.exp(log_weight), strict=False):
        low = max(search_range[0], m - 12 * width)
        high = min(search_range[1], m + 12 * width)
        if low >= high:
            continue
        log_r = np.linspace(low, high, 20_001)
        density = weight * np.exp(-((log_r - m) ** 2) / (2 * width**2))
        density /= width * math.sqrt(2 * math.pi)
        total += [np.trapezoid(density * 10 ** (j * log_r), log_r) for j in range(3)]
    first, second = total[1] / total[0], total[2] / total[0]
    return first, second - first**2


def test_tail_keeps_its_relative_precision():
    z = torch.linspace(0.0, 12.0, 2001)
    expected = ndtr(-z.double().numpy())
    np.testing.assert_allclose(upper_tail(z).double().numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize(("low", "high"), [(-3, 2), (1, 2), (-2, -1), (4, 9), (-9, -4), (0, 5)])
def test_mass_between_bounds(low, high):
    found = mass_between(torch.tensor(float(low)), torch.tensor(float(high))).item()
    expected = ndtr(high) - ndtr(low) if low <= 0 else ndtr(-low) - ndtr(-high)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("centre_of_log_variance", [-1.0, -4.0, -8.0, -11.0])
def test_moments_equal_numerical_integration(centre_of_log_variance):
    generator = torch.Generator().manual_seed(int(-centre_of_log_variance))
    mean = 0.5 * torch.randn(1, 60, 3, generator=generator)
    log_variance = centre_of_log_variance + torch.randn(1, 60, 3, generator=generator)
    log_variance = log_variance.clamp(-14.0, 0.0)
    log_weight = torch.log_softmax(torch.randn(1, 60, 3, generator=generator), dim=-1)
    average, variance = moments_within(mean, log_variance, log_weight, SEARCH_RANGE)
    for row in range(60):
        parts = (part[0, row].double().numpy() for part in (mean, log_variance, log_weight))
        first, second = integrated_moments(*parts, RANGE)
        assert average[0, row].item() == pytest.approx(first, rel=2e-5)
        assert math.sqrt(variance[0, row].item()) == pytest.approx(math.sqrt(second), rel=1e-4)


def test_moments_of_l_are_those_of_cut_gaussians():
    generator = torch.Generator().manual_seed(7)
    mean, log_variance = (torch.randn(1, 60, 1, generator=generator) for _ in range(2))
    found = moments_of_l_within(mean, log_variance, torch.zeros(1, 60, 1), SEARCH_RANGE)
    for row in range(60):
        m, s = mean[0, row, 0].item(), math.exp(0.5 * log_variance[0, row, 0].item())
        cut = truncnorm((RANGE[0] - m) / s, (RANGE[1] - m) / s, loc=m, scale=s)
        assert found[0][0, row].item() == pytest.approx(cut.mean(), abs=1e-5)
        assert found[1][0, row].item() == pytest.approx(cut.var(), rel=1e-4)


def test_narrow_component_has_the_width_of_a_lognormal():
    s = math.exp(-7.0)
    parts = torch.tensor([[[0.3]]]), torch.tensor([[[-14.0]]]), torch.zeros(1, 1, 1)
    average, variance = moments_within(*parts, SEARCH_RANGE)
    expected = 10**0.3 * math.exp((s * LN10) ** 2 / 2)
    assert average.item() == pytest.approx(expected, rel=1e-6)
    width = expected * math.sqrt(math.expm1((s * LN10) ** 2))
    assert math.sqrt(variance.item()) == pytest.approx(width, rel=1e-4)


def test_network_outside_the_range_counts_as_points():
    parts = torch.tensor([[[9.0, -40.0]]]), torch.tensor([[[-4.0, 0.0]]])
    average, variance = moments_within(
        *parts, torch.log(torch.tensor([[[0.5, 0.5]]])), SEARCH_RANGE
    )
    values = 10 ** RANGE[1], 10 ** RANGE[0]
    assert average.item() == pytest.approx(sum(values) / 2, rel=1e-5)
    assert math.sqrt(variance.item()) == pytest.approx((values[0] - values[1]) / 2, rel=1e-5)


def test_sigmas_are_mean_variance_and_variance_of_means():
    generator = torch.Generator().manual_seed(3)
    mean, log_variance = (
        torch.randn(5, 7, 2, generator=generator) * 0.3,
        torch.full((5, 7, 2), -4.0),
    )
    log_weight = torch.full((5, 7, 2), math.log(0.5))
    average, variance = moments_within(mean, log_variance, log_weight, SEARCH_RANGE)
    found = sigmas_within(mean, log_variance, log_weight, SEARCH_RANGE)
    torch.testing.assert_close(found[0], average.mean(0))
    torch.testing.assert_close(found[1], variance.mean(0).sqrt())
    torch.testing.assert_close(found[2], average.var(0, unbiased=False).sqrt())


def test_one_network_has_no_statistical_sigma():
    parts = torch.zeros(1, 4, 1), torch.full((1, 4, 1), -4.0), torch.zeros(1, 4, 1)
    assert not sigmas_within(*parts, SEARCH_RANGE)[2].any()
