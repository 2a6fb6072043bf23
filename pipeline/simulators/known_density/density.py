"""The exact density of a dataset that was simulated with it."""

from dataclasses import dataclass

import numpy as np

from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.formats.families import GAUSSIAN_MIXTURE
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.versions import fingerprint
from pipeline.numerics.arrays import Columns
from pipeline.simulators.known_density.features import FEATURES
from pipeline.simulators.known_density.response import (
    FLOORED,
    RESPONSE,
    SECOND_TIME_FLOOR,
    response_mixture,
)
from pipeline.simulators.known_density.settings import RECIPE, GeneratorSettings


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
    family: str = GAUSSIAN_MIXTURE.name

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that it reads: with the cut it depends on the numerator too."""
        return (self.numerator, *self.inputs)

    @property
    def fingerprint(self) -> str:
        """Of the generator, its settings and the cut."""
        return fingerprint(recipe=RECIPE, generator=self.settings, cut=self.truth_cut)

    def of_rows(self, columns: Columns) -> Mixtures:
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


def exact_density(manifest: DatasetManifest) -> OracleDensity | str:
    """The exact density of a dataset, or the reason why it has none."""
    reason = _why_none(manifest)
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


def _why_none(manifest: DatasetManifest) -> str | None:
    target = manifest.target
    absent = sorted(set(FEATURES) - {column.name for column in manifest.columns})
    others = [cut.column for cut in manifest.truth_cuts if cut.column != RESPONSE[1]]
    floors = {floor.column: floor.floor for floor in manifest.floors if floor.column in FEATURES}
    changing = [n for n, f in floors.items() if n != FLOORED or f > SECOND_TIME_FLOOR]
    reasons = {
        f"its target is not {' / '.join(RESPONSE)}": target is None
        or (target.numerator, target.denominator) != RESPONSE,
        f"it lacks {', '.join(absent)}, on which the density depends": bool(absent),
        f"the floor of {', '.join(changing)} hides what the density depends on": bool(changing),
        f"a cut on {', '.join(others)} changes the density in a way that is not known": bool(
            others
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)
