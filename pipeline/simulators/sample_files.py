"""Simulated samples as ROOT files: a tree, with the generator's settings beside it."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uproot

from pipeline.formats.files import replacing
from pipeline.formats.records import OutputRecord, Record
from pipeline.formats.seeds import generator
from pipeline.root.files import SIMULATION_KEY
from pipeline.root.layout import Layout
from pipeline.root.write import write_clusters
from pipeline.simulators.registry import SIMULATORS
from pipeline.simulators.settings import KNOWN_DENSITY, SampleSettings

SAMPLE = "sample.json"


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
    settings: SampleSettings


def plan_files(
    settings: SampleSettings, *, folder: Path, seed: int, layout: Layout
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
            settings=settings,
        )
        for index, start in enumerate(range(0, settings.num_clusters, size))
    ]


def write_file(plan: FilePlan) -> SimulatedFile:
    """Write one file; its content depends on the settings, the seed and its index alone."""
    simulator, chosen = SIMULATORS[plan.settings.simulator], plan.settings.generator
    rng = generator(plan.seed, "simulate", plan.index)
    draw = simulator.open_draw()
    clusters = draw(chosen, rng, plan.num_clusters, first_event=plan.first_event)
    name = f"clusters-{plan.index:05d}.root"
    recipe = {"recipe": simulator.recipe, "settings": chosen.model_dump()}
    if (
        plan.settings.simulator != KNOWN_DENSITY
    ):  # whose files said nothing when it was the only one
        recipe["simulator"] = plan.settings.simulator
    words = [plan.seed, plan.index, plan.num_clusters, plan.first_event, recipe]
    identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(words))
    with (
        replacing(plan.folder / name) as temporary,
        uproot.recreate(
            temporary, compression=uproot.LZ4(1), uuid_function=lambda: identity
        ) as file,
    ):
        write_clusters(file, plan.layout, clusters, simulator.open_units())
        file[SIMULATION_KEY] = json.dumps(recipe)
    return SimulatedFile(
        path=name, clusters=plan.num_clusters, size=(plan.folder / name).stat().st_size
    )
