"""A density as a calibrator: its central values, uncertainties, quantiles and scores."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrators.density import Density
from pipeline.calibrators.protocol import Columns, calibrated_pair, is_inside
from pipeline.densities.gaussian_mixture.crps import crps_of
from pipeline.densities.gaussian_mixture.functionals import summarise
from pipeline.formats.calibrated_set import Functionals, calibrated_columns
from pipeline.formats.columns import IDENTITY, Target
from pipeline.ingest.identity import uniform_of
from pipeline.settings import SummarySettings

# A float32 would round the sum of five million rows' scores in its sixth digit.
_DOUBLE = ("log_density", "pit")
CRPS_SEED = 2412  # of the choice of rows


@dataclass(frozen=True, slots=True)
class Summariser:
    """A density and what becomes of it.

    Attributes:
        density: The model or the oracle.
        target: What the density describes.
        search_range: log10 range of modes and moments.
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
        """Those that the settings choose."""
        return Functionals(self.settings.central, self.settings.sigma, self.search_range)

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

    def calibrate(self, rows: Columns, truth: NDArray[np.float64] | None = None) -> Columns:
        """The columns of a calibrated set for N rows; a slab at a time bounds memory.

        Args:
            rows: The density's inputs and the target's numerator [N].
            truth: log10 of the true target [N], for the scores; None without truth.
        """
        mixtures = self.density.mixtures(rows)
        summary = summarise(
            mixtures,
            *self.search_range,
            central=self.settings.central,
            sigma=self.settings.sigma,
            points=truth,
        )
        columns: Columns = {
            name: values if values.dtype == bool or name in _DOUBLE else values.astype(np.float32)
            for name, values in summary.items()
        }
        columns |= calibrated_pair(self.target, rows, summary[self.settings.central])
        columns["in_domain"] = is_inside(rows, self.ranges)
        if truth is not None and self.crps_share:
            chosen = np.flatnonzero(uniform_of(rows[IDENTITY], CRPS_SEED) < self.crps_share)
            columns["crps"] = np.full(len(truth), np.nan, np.float32)
            columns["crps"][chosen] = crps_of(mixtures.of_rows(chosen), truth[chosen])
        return columns
