"""The section `simulate` of a study."""

from typing import Annotated

from pydantic import Field

from pipeline.formats.records import Record
from pipeline.simulators.known_density.settings import GeneratorSettings


class SimulateSettings(Record):
    """The simulated sample: how many clusters, in files of which size, from which generator.

    Attributes:
        num_clusters: In all files together.
        clusters_per_file: The last file may have fewer.
        generator: What the simulator of known density lets one choose.
    """

    num_clusters: Annotated[int, Field(gt=0)]
    clusters_per_file: Annotated[int, Field(gt=0)] = 50_000
    generator: GeneratorSettings = GeneratorSettings()
