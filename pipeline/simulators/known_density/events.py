"""What the clusters of one event share: pile-up, reconstructed vertices and two jets.

Everything random here and in the other files is drawn in float32: these are latents, and the
features are rounded to float32 before the response is drawn.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import Float32Array, Int32Array

Floats32 = Float32Array
_Integers = Int32Array

USUAL_MU = 35.0
PILEUP_END = 90.0
_JETS_PER_EVENT = 2
_PILEUP_SHARES = (0.30, 0.40, 0.26)  # the rest is flat
_PILEUP_MEANS = (23.0, 36.0, 55.0, 0.0)
_PILEUP_WIDTHS = (5.0, 7.0, 6.0, 0.0)
_JET_END = 2.0
_JET_CURVATURE = 0.06


@dataclass(frozen=True, slots=True)
class Events:
    """V events.

    Attributes:
        mu: [V], interactions per crossing, on the half-integer grid.
        num_vertices: [V], reconstructed primary vertices, at least 1.
        jet_rapidity: [V, 2].
        jet_phi: [V], of the first jet; the second is opposite.
        num_clusters: [V], before the cut on the deposited energy.
    """

    mu: Floats32
    num_vertices: _Integers
    jet_rapidity: Floats32
    jet_phi: Floats32
    num_clusters: _Integers


def draw_events(rng: np.random.Generator, num_events: int, mean_clusters: float) -> Events:
    """Independent events; multiplicity and jets do not depend on pile-up."""
    mu = _draw_pileup(rng, num_events)
    return Events(
        mu=mu,
        num_vertices=_draw_vertices(rng, mu),
        jet_rapidity=_draw_jet_rapidity(rng, (num_events, _JETS_PER_EVENT)),
        jet_phi=rng.random(num_events, dtype=np.float32) * (2 * np.pi) - np.pi,
        num_clusters=rng.poisson(mean_clusters, num_events).astype(np.int32),
    )


def mean_vertices(mu: NDArray[Any]) -> NDArray[Any]:
    """Mean of N_PV [V] at this pile-up."""
    return 3.7 + 0.49 * mu


def _draw_pileup(rng: np.random.Generator, num_events: int) -> Floats32:
    """Mu of [V] events: three Gaussian run periods and a flat part in 0..90, on n + 1/2."""
    period = np.searchsorted(np.cumsum(_PILEUP_SHARES), rng.random(num_events))
    normal = rng.standard_normal(num_events, dtype=np.float32)
    peaks = (
        np.take(np.array(_PILEUP_MEANS, np.float32), period)
        + np.take(np.array(_PILEUP_WIDTHS, np.float32), period) * normal
    )
    flat = rng.random(num_events, dtype=np.float32) * PILEUP_END
    mu = np.where(period == len(_PILEUP_SHARES), flat, peaks)
    return np.clip(np.floor(mu), 0.0, PILEUP_END) + np.float32(0.5)


def _draw_vertices(rng: np.random.Generator, mu: Floats32) -> _Integers:
    """N_PV [V]: a rounded Gaussian about the mean, 0.9 times as wide as Poisson."""
    mean = mean_vertices(mu)
    count = mean + 0.9 * np.sqrt(mean) * rng.standard_normal(len(mu), dtype=np.float32)
    return np.asarray(np.maximum(np.rint(count), 1.0), np.int32)


def _draw_jet_rapidity(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats32:
    """Rapidity in +-2 with density 1 - 0.06 y^2, from the inverse distribution function.

    That function is a cubic: y - a y^3 = c with a = 0.06 / 3 has the solution
    y = b sin(arcsin(4 c / (a b^3)) / 3) with b = 2 / sqrt(3 a).
    """
    cubic = _JET_CURVATURE / 3.0
    end = _JET_END - cubic * _JET_END**3
    level = end * (2.0 * rng.random(shape, dtype=np.float32) - 1.0)
    scale = 2.0 / (3.0 * cubic) ** 0.5
    return np.asarray(scale * np.sin(np.arcsin(4.0 * level / (cubic * scale**3)) / 3.0), np.float32)
