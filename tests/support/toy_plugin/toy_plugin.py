"""A package beside topocal: a simulator, a family of densities, a kind of network and a chapter."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel

from pipeline.formats.families import Family
from pipeline.formats.versions import fingerprint
from pipeline.report.chapters import Chapter
from pipeline.simulators.registry import Simulator
from pipeline.simulators.settings import SampleSettings
from training.kinds import NetworkKind
from training.settings import DnnSettings

UNITS = {"e_raw": "GeV", "e_true": "GeV"}


class ShowerSettings(BaseModel, frozen=True):
    width: float = 0.08


class ShowerSample(SampleSettings):
    simulator: Literal["toy_showers"]
    generator: ShowerSettings = ShowerSettings()


def draw(settings, rng, num_clusters, first_event=1):
    """Showers whose log-response is a Laplace density about a line in the angle."""
    angle = rng.uniform(-1.0, 1.0, num_clusters).astype(np.float32)
    e_raw = (10 ** rng.normal(0.5, 0.5, num_clusters)).astype(np.float32)
    log_response = location_of(angle) + rng.laplace(0.0, settings.width, num_clusters)
    return {
        "e_raw": e_raw,
        "angle": angle,
        "e_true": (e_raw / 10**log_response).astype(np.float32),
        "eventNumber": np.arange(first_event, first_event + num_clusters, dtype=np.int64),
    }


def location_of(angle):
    return 0.1 * angle.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Laplaces:
    """Location and log of the variance [S, 2, N] of Laplace densities of l."""

    outputs_SPN: np.ndarray
    bounds: tuple[float, float]

    @property
    def num_networks(self):
        return len(self.outputs_SPN)

    @property
    def lower(self):
        return np.full(self.outputs_SPN.shape[2], -np.inf)

    @property
    def upper(self):
        return np.full(self.outputs_SPN.shape[2], np.inf)

    def of_rows(self, rows):
        return Laplaces(self.outputs_SPN[:, :, rows], self.bounds)

    def log_density(self, points_NG):
        location, scale = self._parameters()
        return -np.abs(points_NG - location) / scale - np.log(2.0 * scale)

    def knots(self):
        location, scale = self._parameters()
        steps = [location + step * scale for step in (-21, -4, -1, 0, 1, 4, 21)]
        return np.concatenate(steps, axis=2).swapaxes(0, 1).reshape(len(self.lower), -1)

    def _parameters(self):
        location, log_variance = self.outputs_SPN.astype(np.float64).swapaxes(0, 1)
        variance = np.exp(np.clip(log_variance, *self.bounds))
        return location[:, :, None], np.sqrt(0.5 * variance)[:, :, None]


@dataclass(frozen=True)
class ShowerDensity:
    width: float
    family: str = "laplace"
    inputs: tuple[str, ...] = ("angle",)
    columns: tuple[str, ...] = ("angle",)

    @property
    def fingerprint(self):
        return fingerprint(toy=self.width)

    def of_rows(self, columns):
        location = location_of(columns["angle"])
        log_variance = np.full(len(location), np.log(2.0 * self.width**2))
        return Laplaces(np.stack([location, log_variance])[None], (-14.0, 0.0))


def density(manifest):
    return ShowerDensity(manifest.inputs[0].simulation["settings"]["width"])


class ToySettings(DnnSettings):
    kind: Literal["toy_network"] = "toy_network"
    hidden: tuple[int, ...] = (8,)
    output: Literal["bounded", "log10"] = "log10"


def sentences(scene):
    yield f"{len(scene.manifest.features)} features, as the toy counts them."


SHOWERS = Simulator(
    ShowerSample, draw="toy_plugin:draw", units="toy_plugin:UNITS", recipe=1,
    density="toy_plugin:density",
)  # fmt: skip
LAPLACE = Family(
    "laplace", ("location", "log_variance"), has_components=False,
    densities="toy_plugin:Laplaces", log_density="toy_plugin_torch:log_density",
    location="toy_plugin_torch:location",
)  # fmt: skip
NETWORK = NetworkKind(
    ToySettings, learner="training.learners.plain:Regression",
    export="training.export.point:export_regression",
)  # fmt: skip
CHAPTER = Chapter("toy", "A toy chapter", "From another package.", texts=(sentences,))
