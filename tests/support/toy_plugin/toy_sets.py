"""A simulator of showers with cells: the response is the sum of a row's fractions, smeared.

A row has a ragged list of cells with two columns, of which only one matters. Given the cells, log10
of the response is a Gaussian about log10 of the sum.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel

from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.formats.ragged import Ragged
from pipeline.formats.versions import fingerprint
from pipeline.simulators.registry import Simulator
from pipeline.simulators.settings import SampleSettings

UNITS = {"e_raw": "GeV", "e_true": "GeV"}


class CellSettings(BaseModel, frozen=True):
    width: float = 0.05
    mean_cells: float = 6.0


class CellSample(SampleSettings):
    simulator: Literal["toy_cells"]
    generator: CellSettings = CellSettings()


def log_sum_of(fractions):
    """log10 of a constant and the sum of each row's fractions, [N]."""
    sums = np.bincount(fractions.rows, fractions.values, len(fractions))
    return np.log10(0.5 + sums)


def draw(settings, rng, num_clusters, first_event=1):
    counts = rng.poisson(settings.mean_cells, num_clusters)
    elements = int(counts.sum())
    fractions = Ragged.of_counts(rng.exponential(0.1, elements).astype(np.float32), counts)
    e_raw = (10 ** rng.normal(1.0, 0.5, num_clusters)).astype(np.float32)
    log_response = log_sum_of(fractions) + rng.normal(0.0, settings.width, num_clusters)
    return {
        "e_raw": e_raw,
        "cell_fraction": fractions,
        "cell_layer": Ragged.of_counts(rng.integers(0, 4, elements).astype(np.float32), counts),
        "e_true": (e_raw / 10**log_response).astype(np.float32),
        "eventNumber": np.arange(first_event, first_event + num_clusters, dtype=np.int64),
    }


@dataclass(frozen=True)
class CellDensity:
    width: float
    family: str = "gaussian_mixture"
    inputs: tuple[str, ...] = ("cell_fraction",)
    columns: tuple[str, ...] = ("cell_fraction",)

    @property
    def fingerprint(self):
        return fingerprint(toy=self.width)

    def of_rows(self, columns):
        centre = log_sum_of(columns["cell_fraction"])
        shape = (1, len(centre), 1)
        return Mixtures(
            log_weights=np.zeros(shape),
            means=centre.reshape(shape),
            sigmas=np.full(shape, self.width),
            lower=np.full(len(centre), -np.inf),
            upper=np.full(len(centre), np.inf),
        )


def density(manifest):
    return CellDensity(manifest.inputs[0].simulation["settings"]["width"])


CELLS = Simulator(
    CellSample, draw="toy_sets:draw", units="toy_sets:UNITS", recipe=1, density="toy_sets:density"
)
