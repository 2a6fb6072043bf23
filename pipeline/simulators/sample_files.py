"""Simulated clusters as ROOT files: a tree, with the generator's settings beside it."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uproot

from pipeline.formats.columns import Target
from pipeline.formats.files import replacing
from pipeline.formats.records import OutputRecord, Record
from pipeline.formats.seeds import generator
from pipeline.root.files import SIMULATION_KEY
from pipeline.root.layout import Layout
from pipeline.root.write import write_clusters
from pipeline.samples.topo_clusters import TOPO_CLUSTER_EXTRAS, TOPO_CLUSTER_FEATURES
from pipeline.simulators.known_density.sample import draw_clusters
from pipeline.simulators.known_density.settings import RECIPE, GeneratorSettings
from pipeline.simulators.settings import SimulateSettings

SAMPLE = "sample.json"
# Of what the generator makes.
UNITS = {f.name: f.unit for f in TOPO_CLUSTER_FEATURES} | {
    column.name: column.unit for column in TOPO_CLUSTER_EXTRAS
}
UNITS |= {Target().denominator: Target().calibrated_unit}


class SimulatedFile(Record):
    """One file of a simulated sample."""

    path: str
    clusters: int
    size: int


class SimulatedSample(OutputRecord):
    """The files of a finished simulation; written last."""

    parts: tuple[SimulatedFile, ...]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {part.path: part.size for part in self.parts}


@dataclass(frozen=True, slots=True)
class FilePlan:
    """All that a worker needs to write one file."""

    folder: Path
    index: int
    num_clusters: int
    first_event: int
    seed: int
    layout: Layout
    settings: GeneratorSettings


def plan_files(
    settings: SimulateSettings, *, folder: Path, seed: int, layout: Layout
) -> list[FilePlan]:
    """The files of a sample; the last one holds what is left over."""
    size = settings.clusters_per_file
    return [
        FilePlan(
            folder=folder,
            index=index,
            num_clusters=min(size, settings.num_clusters - start),
            # A file has fewer events than clusters, so events are numbered without overlap.
            first_event=start + 1,
            seed=seed,
            layout=layout,
            settings=settings.generator,
        )
        for index, start in enumerate(range(0, settings.num_clusters, size))
    ]


def write_file(plan: FilePlan) -> SimulatedFile:
    """Write one file; its content depends on the settings, the seed and its index alone."""
    rng = generator(plan.seed, "simulate", plan.index)
    clusters = draw_clusters(plan.settings, rng, plan.num_clusters, first_event=plan.first_event)
    name = f"clusters-{plan.index:05d}.root"
    recipe = {"recipe": RECIPE, "settings": plan.settings.model_dump()}
    words = [plan.seed, plan.index, plan.num_clusters, plan.first_event, recipe]
    identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(words))
    with (
        replacing(plan.folder / name) as temporary,
        uproot.recreate(
            temporary, compression=uproot.LZ4(1), uuid_function=lambda: identity
        ) as file,
    ):
        write_clusters(file, plan.layout, clusters, UNITS)
        file[SIMULATION_KEY] = json.dumps(recipe)
    return SimulatedFile(
        path=name, clusters=plan.num_clusters, size=(plan.folder / name).stat().st_size
    )
