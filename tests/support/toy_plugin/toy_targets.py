"""A simulator of jets with three targets: two ratios, one in log10 and one as it is, and a value.

Given the features the three are independent Gaussians, each in the space of its target.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel

from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.formats.versions import fingerprint
from pipeline.simulators.registry import Simulator
from pipeline.simulators.settings import SampleSettings

UNITS = {"e_raw": "GeV", "e_true": "GeV", "m_raw": "GeV", "m_true": "GeV"}
UNITS |= {"z_raw": "cm", "z_true": "cm"}
WIDTHS = {"e_response": 0.05, "m_response": 0.12, "depth": 0.4}


class JetSettings(BaseModel, frozen=True):
    slope: float = 1.0


class JetSample(SampleSettings):
    simulator: Literal["toy_jets"]
    generator: JetSettings = JetSettings()


def centre_of(target, angle, z_raw, slope):
    """The mean of a target given the features, in the target's own space."""
    wide = slope * angle.astype(np.float64)
    if target == "e_response":
        return 0.1 * wide
    return 1.0 + 0.2 * wide if target == "m_response" else z_raw.astype(np.float64) - wide


def draw(settings, rng, num_clusters, first_event=1):
    angle = rng.uniform(-1.0, 1.0, num_clusters).astype(np.float32)
    z_raw = rng.normal(0.0, 3.0, num_clusters).astype(np.float32)
    e_raw, m_raw = (10 ** rng.normal(mean, 0.4, num_clusters) for mean in (2.0, 1.0))
    drawn = {
        name: rng.normal(centre_of(name, angle, z_raw, settings.slope), width)
        for name, width in WIDTHS.items()
    }
    columns = {
        "angle": angle,
        "z_raw": z_raw,
        "z_true": drawn["depth"],
        "e_raw": e_raw,
        "e_true": e_raw / 10 ** drawn["e_response"],
        "m_raw": m_raw,
        "m_true": m_raw / drawn["m_response"],
    }
    single = {name: values.astype(np.float32) for name, values in columns.items()}
    numbers = np.arange(first_event, first_event + num_clusters, dtype=np.int64)
    return {**single, "eventNumber": numbers}


@dataclass(frozen=True)
class JetDensity:
    target: str
    slope: float
    family: str = "gaussian_mixture"
    inputs: tuple[str, ...] = ("angle", "z_raw")
    columns: tuple[str, ...] = ("angle", "z_raw")

    @property
    def fingerprint(self):
        return fingerprint(toy=[self.target, self.slope])

    def of_rows(self, columns):
        centre = centre_of(self.target, columns["angle"], columns["z_raw"], self.slope)
        shape = (1, len(centre), 1)
        return Mixtures(
            log_weights=np.zeros(shape),
            means=centre.reshape(shape),
            sigmas=np.full(shape, WIDTHS[self.target]),
            lower=np.full(len(centre), -np.inf),
            upper=np.full(len(centre), np.inf),
        )


def density(manifest):
    slope = manifest.inputs[0].simulation["settings"]["slope"]
    return JetDensity(manifest.require_target().name, slope)


JETS = Simulator(
    JetSample, draw="toy_targets:draw", units="toy_targets:UNITS", recipe=1,
    density="toy_targets:density",
)  # fmt: skip
