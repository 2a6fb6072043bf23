"""What a cluster is before it is measured: direction, energy, class, calorimeter part.

The latent class reaches the response only through the features.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import BoolArray
from pipeline.simulators.known_density.events import Events, Floats32

_Labels = NDArray[np.int8]

GAP_RAPIDITY = (0.95, 1.65)  # where the Tile gap scintillators are, in |y|
_JET_RADIUS = 0.4
_GAP_PROBABILITY = 0.092  # at the peak of a Gaussian in |y|
_GAP_PEAK = (1.27, 0.13)
_HARD_PROBABILITY = 0.03
_HARD_LOG_ENERGY = (0.7, 2.8)


class Origin(IntEnum):
    """Class by the share of electromagnetic primaries in the deposit: >= 0.9, < 0.1, between."""

    EM = 0
    HADRONIC = 1
    COMPOSITE = 2


class Part(IntEnum):
    """The calorimeters that hold the signal."""

    EM_ONLY = 0
    BOTH = 1
    HADRONIC_ONLY = 2
    GAP = 3


_BOTH_SHARE = np.array([0.15, 0.34, 0.52], np.float32)  # by origin, near 1.5 GeV
_HADRONIC_OF_REST = np.array([0.01 / 0.85, 0.16 / 0.66, 0.08 / 0.48], np.float32)  # by origin


@dataclass(frozen=True, slots=True)
class Latents:
    """N clusters.

    Attributes:
        event: [N], index of the event, rising.
        rapidity: [N]
        phi: [N], in -pi..pi.
        log_energy: [N], log10 of the signal in GeV.
        origin: [N], an Origin.
        part: [N], a Part.
    """

    event: NDArray[np.intp]
    rapidity: Floats32
    phi: Floats32
    log_energy: Floats32
    origin: _Labels
    part: _Labels


def draw_latents(rng: np.random.Generator, events: Events) -> Latents:
    """The clusters of all events, those of one event adjacent."""
    event = np.repeat(np.arange(len(events.mu)), events.num_clusters)
    rapidity, phi = _draw_directions(rng, events, event)
    is_gap = _draw_gap(rng, np.abs(rapidity))
    log_energy = _draw_log_energy(rng, is_gap)
    origin = _draw_origin(rng, log_energy)
    part = _draw_part(rng, log_energy, origin)
    part[is_gap] = Part.GAP
    return Latents(event, rapidity, phi, log_energy, origin, part)


def _draw_directions(
    rng: np.random.Generator, events: Events, event: NDArray[np.intp]
) -> tuple[Floats32, Floats32]:
    """Rapidity and phi [N], within 0.4 of one of the two jets of the event, denser at its core."""
    num = len(event)
    num_jets = events.jet_rapidity.shape[1]
    jet = rng.integers(0, num_jets, num, dtype=np.int8)
    radius = _JET_RADIUS * rng.random(num, dtype=np.float32) ** 0.8
    angle = 2 * np.pi * rng.random(num, dtype=np.float32)
    rapidity = events.jet_rapidity.ravel()[num_jets * event + jet] + radius * np.cos(angle)
    phi = events.jet_phi[event] + radius * np.sin(angle) + np.pi * jet.astype(np.float32)
    wrapped = phi - 2 * np.pi * np.rint(phi / (2 * np.pi))
    return rapidity, np.clip(wrapped, -np.pi, np.pi)


def _draw_gap(rng: np.random.Generator, rapidity: Floats32) -> BoolArray:
    """Whether the signal is that of the Tile gap scintillators [N], from |y|."""
    probability = _GAP_PROBABILITY * np.exp(-0.5 * ((rapidity - _GAP_PEAK[0]) / _GAP_PEAK[1]) ** 2)
    near = (rapidity > GAP_RAPIDITY[0]) & (rapidity < GAP_RAPIDITY[1])
    return np.asarray(near & (rng.random(len(rapidity), dtype=np.float32) < probability), np.bool_)


def _draw_log_energy(rng: np.random.Generator, is_gap: BoolArray) -> Floats32:
    """log10 of the signal in GeV [N]: a shifted gamma law, 3% flat to 630 GeV, gap hard."""
    log_energy = -0.62 + 0.29 * rng.standard_gamma(2.6, len(is_gap), dtype=np.float32)
    hard = np.flatnonzero(rng.random(len(is_gap), dtype=np.float32) < _HARD_PROBABILITY)
    low, high = _HARD_LOG_ENERGY
    log_energy[hard] = low + (high - low) * rng.random(len(hard), dtype=np.float32)
    gap = np.flatnonzero(is_gap)
    log_energy[gap] = 1.05 + 0.16 * rng.standard_gamma(1.6, len(gap), dtype=np.float32)
    return log_energy


def _draw_origin(rng: np.random.Generator, log_energy: Floats32) -> _Labels:
    """Class [N]: composite clusters take over with energy, EM ones are flat up to 50 GeV."""
    bump = np.exp(-0.5 * ((log_energy - 1.0) / 0.45) ** 2)
    em = 0.10 + 0.07 * bump - 0.06 * expit((log_energy - 1.8) / 0.15)
    composite = 0.08 + 0.36 * expit((log_energy - 0.55) / 0.25)
    composite += 0.32 * expit((log_energy - 1.9) / 0.2)
    uniform = rng.random(len(log_energy), dtype=np.float32)
    origin = np.full(len(log_energy), Origin.HADRONIC, np.int8)
    origin[uniform < em] = Origin.EM
    origin[uniform >= 1.0 - composite] = Origin.COMPOSITE
    return origin


def _draw_part(rng: np.random.Generator, log_energy: Floats32, origin: _Labels) -> _Labels:
    """Calorimeters [N] (never GAP): the share of clusters in both rises with energy."""
    both = _BOTH_SHARE[origin]
    both = both * (1.0 + 0.5 * np.tanh(log_energy - 0.15))
    hadronic = (1.0 - both) * _HADRONIC_OF_REST[origin]
    uniform = rng.random(len(log_energy), dtype=np.float32)
    part = np.full(len(log_energy), Part.EM_ONLY, np.int8)
    part[uniform < both] = Part.BOTH
    part[uniform >= 1.0 - hadronic] = Part.HADRONIC_ONLY
    return part


def draw_em_deposit_share(rng: np.random.Generator, origin: _Labels) -> Floats32:
    """Share of the deposit from EM primaries [N], clear of the class borders 0.1 and 0.9."""
    uniform = rng.random(len(origin), dtype=np.float32)
    edge = 0.099 * uniform**6
    share = 0.101 + 0.798 * uniform
    share = np.where(origin == Origin.EM, 1.0 - edge, share)
    return np.where(origin == Origin.HADRONIC, edge, share)


def expit(value: Floats32) -> Floats32:
    """1 / (1 + exp(-value)), by a form that cannot overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * value), np.float32)
