"""The written clusters follow their stated density, and the sample shows what it was made for.

Expected values are those of the recipe, most of them chosen to resemble arXiv 2412.04370; the
tolerances cover the choice of open numbers and the size of the sample.
"""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import kstest, norm

from pipeline.formats.seeds import generator
from pipeline.simulators.known_density.events import draw_events
from pipeline.simulators.known_density.features import draw_features
from pipeline.simulators.known_density.latents import Part, draw_latents
from pipeline.simulators.known_density.response import COMPONENTS, response_mixture
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import GeneratorSettings

NUM = 200_000
LOG10 = np.log(10.0)


class Exact:
    """A sample with its exact conditional density, by the textbook formulas."""

    def __init__(self, *, resistant):
        chosen = GeneratorSettings(resistant=resistant)
        self.column = draw_clusters(chosen, generator(21, "density"), NUM)
        self.energy = self.column["clusterE"].astype(np.float64)
        self.deposit = self.column["cluster_ENG_CALIB_TOT"].astype(np.float64)
        self.response = self.energy / self.deposit
        self.log_r = np.log10(self.response)
        self.mixtures = response_mixture(self.column, chosen)
        self.log_weights = self.mixtures.log_weights[0]
        self.means, self.sigmas = self.mixtures.means[0], self.mixtures.sigmas[0]
        self.accepted = self.below(self.mixtures.upper).sum(axis=1)

    def below(self, log_r):
        return np.exp(self.log_weights) * norm.cdf((log_r[:, None] - self.means) / self.sigmas)

    def pit(self):
        return self.below(self.log_r).sum(axis=1) / self.accepted

    def log_density(self):
        pull = (self.log_r[:, None] - self.means) / self.sigmas
        terms = self.log_weights - pull**2 / 2 - np.log(np.sqrt(2 * np.pi) * self.sigmas)
        return logsumexp(terms, axis=1) - np.log(self.accepted)

    def share(self, name):
        """Probability that an accepted cluster of these features is of this component."""
        place = COMPONENTS.index(name)
        return self.below(self.mixtures.upper)[:, place] / self.accepted


@pytest.fixture(scope="module")
def exact():
    return Exact(resistant=True)


@pytest.fixture(scope="module")
def clean():
    return Exact(resistant=False)


def sigma_of_response(mixtures):
    """Standard deviation of R [N] by the closed form of the cut mixture."""
    weights, means = np.exp(mixtures.log_weights[0]), mixtures.means[0]
    sigmas, upper = mixtures.sigmas[0], mixtures.upper[:, None]

    def moment(j):
        scale = np.exp(j * means * LOG10 + (j * sigmas * LOG10) ** 2 / 2)
        inside = norm.cdf((upper - means - j * sigmas**2 * LOG10) / sigmas)
        return np.sum(weights * scale * inside, axis=1)

    mean = moment(1) / moment(0)
    return np.sqrt(moment(2) / moment(0) - mean**2)


