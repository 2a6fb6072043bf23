"""Densities as calibrators: a trained model's ONNX file, or any other, and what follows."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrators.onnx_session import open_session
from pipeline.calibrators.protocol import calibrated_pair, is_inside
from pipeline.formats.calibrated_set import QUANTILES, Functionals, calibrated_columns
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.families import FAMILIES, GAUSSIAN_MIXTURE
from pipeline.formats.model_inputs import inputs_of
from pipeline.ingest.identity import uniform_of
from pipeline.numerics.arrays import Columns, FloatArray
from pipeline.settings import SummarySettings


class Density(Protocol):
    """A conditional density of l, given raw features."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The feature columns that it needs."""

    @property
    def family(self) -> str:
        """The family of its densities."""

    def of_rows(self, columns: Columns) -> Any:  # noqa: ANN401 - as the family reads them
        """The densities of N rows, from the columns that `inputs` names."""


@dataclass(frozen=True, slots=True)
class OnnxDensity:
    """The networks of one ONNX file.

    Attributes:
        path: The file, whose output `networks` [S, P, N] is what the family takes.
        sha256: Of the file.
        features: Columns of one number a row, in their order.
        log_variance_bounds: What the networks' logs of variances are limited to.
        family: Of the densities.
        tables: By table of lists: its columns, in their order.
    """

    path: Path
    sha256: str
    features: tuple[str, ...]
    log_variance_bounds: tuple[float, float]
    family: str = GAUSSIAN_MIXTURE.name
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All columns that it needs."""
        return (*self.features, *(name for names in self.tables.values() for name in names))

    def of_rows(self, columns: Columns) -> Any:  # noqa: ANN401 - as the family reads them
        """The densities of some rows; some two thousand at a time are fastest."""
        session = open_session(self.path, self.sha256)
        given = inputs_of(self.features, self.tables, columns)
        (outputs_SPN,) = session.run(["networks"], given)
        return FAMILIES[self.family].load("densities")(outputs_SPN, self.log_variance_bounds)


MODE = "mode_linear"


def of_itself(summary: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The functionals of a target that is l, from those of 10^l.

    Quantiles and the mode of the density of l change with the target alone, and moments of l are
    beside those of 10^l. |l| < 300 keeps 10^l finite.
    """
    found = {
        name: values if name in _DOUBLE else np.log10(values)
        for name, values in summary.items()
        if name in {*QUANTILES, *_DOUBLE}
    }
    for name in ("mean", "sigma_syst", "sigma_stat", "sigma_tot"):
        found[name] = summary[f"{name}_log10"]
    found[MODE] = np.log10(summary["mode_log10"])
    found[f"{MODE}_at_bound"] = summary["mode_log10_at_bound"]
    return found


# A float32 would round the sum of five million rows' scores in its sixth digit.
_DOUBLE = ("log_density", "pit")
CRPS_SEED = 2412  # of the choice of rows


@dataclass(frozen=True, slots=True)
class Summariser:
    """A density and what becomes of it.

    Attributes:
        density: The model or the oracle.
        target: What the density describes.
        search_range: Range of the transformed target for modes and moments.
        ranges: By feature: the training range, for `in_domain`.
        settings: Which functionals become the central value and the sigmas.
        crps_share: Share of the rows whose CRPS is computed, which takes longer than all else of
            a row; chosen by cluster_id, so the same for all models and however rows are split.
    """

    density: Density
    target: Target
    search_range: tuple[float, float]
    ranges: Mapping[str, tuple[float, float]]
    settings: SummarySettings
    crps_share: float = 0.0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that the density depends on."""
        return self.density.inputs

    @property
    def functionals(self) -> Functionals:
        """The functionals that the settings choose, with the range of the search."""
        return Functionals(self._central, self.settings.sigma, self.search_range)

    @property
    def _central(self) -> str:
        """The central value; the density of a target that is not transformed has one mode."""
        is_mode = self.settings.central.startswith("mode_")
        return MODE if is_mode and self.target.transform == "identity" else self.settings.central

    @property
    def columns(self) -> tuple[str, ...]:
        """All that a calibrated set can have."""
        return tuple(column.name for column in calibrated_columns(self.target, has_truth=False))

    @property
    def scores(self) -> tuple[str, ...]:
        """What the density says of the true value."""
        return (*_DOUBLE, "crps") if self.crps_share else _DOUBLE

    @property
    def slabs_at_once(self) -> int:
        """One: a network's layers fill the cache."""
        return 1

    def scoring_crps(self, share: float) -> Self:
        """The same with the CRPS of a share of the rows."""
        return dataclasses.replace(self, crps_share=share)

    def calibrate(self, rows: Columns, truth: FloatArray | None = None) -> Columns:
        """The columns of a calibrated set for N rows; a slab at a time bounds memory.

        Args:
            rows: The density's inputs and the target's numerator [N].
            truth: The transformed true target [N], for the scores; None without truth.
        """
        densities, family = self.density.of_rows(rows), FAMILIES[self.density.family]
        summary = family.load("summarise")(
            densities,
            *self.search_range,
            central=self.settings.central,
            sigma=self.settings.sigma,
            points=truth,
        )
        if self.target.transform == "identity":
            summary = of_itself(summary)
        columns: Columns = {
            name: values if values.dtype == bool or name in _DOUBLE else values.astype(np.float32)
            for name, values in summary.items()
        }
        columns |= calibrated_pair(self.target, rows, summary[self._central])
        columns["in_domain"] = is_inside(rows, self.ranges)
        if truth is not None and self.crps_share:
            chosen = np.flatnonzero(uniform_of(rows[IDENTITY], CRPS_SEED) < self.crps_share)
            columns["crps"] = np.full(len(truth), np.nan, np.float32)
            columns["crps"][chosen] = family.load("crps")(densities.of_rows(chosen), truth[chosen])
        return columns
