"""The 15 features of a cluster from what it is; names and units of ClusterTree.

Marginals follow the published ranges of arXiv 2412.04370 and open simulated clusters.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import Columns
from pipeline.simulators.known_density.events import USUAL_MU, Events, Floats32
from pipeline.simulators.known_density.geometry import BARREL_END, TILE_END, draw_centres
from pipeline.simulators.known_density.latents import Latents, Part, expit

FEATURES = (
    "clusterE",
    "clusterEta",
    "cluster_SIGNIFICANCE",
    "cluster_SECOND_TIME",
    "cluster_CENTER_LAMBDA",
    "cluster_CENTER_MAG",
    "cluster_FIRST_ENG_DENS",
    "cluster_LONGITUDINAL",
    "cluster_LATERAL",
    "cluster_PTD",
    "cluster_ENG_FRAC_EM",
    "cluster_ISOLATION",
    "cluster_time",
    "nPrimVtx",
    "avgMu",
)
BUNCH_SPACING_NS = 25.0
USUAL_DENSITY = (-6.22, -0.36)  # log10(rho/E) of EM clusters at 1 GeV, and slope per decade
_BUNCHES = np.array([-4.0, -3.0, -2.0, -1.0, 1.0, 2.0], np.float32)

# By calorimeter part: EM only, both, hadronic only, gap. Densities as log10(rho/E).
_DENSITY_BASES = np.array([USUAL_DENSITY[0], -6.30, -8.02, -6.05], np.float32)
_DENSITY_SLOPES = np.array([USUAL_DENSITY[1], -0.42, -0.08, 0.0], np.float32)  # per decade
_DENSITY_LOSSES = np.array([0.0, 0.9, 0.0, 0.0], np.float32)  # at EM fraction 0
_LATE_SHARES = np.array([0.35, 0.35, 1.65, 0.35], np.float32)

# By origin: EM, hadronic, composite. Shifts of logits, and of the spread behind the shape moments.
_DENSITY_EXCESSES = np.array([0.12, 0.0, 0.0], np.float32)
_EM_FRACTION_SHIFTS = np.array([1.5, 0.9, 0.9], np.float32)
_ISOLATION_SHIFTS = np.array([1.9, 0.0, 0.0], np.float32)
_SPREAD_SHIFTS = np.array([-0.35, 0.05, 0.1], np.float32)

_LN10 = float(np.log(10.0))


def draw_features(rng: np.random.Generator, events: Events, latents: Latents) -> Columns:
    """The 15 features [N] of the clusters, float32 but for the int32 vertex count."""
    em_fraction = _draw_em_fraction(rng, latents)
    distance, depth = draw_centres(rng, latents, em_fraction)
    mu = events.mu[latents.event]
    energy = _ten_to(latents.log_energy)
    time, variance = _draw_times(rng, latents, energy, mu)
    ptd, lateral, longitudinal = _draw_shape(rng, latents)
    columns = {
        "clusterE": energy,
        "clusterEta": latents.rapidity,
        "cluster_SIGNIFICANCE": _draw_significance(rng, latents, em_fraction, mu),
        "cluster_SECOND_TIME": variance,
        "cluster_CENTER_LAMBDA": depth,
        "cluster_CENTER_MAG": distance,
        "cluster_FIRST_ENG_DENS": _draw_density(rng, latents, em_fraction),
        "cluster_LONGITUDINAL": longitudinal,
        "cluster_LATERAL": lateral,
        "cluster_PTD": ptd,
        "cluster_ENG_FRAC_EM": em_fraction,
        "cluster_ISOLATION": _draw_isolation(rng, latents),
        "cluster_time": time,
    }
    rounded: Columns = {name: column.astype(np.float32) for name, column in columns.items()}
    return rounded | {"nPrimVtx": events.num_vertices[latents.event], "avgMu": mu}


def usual_log_significance(log_energy: NDArray[Any], em_fraction: NDArray[Any]) -> NDArray[Any]:
    """log10 of the typical signal significance [N] at usual pile-up."""
    return 0.26 + 0.68 * log_energy + 0.24 * em_fraction


def _draw_em_fraction(rng: np.random.Generator, latents: Latents) -> Floats32:
    """Share of the signal in the EM calorimeter [N]: spikes at 1 and 0, logit-normal between."""
    num = len(latents.event)
    uniform = rng.random(num, dtype=np.float32)
    full = 0.75 - 0.57 * expit((latents.log_energy - 0.3) / 0.25)
    presampler = np.maximum(uniform - full, 0.0) / (1.0 - full)
    fraction: Floats32 = 1.0 - 0.18 * presampler**2
    both = np.flatnonzero(latents.part == Part.BOTH)
    normal = rng.standard_normal(len(both), dtype=np.float32)
    fraction[both] = expit(_EM_FRACTION_SHIFTS[latents.origin[both]] + 1.1 * normal)
    hadronic = np.flatnonzero(latents.part == Part.HADRONIC_ONLY)
    fraction[hadronic] = 0.12 * np.maximum((uniform[hadronic] - 0.35) / 0.65, 0.0) ** 2
    fraction[latents.part == Part.GAP] = 0.0
    return fraction


def _draw_density(rng: np.random.Generator, latents: Latents, em_fraction: Floats32) -> Floats32:
    rapidity = np.abs(latents.rapidity)
    part = latents.part
    ratio = _DENSITY_BASES[part] + _DENSITY_SLOPES[part] * latents.log_energy
    ratio += _DENSITY_EXCESSES[latents.origin] - _DENSITY_LOSSES[part] * (1.0 - em_fraction)
    ratio += 0.22 * rng.standard_normal(len(part), dtype=np.float32)
    em_endcap = np.flatnonzero((rapidity > BARREL_END) & (part <= Part.BOTH))
    ratio[em_endcap] += 0.30 + 0.45 * (rapidity[em_endcap] - BARREL_END)
    ratio[(rapidity > TILE_END) & (part == Part.HADRONIC_ONLY)] += 0.4
    return _ten_to(ratio + latents.log_energy)


def _draw_significance(
    rng: np.random.Generator, latents: Latents, em_fraction: Floats32, mu: Floats32
) -> Floats32:
    log_zeta = usual_log_significance(latents.log_energy, em_fraction) - 0.004 * (mu - USUAL_MU)
    log_zeta += 0.13 * rng.standard_normal(len(mu), dtype=np.float32)
    return _ten_to(log_zeta)


def _draw_shape(rng: np.random.Generator, latents: Latents) -> tuple[Floats32, Floats32, Floats32]:
    """p_T D, lateral and longitudinal dispersion [N]: logit-normal, sharing one latent spread."""
    num = len(latents.event)
    log_energy = latents.log_energy
    spread, *own = rng.standard_normal((4, num), dtype=np.float32)
    spread = spread + _SPREAD_SHIFTS[latents.origin]
    ptd = expit(-0.45 - 0.45 * log_energy - 0.55 * spread + 0.30 * own[0])
    lateral = expit(1.05 + 1.10 * log_energy + 0.75 * spread + 0.60 * own[1])
    longitudinal = expit(0.65 + 0.92 * log_energy + 0.35 * spread + 0.80 * own[2])
    uniform = rng.random(num, dtype=np.float32)
    few_cells = 0.06 - 0.05 * expit((log_energy - 0.4) / 0.3)
    return ptd, lateral, np.where(uniform < few_cells, 0.05 * uniform, longitudinal)


def _draw_isolation(rng: np.random.Generator, latents: Latents) -> Floats32:
    logit = 0.8 - 0.9 * latents.log_energy + _ISOLATION_SHIFTS[latents.origin]
    logit += 1.1 * rng.standard_normal(len(logit), dtype=np.float32)
    alone = 0.16 - 0.14 * expit((latents.log_energy - 0.3) / 0.25)
    is_alone = rng.random(len(logit), dtype=np.float32) < alone
    return np.where(is_alone, np.float32(1.0), expit(logit))


def _draw_times(
    rng: np.random.Generator, latents: Latents, energy: Floats32, mu: Floats32
) -> tuple[Floats32, Floats32]:
    """Time [N, ns] and variance of the cell times [N, ns^2]; some come from another bunch."""
    num = len(mu)
    width = np.sqrt(0.6**2 + 2.7**2 * _ten_to(-1.2 * latents.log_energy))
    time = width * rng.standard_normal(num, dtype=np.float32)
    probability = 0.096 * (mu / USUAL_MU) * _LATE_SHARES[latents.part] / (1.0 + energy / 1.5)
    late = np.flatnonzero(rng.random(num, dtype=np.float32) < probability)
    bunch = rng.integers(0, len(_BUNCHES), len(late))
    time[late] += BUNCH_SPACING_NS * _BUNCHES[bunch]
    log_variance = 0.80 - 0.35 * expit((latents.log_energy - 0.4) / 0.3)
    log_variance += 0.7 * rng.standard_normal(num, dtype=np.float32)
    log_variance[late] += 0.5
    single = 0.02 + 0.55 * expit((0.05 - latents.log_energy) / 0.2)
    uniform = rng.random(num, dtype=np.float32)
    rows = np.flatnonzero(uniform < single)
    log_variance[rows] = -8.0 + 4.0 * uniform[rows] / single[rows]
    return time, _ten_to(log_variance)


def _ten_to(exponent: Floats32) -> Floats32:
    return np.asarray(np.exp(_LN10 * exponent), np.float32)
