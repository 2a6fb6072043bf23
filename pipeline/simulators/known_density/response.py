"""The exact conditional density of l = log10(E_EM / E_dep): Gaussians given the features.

This is the definition for drawing and for the oracle. Acceptance E_dep > minimum is l < upper, so
that the density of the accepted clusters is the mixture cut at upper and renormalised. float64
throughout. Peaks and their causes follow the response described in arXiv 2412.04370.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.numerics.arrays import FloatArray
from pipeline.simulators.known_density.events import PILEUP_END, USUAL_MU, mean_vertices
from pipeline.simulators.known_density.features import (
    BUNCH_SPACING_NS,
    FEATURES,
    USUAL_DENSITY,
    usual_log_significance,
)
from pipeline.simulators.known_density.geometry import GAP_Z
from pipeline.simulators.known_density.latents import GAP_RAPIDITY
from pipeline.simulators.known_density.settings import GeneratorSettings

COMPONENTS = ("em", "hadronic", "mip", "pileup", "gap", "low", "resistant")  # the last one optional
RESPONSE = ("clusterE", "cluster_ENG_CALIB_TOT")  # R is the ratio of these columns
COMPONENT = "cluster_RESPONSE_COMPONENT"  # place in COMPONENTS of what a response was drawn from
FLOORED = "cluster_SECOND_TIME"
SECOND_TIME_FLOOR = 1e-3  # ns^2; the response knows no smaller variance of the cell times
_LATE_NS = BUNCH_SPACING_NS / 2.0
_CLOSED = 1e-7  # value of a closed gate, so that every weight has a logarithm


@dataclass(frozen=True, slots=True)
class _Observed:
    """What the response depends on, [N] float64 each, from the features alone."""

    energy: FloatArray  # GeV
    log_energy: FloatArray
    root_energy: FloatArray
    rapidity: FloatArray  # absolute
    em_fraction: FloatArray
    pileup: FloatArray  # mu over the usual one
    extra_vertices: FloatArray  # N_PV minus its mean, in units of the root of the mean
    density: FloatArray  # log10 of rho over that of a typical EM cluster of this energy
    depth: FloatArray  # log10 of lambda / 190 mm
    noise: FloatArray  # log10 of zeta over the typical one
    z: FloatArray  # mm, absolute
    late: FloatArray  # 0 in time, 1 late
    log_variance: FloatArray  # of the cell times
    isolation: FloatArray
    compactness: FloatArray
    longitudinal: FloatArray


def response_mixture(features: Mapping[str, NDArray[Any]], settings: GeneratorSettings) -> Mixtures:
    """The density of l of each cluster: one network, the components of COMPONENTS.

    Args:
        features: the 15 feature columns [N] under their ClusterTree names, float32 or float64.
        settings: without `resistant` the last component is absent.

    Returns:
        Mixtures with S = 1 and upper = log10(E_EM / minimal deposit).
    """
    seen = _observe(features)
    num = len(COMPONENTS) if settings.resistant else len(COMPONENTS) - 1
    upper = seen.log_energy - np.log10(settings.min_deposit_gev)
    return Mixtures(
        log_weights=np.log(_stack(_weights(seen, with_resistant=settings.resistant), num)),
        means=_stack(_means(seen), num),
        sigmas=_stack(_sigmas(seen), num),
        lower=np.full_like(upper, -np.inf),
        upper=upper,
    )


def draw_with_component(
    rng: np.random.Generator, mixtures: Mixtures
) -> tuple[FloatArray, NDArray[np.intp]]:
    """One l per row [N] from the averaged mixture, not cut, and the component that it is from."""
    num_networks, num, _ = mixtures.means.shape
    weights = np.moveaxis(np.exp(mixtures.log_weights), 0, 1).reshape(num, -1)
    edges = np.cumsum(weights, axis=1)
    level = rng.random(num) * edges[:, -1]
    chosen = (edges[:, :-1] <= level[:, None]).sum(axis=1)
    network, component = np.divmod(chosen, weights.shape[1] // num_networks)
    place = (network, np.arange(num), component)
    drawn = mixtures.means[place] + mixtures.sigmas[place] * rng.standard_normal(num)
    return np.asarray(drawn, np.float64), component


def _observe(features: Mapping[str, NDArray[Any]]) -> _Observed:
    """The features as float64 in the variables of the recipe."""
    column = {name: np.asarray(features[name], np.float64) for name in FEATURES}
    energy, mu = column["clusterE"], column["avgMu"]
    log_energy = np.log10(energy)
    em_fraction = column["cluster_ENG_FRAC_EM"]
    rapidity = np.abs(column["clusterEta"])
    vertices = mean_vertices(mu)
    usual_density = USUAL_DENSITY[0] + (1.0 + USUAL_DENSITY[1]) * log_energy
    return _Observed(
        energy=energy,
        log_energy=log_energy,
        root_energy=np.sqrt(energy),
        rapidity=rapidity,
        em_fraction=em_fraction,
        pileup=mu / USUAL_MU,
        extra_vertices=(column["nPrimVtx"] - vertices) / np.sqrt(vertices),
        density=np.log10(column["cluster_FIRST_ENG_DENS"]) - usual_density,
        depth=np.log10(column["cluster_CENTER_LAMBDA"] / 190.0),
        noise=np.log10(column["cluster_SIGNIFICANCE"])
        - usual_log_significance(log_energy, em_fraction),
        z=column["cluster_CENTER_MAG"] * np.tanh(rapidity),
        late=_expit((np.abs(column["cluster_time"]) - _LATE_NS) / 0.5),
        log_variance=np.log10(np.maximum(column["cluster_SECOND_TIME"], SECOND_TIME_FLOOR)),
        isolation=column["cluster_ISOLATION"],
        compactness=column["cluster_PTD"],
        longitudinal=column["cluster_LONGITUDINAL"],
    )


def _weights(seen: _Observed, *, with_resistant: bool) -> list[FloatArray]:
    """Shares in the order of COMPONENTS, summing to one."""
    gap = 0.993 * _gap_gate(seen)
    f = seen.em_fraction
    pileup = 0.085 * (0.02 + seen.pileup) / (1.0 + seen.energy / 2.0)
    low = 0.015 / (1.0 + seen.energy / 3.0)
    crowd = (seen.pileup * USUAL_MU / PILEUP_END) ** 2
    resistant = (0.007 + 0.36 * crowd) * (1.25 - 0.75 * f)
    rest = 1.0 - pileup - low - (resistant if with_resistant else 0.0)
    mip = 0.40 * (1.01 - f**2) * _expit((0.35 - seen.log_energy) / 0.2)
    em = _em_share(seen)
    shares = [rest * (1 - mip) * em, rest * (1 - mip) * (1 - em), rest * mip, pileup]
    shares = [(1.0 - gap) * share for share in shares]
    return [*shares, gap, (1.0 - gap) * low, (1.0 - gap) * resistant]


def _gap_gate(seen: _Observed) -> FloatArray:
    """Close to 1 for clusters in the Tile gap scintillators, to 0 elsewhere."""
    in_z = _expit((45.0 - np.abs(seen.z - GAP_Z)) / 5.0)
    centre, half = sum(GAP_RAPIDITY) / 2.0, (GAP_RAPIDITY[1] - GAP_RAPIDITY[0]) / 2.0
    in_rapidity = _expit((half - np.abs(seen.rapidity - centre)) / 0.02)
    return in_z * in_rapidity * _expit((0.05 - seen.em_fraction) / 0.006)


def _em_share(seen: _Observed) -> FloatArray:
    """Share of the EM peak in the main two: dense, shallow, isolated, in the EM calorimeter."""
    logit = -3.0 + 2.5 * seen.density - 1.6 * np.maximum(seen.depth, -1.0)
    logit += 2.0 * (seen.em_fraction - 0.5) + 3.0 * (seen.isolation - 0.5)
    return _expit(logit + 1.5 * (seen.compactness - 0.35))


def _means(seen: _Observed) -> list[FloatArray | float]:
    f = seen.em_fraction
    shift = _shift(seen)
    hadronic = (0.79 + 0.13 * f**1.5) * (1.0 + 0.035 * seen.log_energy)
    pileup = 1.45 + 0.75 * seen.pileup / np.sqrt(seen.energy + 0.2)
    return [
        np.log10(0.995) + shift,
        np.log10(hadronic) + shift - 0.03 * (seen.longitudinal - 0.7),
        np.log10(1.0 + 0.38 * (1.0 - f)) + shift,
        np.log10(pileup),
        np.log10(49.0),
        np.log10(0.5) + shift,
        np.log10(3.6) + shift,
    ]


def _shift(seen: _Observed) -> FloatArray:
    """Change of l that peaks share: pile-up, late clusters, cracks in y, spread of times."""
    e = seen.energy
    pileup = (0.085 * seen.pileup + 0.010 * seen.extra_vertices) / (e**0.75 + 0.45)
    late = 0.42 / (1.0 + e / 6.0) * seen.late
    cracks = 0.055 * _bump((seen.rapidity - 1.45) / 0.10)
    cracks += 0.020 * _bump((seen.rapidity - 0.80) / 0.08)
    return pileup + late - cracks + 0.012 * seen.log_variance


def _sigmas(seen: _Observed) -> list[FloatArray | float]:
    crowd = (0.02 * seen.pileup / seen.energy**0.9) ** 2
    noise = 10.0 ** (-0.25 * seen.noise)
    return [
        noise * np.sqrt(0.018**2 + (0.056 / seen.root_energy) ** 2 + crowd),
        noise * np.sqrt(0.028**2 + (0.076 / seen.root_energy) ** 2 + crowd),
        noise * np.sqrt(0.045**2 + (0.070 / seen.root_energy) ** 2 + crowd),
        0.17,
        0.070,
        0.15,
        0.24,
    ]


def _stack(values: list[FloatArray] | list[FloatArray | float], num: int) -> FloatArray:
    """[1, N, num] from the first num values, each [N] or one number."""
    stacked = np.empty((1, len(np.atleast_1d(values[0])), num))
    for k in range(num):
        stacked[0, :, k] = values[k]
    return stacked


def _bump(value: FloatArray) -> FloatArray:
    return np.exp(-0.5 * value**2)


def _expit(value: FloatArray) -> FloatArray:
    """Logistic function between the smallest and the largest value of a gate."""
    return 0.5 + (0.5 - _CLOSED) * np.tanh(0.5 * value)