REGIONS = {
    "inclusive": lambda s: s.energy > 0.0,
    "gap": lambda s: s.share("gap") > 0.5,
    "soft": lambda s: s.energy < 0.5,
    "late": lambda s: np.abs(s.column["cluster_time"]) > 12.5,
    "crowded": lambda s: s.column["avgMu"] > 60.0,
    "hadronic calorimeters": lambda s: s.column["cluster_ENG_FRAC_EM"] < 0.1,
    "hard": lambda s: s.energy > 100.0,
    "crack": lambda s: np.abs(np.abs(s.column["clusterEta"]) - 1.45) < 0.1,
    "cut close": lambda s: s.accepted < 0.5,
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("kind", ["exact", "clean"])
def test_probability_integral_transform_is_uniform(kind, region, request):
    sample = request.getfixturevalue(kind)
    values = sample.pit()[REGIONS[region](sample)]
    assert len(values) > 1_000
    assert kstest(values, "uniform").statistic < 1.9 / np.sqrt(len(values))


def test_probability_integral_transform_knows_no_event(exact):
    """Clusters of one event share features, not the draw of the response."""
    pit = exact.pit()
    assert abs(np.corrcoef(pit[:-1], pit[1:])[0, 1]) < 3.5 / np.sqrt(NUM)


def test_entropy_floor(exact, clean):
    floors = [-sample.log_density().mean() for sample in (exact, clean)]
    assert floors[0] == pytest.approx(-1.00, abs=0.04)
    assert floors[1] == pytest.approx(-1.09, abs=0.04)


def test_tails_of_the_response(exact, clean):
    assert 0.05 < np.mean(exact.response > 2.0) < 0.09
    assert 0.03 < np.mean(clean.response > 2.0) < 0.055
    assert 0.009 < np.mean(exact.response > 20.0) < 0.018
    assert 0.002 < np.mean(exact.response < 0.5) < 0.02


def test_resistant_clusters_come_with_pileup(exact):
    share, mu = exact.share("resistant"), exact.column["avgMu"]
    assert 0.022 < share.mean() < 0.04
    edges = (0.0, 10.0, 25.0, 40.0, 60.0, 80.0, 91.0)
    trend = [share[(mu > a) & (mu < b)].mean() for a, b in pairwise(edges)]
    assert np.all(np.diff(trend) > 0.0)
    assert trend[0] == pytest.approx(0.003, abs=0.001)
    assert trend[-1] == pytest.approx(0.125, abs=0.03)


def test_classes(exact):
    share = exact.column["cluster_ENG_CALIB_FRAC_EM"].astype(np.float64)
    em, hadronic = np.mean(share >= 0.9), np.mean(share < 0.1)
    assert share.min() >= 0.0
    assert share.max() <= 1.0
    assert em == pytest.approx(0.12, abs=0.03)
    assert hadronic == pytest.approx(0.69, abs=0.03)
    assert 1.0 - em - hadronic == pytest.approx(0.19, abs=0.03)


def test_late_clusters(exact):
    late = np.abs(exact.column["cluster_time"]) > 12.5
    assert 0.01 < late.mean() < 0.022
    assert np.median(exact.response[late]) > 1.8


@pytest.mark.parametrize(
    ("deposit", "expected", "tolerance"),
    [(0.31, 0.47, 0.15), (1.2, 0.03, 0.06), (30.0, -0.08, 0.06)],
)
def test_median_of_the_em_scale(exact, deposit, expected, tolerance):
    near = np.abs(np.log10(exact.deposit / deposit)) < (0.02 if deposit < 1.0 else 0.06)
    assert np.median(exact.response[near]) - 1.0 == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("deposit", "expected"), [(0.5, 0.27), (2.0, 0.18), (8.0, 0.12), (130.0, 0.09)]
)
def test_resolution_of_the_em_scale(exact, deposit, expected):
    near = np.abs(np.log10(exact.deposit / deposit)) < 0.06
    values = np.sort(exact.response[near])
    inside = round(0.68 * len(values))
    narrowest = np.min(values[inside:] - values[:-inside])
    assert narrowest / (2.0 * np.median(values)) == pytest.approx(expected, rel=0.25)


def test_window_of_linear_sigma(exact):
    """Clusters of the Tile gap scintillators make a bump at R about 50 and 8.5 < sigma < 12."""
    sigma = sigma_of_response(exact.mixtures)
    window = (sigma > 8.5) & (sigma < 12.0)
    rapidity = np.abs(exact.column["clusterEta"][window])
    low, high = np.quantile(rapidity, [0.01, 0.99])
    assert 0.004 < window.mean() < 0.009
    assert np.mean(exact.share("gap")[window] > 0.5) > 0.9
    assert 0.95 < low < high < 1.6
    assert np.mean(exact.column["cluster_ENG_FRAC_EM"][window] == 0.0) > 0.9
    assert np.median(exact.response[window]) == pytest.approx(48.0, abs=3.0)


def test_gap_component_needs_energy(exact):
    """R about 50 and a deposit above 0.3 GeV need 14.8 GeV; few get through with a smaller R."""
    gap = exact.share("gap") > 0.5
    bump = (exact.response > 45.0) & (exact.response < 55.0)
    sigma = sigma_of_response(exact.mixtures)
    assert np.mean(gap[bump]) > 0.99
    assert np.quantile(exact.energy[bump], 0.05) > 14.8
    assert np.quantile(exact.energy[(sigma > 8.5) & (sigma < 12.0)], 0.05) > 14.8
    assert np.all(exact.accepted[gap & (exact.energy < 10.0)] < 0.02)


def test_the_window_holds_latent_gap_clusters():
    rng = generator(23, "window")
    events = draw_events(rng, 4_000, 24.0)
    latents = draw_latents(rng, events)
    mixtures = response_mixture(draw_features(rng, events, latents), GeneratorSettings())
    sigma = sigma_of_response(mixtures)
    inside = norm.cdf((mixtures.upper[:, None] - mixtures.means[0]) / mixtures.sigmas[0])
    accepted = np.sum(np.exp(mixtures.log_weights[0]) * inside, axis=1)
    window = (sigma > 8.5) & (sigma < 12.0)
    is_gap = latents.part[window] == Part.GAP
    assert np.sum(accepted[window][is_gap]) / np.sum(accepted[window]) > 0.9
