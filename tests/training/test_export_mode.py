"""The mode finder of the exported graph against a search that leaves nothing out."""

import math

import numpy as np
import pytest
import torch

from training.export import mode
from training.export.mode import mode_within

LN10 = math.log(10.0)
RANGE = (-1.1, 1.6)
SEARCH_RANGE = torch.tensor(RANGE)
ROWS = 120


def brute_force(mean, log_variance, log_weight):
    """Mode and log density of p(log_r) 10^(-log_r) in float64, and the log density itself."""
    s = np.exp(0.5 * log_variance)

    def log_density(log_r):
        terms = log_weight - np.log(s) - (log_r[:, None] - mean) ** 2 / (2 * s * s)
        highest = terms.max(axis=1, keepdims=True)
        return highest[:, 0] + np.log(np.exp(terms - highest).sum(axis=1)) - LN10 * log_r

    peaks = np.clip(mean - LN10 * s * s, *RANGE)
    around = [np.clip(peaks + shift * s, *RANGE) for shift in (-0.5, 0.0, 0.5)]
    grid = np.unique(np.concatenate([np.linspace(*RANGE, 4001), *around]))
    value = log_density(grid)
    is_peak = (value >= np.r_[-np.inf, value[:-1]]) & (value >= np.r_[value[1:], -np.inf])
    candidates = np.flatnonzero(is_peak)
    best = (-math.inf, 0.0)
    for index in candidates[np.argsort(value[candidates])[-6:]]:
        low, high = grid[max(index - 1, 0)], grid[min(index + 1, len(grid) - 1)]
        for _ in range(5):
            zoomed = np.linspace(low, high, 41)
            inner = log_density(zoomed)
            top = int(inner.argmax())
            low, high = zoomed[max(top - 1, 0)], zoomed[min(top + 1, 40)]
        best = max(best, (float(inner[top]), float(zoomed[top])))
    return best[1], best[0], log_density


def mixtures(kind):
    """Means, log variances and log weights [rows, components] of a kind of network."""
    generator = torch.Generator().manual_seed(17)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    s, k = 20, 3
    shape = (ROWS, s, k)
    base = 0.3 * normal(ROWS, 1, k)
    if kind == "samples":  # of a trained Bayesian network: nearly the same components
        mean, logit = base + 0.02 * normal(*shape), 1.5 * normal(ROWS, 1, k)
        log_variance = -4 + normal(ROWS, 1, k) + 0.1 * normal(*shape)
    elif kind == "members":  # of an ensemble: similar densities
        mean, logit = base + 0.1 * normal(*shape), normal(*shape)
        log_variance = -4 + 0.7 * normal(*shape)
    elif kind == "initial":  # weights as they are drawn
        mean, log_variance, logit = (0.4 * normal(*shape) for _ in range(3))
    elif kind == "narrow":
        mean, logit = base + 0.05 * normal(*shape), normal(*shape)
        log_variance = -9 + 2 * normal(*shape)
    elif kind == "wide tail":  # one component with little weight and s = 2
        mean, logit = base + 0.05 * normal(*shape), normal(*shape)
        log_variance = -5 + normal(*shape)
        log_variance[..., 2], logit[..., 2] = 2 * math.log(2.0), -7.0
    elif kind == "at a bound":  # many centres beyond it, the mode a little inside
        mean, log_variance, logit = around_a_bound(normal, shape)
    else:  # beyond the range
        mean, logit = 3 + 0.5 * normal(*shape), normal(*shape)
        log_variance = -4 + normal(*shape)
    high = 2.0 if kind == "wide tail" else 0.0
    log_weight = torch.log_softmax(logit.expand(shape), dim=-1)
    return tuple(
        part.expand(shape).reshape(ROWS, -1)
        for part in (mean, log_variance.clamp(-14.0, high), log_weight)
    )


def around_a_bound(normal, shape):
    """One tilted peak lies beyond the bound, one inside; their sum is highest between them."""
    log_variance = -4 + 0.1 * normal(*shape)
    centre = torch.tensor([-1.15, -0.95, 1.4]) + 0.05 * normal(ROWS, 1, 3) + 0.01 * normal(*shape)
    mean = centre + LN10 * torch.exp(log_variance)
    return mean, log_variance, LN10 * centre + torch.tensor([0.0, -0.2, -3.0])


