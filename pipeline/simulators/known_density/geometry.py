"""Where the centre of gravity of a cluster lies, in a calorimeter of cylinders and discs.

Radii and positions in mm, measured on simulated clusters; the calorimeter front is r = 1500 in the
barrel and |z| = 3755 in the end-caps.
"""

import numpy as np

from pipeline.simulators.known_density.events import Floats32
from pipeline.simulators.known_density.latents import Latents, Part

BARREL_END = 1.45  # in |y|
TILE_END = 1.6  # in |y|; the hadronic end-cap beyond
GAP_Z = 3555.0
_CENTRAL = 0.5  # in |y|: below, positions go by radius, since z / tanh|y| loses its meaning
_FRONT_RADIUS = 1500.0
_FRONT_Z = 3755.0
_LAYER_SHARES = (0.60, 0.33)  # of three Tile layers
_TILE_BARREL, _TILE_EXTENDED = (2430.0, 2990.0, 3575.0), (2430.0, 2870.0, 3445.0)
_TILE_RADII = np.array([_TILE_BARREL, _TILE_EXTENDED], np.float32)
_TILE_SPREADS = np.array([60.0, 85.0, 50.0], np.float32)
_TILE_Z_END = 6050.0
_HOLE_Z = (2830.0, 3490.0)  # between barrel and extended barrel
_ENDCAP_SHARES = (0.50, 0.30, 0.15)  # of four layers
_ENDCAP_Z = np.array([4460.0, 4870.0, 5390.0, 5890.0], np.float32)
_ENDCAP_SPREAD = 70.0
_EM_DEPTHS = np.array([170.0, 185.0], np.float32)  # end-cap, barrel; medians at 1 GeV
_DEPTH_SPREADS = np.array([0.30, 0.55, 0.55], np.float32)  # of log depth, by origin


def draw_centres(
    rng: np.random.Generator, latents: Latents, em_fraction: Floats32
) -> tuple[Floats32, Floats32]:
    """Distance from the vertex |c| and depth lambda behind the front, both [N] in mm."""
    rapidity = np.abs(latents.rapidity)
    front = _front_distance(rapidity)
    depth = _draw_em_depth(rng, latents, rapidity)
    both = np.flatnonzero(latents.part == Part.BOTH)
    reach = 450.0 + 150.0 * latents.log_energy[both]
    spread = np.exp(0.3 * rng.standard_normal(len(both), dtype=np.float32))
    depth[both] += (1.0 - em_fraction[both]) * reach * spread
    distance = front + depth
    hadronic = np.flatnonzero(latents.part == Part.HADRONIC_ONLY)
    distance[hadronic] = _draw_hadronic_distance(rng, rapidity[hadronic])
    gap = np.flatnonzero(latents.part == Part.GAP)
    z = GAP_Z + 12.0 * rng.standard_normal(len(gap), dtype=np.float32)
    distance[gap] = z / np.tanh(rapidity[gap])
    for rows in (hadronic, gap):
        depth[rows] = np.maximum(np.abs(distance[rows] - front[rows]), 1.0)
    return distance, depth


def _front_distance(rapidity: Floats32) -> Floats32:
    """Distance from the vertex to the calorimeter front [N, mm] in a direction |y|."""
    barrel = _FRONT_RADIUS * np.cosh(rapidity)
    endcap = _FRONT_Z / np.tanh(np.maximum(rapidity, _CENTRAL))
    return np.where(rapidity < BARREL_END, barrel, endcap)


def cartesian(
    distance: Floats32, rapidity: Floats32, phi: Floats32
) -> tuple[Floats32, Floats32, Floats32]:
    """x, y and z [N, mm] of a centre at this distance, rapidity and azimuth."""
    transverse = np.divide(distance, np.cosh(rapidity))
    return (
        transverse * np.cos(phi),
        transverse * np.sin(phi),
        np.multiply(distance, np.tanh(rapidity)),
    )


def _draw_em_depth(rng: np.random.Generator, latents: Latents, rapidity: Floats32) -> Floats32:
    in_barrel = rapidity < BARREL_END
    median = _EM_DEPTHS[in_barrel.view(np.int8)] + 22.0 * latents.log_energy
    slant = np.where(in_barrel, np.sqrt(np.cosh(rapidity)), np.float32(1.0))
    normal = rng.standard_normal(len(rapidity), dtype=np.float32)
    depth = median * slant * np.exp(_DEPTH_SPREADS[latents.origin] * normal)
    return np.asarray(depth, np.float32)


def _draw_hadronic_distance(rng: np.random.Generator, rapidity: Floats32) -> Floats32:
    num = len(rapidity)
    uniform = rng.random(num, dtype=np.float32)
    normal = rng.standard_normal(num, dtype=np.float32)
    layer = np.searchsorted(np.cumsum(_LAYER_SHARES), uniform)
    radius = _TILE_RADII[(rapidity > 1.0).view(np.int8), layer] + _TILE_SPREADS[layer] * normal
    tile_z = np.minimum(radius * np.sinh(rapidity), _TILE_Z_END)
    tile_z = _out_of_hole(tile_z, rng.random(num, dtype=np.float32))
    disc = np.searchsorted(np.cumsum(_ENDCAP_SHARES), uniform)
    endcap_z = _ENDCAP_Z[disc] + _ENDCAP_SPREAD * normal
    z = np.where(rapidity < TILE_END, tile_z, endcap_z)
    by_z = z / np.tanh(np.maximum(rapidity, _CENTRAL))
    return np.where(rapidity < _CENTRAL, radius * np.cosh(rapidity), by_z)


def _out_of_hole(z: Floats32, uniform: Floats32) -> Floats32:
    """Z [N, mm] with those in the crack moved to the edge that is nearer, and smeared there."""
    low, high = _HOLE_Z
    edge = np.where(z < 0.5 * (low + high), low - 60.0 * uniform, high + 60.0 * uniform)
    return np.where((z > low) & (z < high), edge, z)
