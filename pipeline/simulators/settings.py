"""The section `simulate` of a study, of which each simulator has its own form."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from pipeline.formats.records import Record
from pipeline.simulators.known_density.settings import GeneratorSettings

KNOWN_DENSITY: Literal["known_density"] = "known_density"


class SampleSettings(Record):
    """A simulated sample: how many rows, in files of which size, from which generator.

    Attributes:
        simulator: Its name; each subclass has one.
        num_clusters: In all files together.
        clusters_per_file: The last file may have fewer.
        generator: What the simulator lets one choose.
    """

    simulator: str
    num_clusters: Annotated[int, Field(gt=0)]
    clusters_per_file: Annotated[int, Field(gt=0)] = 50_000
    generator: BaseModel


class SimulateSettings(SampleSettings):
    """Topo-clusters whose conditional density is known."""

    # not written where it is the usual one: samples from before there were others stay up to date
    simulator: Literal["known_density"] = Field(
        default=KNOWN_DENSITY, exclude_if=KNOWN_DENSITY.__eq__
    )
    generator: GeneratorSettings = GeneratorSettings()