@pytest.mark.parametrize(
    ("kind", "share_wrong"),
    [
        ("samples", 0.0),
        ("members", 0.0),
        ("initial", 0.0),
        ("narrow", 0.02),  # hundreds of spikes: their highest may be missed
        ("wide tail", 0.0),
        ("at a bound", 0.0),
        ("outside", 0.0),
    ],
)
def test_mode_is_the_highest_of_all(kind, share_wrong):
    """And where it is not, the gap says by how much it can be missed."""
    parts = mixtures(kind)
    found = mode_within(*parts, SEARCH_RANGE)
    assert found.gap_N.median() < 0.1
    wrong = 0
    for row, (log_r, gap) in enumerate(torch.stack(found, dim=1).double().numpy()):
        mode, height, log_density = brute_force(*(part[row].double().numpy() for part in parts))
        missed = height - log_density(np.array([log_r]))[0]
        wrong += abs(log_r - mode) > 1e-4 and missed >= 1e-4
        assert missed <= gap + 1e-4
        assert RANGE[0] - 1e-6 <= log_r <= RANGE[1] + 1e-6
    assert wrong <= share_wrong * ROWS


def test_a_grid_too_coarse_for_the_peaks_says_so(monkeypatch):
    """Of hundreds of spikes few are looked at."""
    monkeypatch.setattr(mode, "GRID_POINTS", 8)
    monkeypatch.setattr(mode, "PEAKS", 2)
    generator = torch.Generator().manual_seed(2)
    mean = torch.rand(20, 200, generator=generator) * 2.4 - 1.0
    log_variance = torch.full_like(mean, -11.0)
    log_weight = torch.log_softmax(torch.randn(mean.shape, generator=generator), dim=1)
    found = mode_within(mean, log_variance, log_weight, SEARCH_RANGE)
    parts = mean.double(), log_variance.double(), log_weight.double()
    missed = []
    for row, (log_r, gap) in enumerate(torch.stack(found, dim=1).double().numpy()):
        _, height, log_density = brute_force(*(part[row].numpy() for part in parts))
        missed.append(height - log_density(np.array([log_r]))[0])
        assert missed[-1] <= gap + 1e-4
    assert max(missed) > 0.05
    assert found.gap_N[np.argmax(missed)] > 0.1


def test_one_gaussian_has_its_mode_below_its_mean():
    mean, log_variance = torch.tensor([[0.4]]), torch.tensor([[-3.0]])
    found = mode_within(mean, log_variance, torch.zeros(1, 1), SEARCH_RANGE).l_N
    assert found.item() == pytest.approx(0.4 - LN10 * math.exp(-3.0), abs=1e-5)


def test_mode_beyond_the_range_is_at_its_bound():
    log_variance, log_weight = torch.tensor([[-4.0]]), torch.zeros(1, 1)
    for mean, bound in ((5.0, RANGE[1]), (-5.0, RANGE[0])):
        found = mode_within(torch.tensor([[mean]]), log_variance, log_weight, SEARCH_RANGE)
        assert found.l_N.item() == pytest.approx(bound, abs=1e-5)


@pytest.mark.parametrize("kind", ["at a bound", "outside", "samples"])
def test_rounding_between_coincident_points_loses_no_mode(kind, monkeypatch):
    """As ONNX Runtime's product has it, whose sums differ in order from column to column."""
    exact = mode._rough_exponent

    def rounded(tilted, points):
        sign = torch.arange(points.shape[1]) % 2 * 2.0 - 1.0
        return exact(tilted, points) + 1e-6 * sign[:, None]

    monkeypatch.setattr(mode, "_rough_exponent", rounded)
    parts = mixtures(kind)
    for row, log_r in enumerate(mode_within(*parts, SEARCH_RANGE).l_N.double().numpy()):
        _, height, log_density = brute_force(*(part[row].double().numpy() for part in parts))
        assert height - log_density(np.array([log_r]))[0] < 1e-4
