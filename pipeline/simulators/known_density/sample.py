"""The simulated sample: clusters with features, truth and identity, event by event."""

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.columns import Target
from pipeline.numerics.arrays import BoolArray, Columns, Float32Array
from pipeline.samples.topo_clusters import TOPO_CLUSTER_EXTRAS, TOPO_CLUSTER_FEATURES
from pipeline.simulators.known_density.events import draw_events
from pipeline.simulators.known_density.features import draw_features
from pipeline.simulators.known_density.geometry import cartesian
from pipeline.simulators.known_density.latents import draw_em_deposit_share, draw_latents
from pipeline.simulators.known_density.lcw import lcw_columns
from pipeline.simulators.known_density.response import (
    COMPONENT,
    draw_with_component,
    response_mixture,
)
from pipeline.simulators.known_density.settings import GeneratorSettings

RUN_NUMBER = 284_500
UNITS = {f.name: f.unit for f in TOPO_CLUSTER_FEATURES} | {
    column.name: column.unit for column in TOPO_CLUSTER_EXTRAS
}
UNITS |= {Target().denominator: Target().calibrated_unit}
_BATCH = 16_384  # clusters drawn together, to stay in the cache; another value gives another sample


def draw_clusters(
    settings: GeneratorSettings,
    rng: np.random.Generator,
    num_clusters: int,
    first_event: int = 1,
    run_number: int = RUN_NUMBER,
) -> Columns:
    """Accepted clusters: features, identity, position, truth and LCW, [num_clusters] each.

    As draw_bare_clusters, with the LCW columns that follow from the features.
    """
    sample = draw_bare_clusters(settings, rng, num_clusters, first_event, run_number)
    return sample | lcw_columns(sample)


def draw_bare_clusters(
    settings: GeneratorSettings,
    rng: np.random.Generator,
    num_clusters: int,
    first_event: int = 1,
    run_number: int = RUN_NUMBER,
) -> Columns:
    """Accepted clusters, event by event: features, identity, position, truth, [num_clusters] each.

    Events without an accepted cluster get no number. The last event ends where the sample does. A
    longer sample from an equal rng begins with the same clusters, but for nCluster of that event.

    Events are numbered from first_event on. A negative num_clusters is a ValueError.
    """
    if num_clusters < 0:
        raise ValueError(f"num_clusters must not be negative, got {num_clusters}")
    batches: list[Columns] = []
    room, next_event = num_clusters, first_event
    while not batches or room > 0:
        batches.append(_draw_batch(settings, rng, room, next_event))
        numbers = batches[-1]["eventNumber"]
        next_event = int(numbers[-1]) + 1 if len(numbers) else next_event
        room -= len(numbers)
    sample: Columns = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    sample["runNumber"] = np.full(num_clusters, run_number, np.int32)
    return sample


def _draw_batch(
    settings: GeneratorSettings, rng: np.random.Generator, room: int, first_event: int
) -> Columns:
    """A batch of whole events, of which at most `room` accepted clusters are returned."""
    num_events = max(1, round(_BATCH / settings.mean_clusters_per_event))
    events = draw_events(rng, num_events, settings.mean_clusters_per_event)
    latents = draw_latents(rng, events)
    features = draw_features(rng, events, latents)
    deposit, component, accepted = _draw_deposit(settings, rng, features)
    em_share = draw_em_deposit_share(rng, latents.origin)
    rows = np.flatnonzero(accepted)[:room]
    kept: Columns = {name: column[rows] for name, column in features.items()}
    kept |= _place(latents.phi[rows], kept)
    kept["cluster_ENG_CALIB_TOT"] = deposit[rows]
    kept["cluster_ENG_CALIB_FRAC_EM"] = em_share[rows]
    kept[COMPONENT] = component[rows].astype(np.int32)
    return kept | _identity(latents.event[rows], first_event)


def _draw_deposit(
    settings: GeneratorSettings, rng: np.random.Generator, features: Columns
) -> tuple[Float32Array, NDArray[np.intp], BoolArray]:
    """E_dep [N, GeV], the component of the response, and whether the cluster is accepted.

    The second condition refuses the deposits (1e-7 of all) that float32 rounds down to the minimum.
    """
    mixtures = response_mixture(features, settings)
    response, component = draw_with_component(rng, mixtures)
    deposit = (features["clusterE"] * 10.0**-response).astype(np.float32)
    accepted = (response < mixtures.upper) & (deposit > np.float32(settings.min_deposit_gev))
    return deposit, component, accepted


def _place(phi: Float32Array, features: Columns) -> Columns:
    """Direction, transverse momentum [GeV] and centre of gravity [mm]."""
    rapidity = features["clusterEta"].astype(np.float32)
    x, y, z = cartesian(features["cluster_CENTER_MAG"].astype(np.float32), rapidity, phi)
    return {
        "clusterPhi": phi,
        "clusterPt": features["clusterE"].astype(np.float32) / np.cosh(rapidity),
        "cluster_CENTER_X": x,
        "cluster_CENTER_Y": y,
        "cluster_CENTER_Z": z,
    }


def _identity(event: NDArray[np.intp], first_event: int) -> Columns:
    """Event number, place in the event and number of its kept clusters; events are adjacent."""
    starts = np.flatnonzero(np.diff(event, prepend=-1))
    counts = np.diff(starts, append=len(event))
    numbers = np.arange(len(starts), dtype=np.int64) + first_event
    return {
        "eventNumber": np.repeat(numbers, counts),
        "clusterIndex": (np.arange(len(event)) - np.repeat(starts, counts)).astype(np.int32),
        "nCluster": np.repeat(counts, counts).astype(np.int32),
    }
