"""The simulators: one line each, from which the job `simulate` and the oracle follow.

Functions are named, not imported: a study is checked without what they draw with.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.plugins import Table
from pipeline.numerics.arrays import Columns
from pipeline.simulators.known_density.settings import RECIPE
from pipeline.simulators.settings import KNOWN_DENSITY, SampleSettings, SimulateSettings


class ExactDensity(Protocol):
    """The density that a simulated sample was drawn from, cut as the dataset's truth was cut."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The feature columns that it depends on."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that `of_rows` reads."""

    @property
    def family(self) -> str:
        """The family of its densities."""

    @property
    def fingerprint(self) -> str:
        """Of the generator and its settings."""

    def of_rows(self, columns: Columns) -> Any:  # noqa: ANN401 - as the family reads them
        """The densities of N rows, from the columns that `columns` names."""


@dataclass(frozen=True, slots=True)
class Simulator:
    """A source of simulated samples.

    Attributes:
        settings: The section `simulate` of a study; its `simulator` is the name.
        draw: "module:function" of the section's `generator`, a random generator, the number of rows
            and the number of the first event to columns [N] in the units of `units`.
        units: "module:name" of a mapping from columns to units.
        recipe: Raised when the same settings give other rows or another density.
        density: "module:function" of a dataset's manifest to its `ExactDensity`, or to the reason
            why it has none; None where no sample has one.
        files: What else the rows follow from, by name.
    """

    settings: type[SampleSettings]
    draw: str
    units: str
    recipe: int
    density: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def open_draw(self) -> Callable[..., Columns]:
        """The function that draws."""
        return pkgutil.resolve_name(self.draw)  # type: ignore[no-any-return]

    def open_units(self) -> Mapping[str, str]:
        """The unit of each column that has one."""
        return pkgutil.resolve_name(self.units)  # type: ignore[no-any-return]


_FOLDER = "pipeline.simulators.known_density"


def _own() -> dict[str, Simulator]:
    return {
        KNOWN_DENSITY: Simulator(
            SimulateSettings,
            draw=f"{_FOLDER}.sample:draw_clusters",
            units=f"{_FOLDER}.sample:UNITS",
            recipe=RECIPE,
            density=f"{_FOLDER}.density:exact_density",
            files={"lcw": Path(__file__).parent / "known_density/lcw.parquet"},
        ),
    }


SIMULATORS = Table(_own, "simulators", Simulator)


def oracle_of(manifest: DatasetManifest) -> ExactDensity | str:
    """The exact density of a dataset, or the reason why it has none."""
    simulation = manifest.inputs[0].simulation
    if simulation is None:
        return "its inputs were not simulated by this generator"
    if len({repr(file.simulation) for file in manifest.inputs}) > 1:
        return "its inputs are from different generators"
    name = simulation.get("simulator", KNOWN_DENSITY)
    simulator = SIMULATORS.get(name)
    if simulator is None:
        return f"its simulator {name} is not installed"
    if simulator.density is None:
        return f"simulator {name} knows none"
    if simulation.get("recipe") != simulator.recipe:
        return "its inputs are of another version of the generator"
    density: ExactDensity | str = pkgutil.resolve_name(simulator.density)(manifest)
    return density
