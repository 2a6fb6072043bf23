"""Where densities come from: a trained model's ONNX file, or the exact one of a simulated sample.

Both answer the same question, the mixtures of l = log10 of the target for raw features, so that
everything after them has no special case for the oracle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrators.onnx_session import open_session
from pipeline.densities.gaussian_mixture.network_outputs import NetworkOutputs
from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.formats.manifest import DatasetManifest
from pipeline.simulators.known_density.features import FEATURES
from pipeline.simulators.known_density.response import (
    FLOORED,
    RESPONSE,
    SECOND_TIME_FLOOR,
    response_mixture,
)
from pipeline.simulators.known_density.settings import RECIPE, GeneratorSettings

Columns = Mapping[str, NDArray[Any]]


class Density(Protocol):
    """A conditional density of l, given raw features."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The feature columns that it needs."""

    def mixtures(self, columns: Columns) -> Mixtures | NetworkOutputs:
        """The mixtures of some rows."""


@dataclass(frozen=True, slots=True)
class OnnxDensity:
    """The networks of one ONNX file.

    Attributes:
        path: The file, whose output `networks` is that of blocks.NetworkOutputs.
        sha256: Of the file.
        inputs: The feature columns in their order.
        log_variance_bounds: What the networks' logs of variances are limited to.
    """

    path: Path
    sha256: str
    inputs: tuple[str, ...]
    log_variance_bounds: tuple[float, float]

    def mixtures(self, columns: Columns) -> NetworkOutputs:
        """The mixtures of some rows; some two thousand at a time are fastest."""
        x_NF = np.stack([columns[name] for name in self.inputs], axis=1).astype(np.float32)
        session = open_session(self.path, self.sha256)
        (outputs_SPN,) = session.run(["networks"], {"features": x_NF})
        return NetworkOutputs(outputs_SPN, self.log_variance_bounds)


@dataclass(frozen=True, slots=True)
class OracleDensity:
    """The exact density of a simulated sample, cut as the dataset's truth was cut.

    Attributes:
        settings: The generator's.
        inputs: The columns that the density depends on.
        numerator: Column of the response's numerator.
        truth_cut: Bounds (above, below) on the response's denominator; they bound the response.
    """

    settings: GeneratorSettings
    inputs: tuple[str, ...]
    numerator: str
    truth_cut: tuple[float | None, float | None]

    def mixtures(self, columns: Columns) -> Mixtures:
        """The exact mixtures of some rows."""
        exact = response_mixture(columns, self.settings)
        above, below = self.truth_cut
        log_energy = np.log10(columns[self.numerator].astype(np.float64))
        lower, upper = exact.lower, exact.upper
        if above is not None and above > 0:
            upper = np.minimum(upper, log_energy - np.log10(above))
        if below is not None:
            lower = np.maximum(lower, log_energy - np.log10(below))
        return Mixtures(
            log_weights=exact.log_weights,
            means=exact.means,
            sigmas=exact.sigmas,
            lower=lower,
            upper=upper,
        )


def oracle_of(manifest: DatasetManifest) -> OracleDensity | str:
    """The exact density of a dataset, or the reason why it has none."""
    reason = _why_no_oracle(manifest)
    if reason is not None:
        return reason
    above = [cut.above for cut in manifest.truth_cuts if cut.above is not None]
    below = [cut.below for cut in manifest.truth_cuts if cut.below is not None]
    return OracleDensity(
        settings=GeneratorSettings.model_validate(
            (manifest.inputs[0].simulation or {})["settings"]
        ),
        inputs=FEATURES,
        numerator=RESPONSE[0],
        truth_cut=(max(above, default=None), min(below, default=None)),
    )


def _why_no_oracle(manifest: DatasetManifest) -> str | None:
    target, simulation = manifest.target, manifest.inputs[0].simulation
    recipe = simulation and simulation.get("recipe")
    absent = sorted(set(FEATURES) - {column.name for column in manifest.columns})
    others = [cut.column for cut in manifest.truth_cuts if cut.column != RESPONSE[1]]
    floors = {floor.column: floor.floor for floor in manifest.floors if floor.column in FEATURES}
    changing = [n for n, f in floors.items() if n != FLOORED or f > SECOND_TIME_FLOOR]
    reasons = {
        "its inputs are from different generators": len({
            repr(file.simulation) for file in manifest.inputs
        })
        > 1,
        "its inputs were not simulated by this generator": simulation is None,
        f"its target is not {' / '.join(RESPONSE)}": target is None
        or (target.numerator, target.denominator) != RESPONSE,
        f"it lacks {', '.join(absent)}, on which the density depends": bool(absent),
        f"the floor of {', '.join(changing)} hides what the density depends on": bool(changing),
        "its inputs are of another version of the generator": recipe != RECIPE,
        f"a cut on {', '.join(others)} changes the density in a way that is not known": bool(
            others
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)
