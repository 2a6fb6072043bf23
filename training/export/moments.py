"""Mean and variance of R = 10^l, or of l, for a Gaussian mixture in l within a range of l.

Closed form with tails that keep their relative precision in float32 (arXiv 2412.04370, Eqs. 40
to 42 in R): the j-th moment of a component (m, s) is exp(j m L + (j s L)^2 / 2) times the mass of
a Gaussian moved by j s^2 L, with L = ln 10. Written with operations that ONNX has.

Shape letters: S networks, N rows, K components.
"""

import math

import torch
from torch import Tensor

LN10 = math.log(10.0)
LARGEST_EXPONENT = 80.0
SMALLEST_MASS = 1e-6  # of a component; below it the component counts as a point at its centre
EXPM1_SMALL, EXPM1_TERMS = 0.5, 9  # the series is right to 3e-9 below 0.5
OUTSIDE_WEIGHT = 1e-12  # what a component outside the range keeps, so that no network is empty

# ln(erfc(x) / t) + x^2 as a polynomial in t = 1 / (1 + x / 2): relative error of erfc 1.2e-7 for
# all x >= 0 (Numerical Recipes, the Chebyshev fit of the complementary error function).
_ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)


def upper_tail(z: Tensor) -> Tensor:
    """The mass of a standard normal above z, for z >= 0, with small relative error."""
    scaled = z * math.sqrt(0.5)
    t = 1.0 / (1.0 + 0.5 * scaled)
    exponent = torch.full_like(t, _ERFC[-1])
    for coefficient in reversed(_ERFC[:-1]):
        exponent = exponent * t + coefficient
    return 0.5 * t * torch.exp(exponent - scaled * scaled)


def mass_between(low: Tensor, high: Tensor) -> Tensor:
    """The mass of a standard normal between two bounds, without cancellation in the tails."""
    tail_low, tail_high = upper_tail(low.abs()), upper_tail(high.abs())
    same_side = torch.where(low > 0.0, tail_low - tail_high, tail_high - tail_low)
    return torch.where((low <= 0.0) & (high >= 0.0), 1.0 - tail_low - tail_high, same_side)


def _expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 for x >= 0; ONNX would take the difference, which is rounding for a small x."""
    series = torch.ones_like(x)
    for order in range(EXPM1_TERMS, 1, -1):
        series = 1.0 + series * x / order
    is_small = x < EXPM1_SMALL
    return torch.where(is_small, x * series, torch.exp(x) - 1.0)


def moments_within(
    mean: Tensor, log_variance: Tensor, log_weight: Tensor, search_range: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of R of each network's density within a range, renormalised, [S, N].

    Args:
        mean: Component centres [S, N, K] in log10 R.
        log_variance: Natural log of their variances.
        log_weight: Natural log of their weights.
        search_range: [2], bounds of log10 R.
    """
    low, high = search_range[0], search_range[1]
    sigma = torch.exp(0.5 * log_variance)
    tilt = sigma * LN10
    mass, first, second = (
        mass_between((low - mean) / sigma - j * tilt, (high - mean) / sigma - j * tilt)
        for j in range(3)
    )
    is_inside = mass > SMALLEST_MASS
    safe_mass = torch.where(is_inside, mass, torch.ones_like(mass))
    first, second = first / safe_mass, second / safe_mass
    scale = torch.exp((mean * LN10 + 0.5 * tilt * tilt).clamp(max=0.5 * LARGEST_EXPONENT))
    point = torch.exp(torch.clamp(mean, low, high) * LN10)
    centre = torch.where(is_inside, scale * first, point)
    # E2 / E0 - (E1 / E0)^2 without the difference of two numbers near 1 for a narrow component
    spread = scale * scale * (_expm1(tilt * tilt) * second + (second - first * first))
    spread = torch.where(is_inside, spread.clamp(min=0.0), torch.zeros_like(spread))
    return _of_components(log_weight, mass, centre, spread)


def moments_of_l_within(
    mean: Tensor, log_variance: Tensor, log_weight: Tensor, search_range: Tensor
) -> tuple[Tensor, Tensor]:
    """As `moments_within`, of l itself.

    A Gaussian cut to [a, b] in widths has the mean (f(a) - f(b)) / M and the second moment
    1 + (a f(a) - b f(b)) / M, with f the standard normal density and M its mass between.
    """
    sigma = torch.exp(0.5 * log_variance)
    low, high = ((bound - mean) / sigma for bound in (search_range[0], search_range[1]))
    mass = mass_between(low, high)
    is_inside = mass > SMALLEST_MASS
    safe_mass = torch.where(is_inside, mass, torch.ones_like(mass))
    below, above = (torch.exp(-0.5 * z * z) * math.sqrt(0.5 / math.pi) for z in (low, high))
    first = (below - above) / safe_mass
    second = 1.0 + (low * below - high * above) / safe_mass
    point = torch.clamp(mean, search_range[0], search_range[1])
    centre = torch.where(is_inside, mean + sigma * first, point)
    spread = sigma * sigma * (second - first * first)
    spread = torch.where(is_inside, spread.clamp(min=0.0), torch.zeros_like(spread))
    return _of_components(log_weight, mass, centre, spread)


def _of_components(
    log_weight: Tensor, mass: Tensor, centre: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of each network's density from those of its components, [S, N]."""
    # a clamp: the exporter takes an addition of so little for one of nothing and drops it
    share = torch.exp(log_weight) * mass.clamp(min=OUTSIDE_WEIGHT)
    share = share / share.sum(dim=-1, keepdim=True)
    average = (share * centre).sum(dim=-1)
    variance = (share * (spread + (centre - average.unsqueeze(-1)) ** 2)).sum(dim=-1)
    return average, variance


def sigmas_within(
    mean: Tensor,
    log_variance: Tensor,
    log_weight: Tensor,
    search_range: Tensor,
    *,
    is_log: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, sigma_syst and sigma_stat of R, or of l if it is no logarithm, each [N].

    sigma_syst^2 is the mean over the networks of their variance, sigma_stat^2 the variance of
    their means, divided by S (Eqs. 40 to 42).
    """
    moments = moments_within if is_log else moments_of_l_within
    return over_networks(*moments(mean, log_variance, log_weight, search_range))


def over_networks(average_SN: Tensor, variance_SN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, sigma_syst and sigma_stat, each [N], from each network's mean and variance."""
    # sums, since the exporter would call a mean `mean`, as one of the outputs is called
    count = average_SN.shape[0]  # which the exporter can leave free
    mean_N = average_SN.sum(dim=0) / count
    stat_N = (((average_SN - mean_N) ** 2).sum(dim=0) / count).sqrt()
    return mean_N, (variance_SN.sum(dim=0) / count).sqrt(), stat_N
