"""Calibrated sets: a density mapped over the parts of a split, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.density import Density
from pipeline.formats.calibrated import calibrated_columns
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.manifest import Part, read_part
from pipeline.functionals import summarise
from pipeline.parquet import write_part
from pipeline.settings import SummarySettings

Columns = dict[str, NDArray[Any]]

# One layer's input and output of one network for this many rows stay in the second-level cache.
SLAB = 2048

# A float32 would round the sum of five million rows' scores in its sixth digit.
_DOUBLE = ("log_density", "pit")


@dataclass(frozen=True, slots=True)
class Summariser:
    """A density and what becomes of it.

    Attributes:
        density: The model or the oracle.
        target: What the density describes.
        search_range: log10 range of modes and moments.
        ranges: By feature: the training range, for `in_domain`.
        settings: Which functionals become the central value and the sigmas.
    """

    density: Density
    target: Target
    search_range: tuple[float, float]
    ranges: Mapping[str, tuple[float, float]]
    settings: SummarySettings

    def summarise(self, rows: Columns, truth: NDArray[np.float64] | None = None) -> Columns:
        """The columns of a calibrated set for N rows; a slab at a time bounds memory.

        Args:
            rows: The density's inputs and the target's numerator [N].
            truth: log10 of the true target [N], for log_density and pit; None without truth.
        """
        summary = summarise(
            self.density.mixtures(rows),
            *self.search_range,
            central=self.settings.central,
            sigma=self.settings.sigma,
            points=truth,
        )
        central = summary[self.settings.central]
        columns: Columns = {
            name: values if values.dtype == bool or name in _DOUBLE else values.astype(np.float32)
            for name, values in summary.items()
        }
        columns[self.target.name] = central.astype(np.float32)
        columns[self.target.calibrated] = (rows[self.target.numerator] / central).astype(np.float32)
        inside = np.ones(len(central), dtype=bool)
        for name, (low, high) in self.ranges.items():
            inside &= (rows[name] >= low) & (rows[name] <= high)
        columns["in_domain"] = inside
        return columns


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """All that a worker needs to calibrate one part.

    Attributes:
        summariser: What is done with each row.
        dataset: Folder of the dataset.
        part: The part of the dataset.
        folder: Folder of the calibrated set.
        has_truth: Whether the dataset holds the target's true value.
    """

    summariser: Summariser
    dataset: Path
    part: Part
    folder: Path
    has_truth: bool


@dataclass(frozen=True, slots=True)
class CalibratedPart:
    """A written part, and what its rows add to the manifest."""

    part: Part
    rows_at_bound: Mapping[str, int]
    rows_out_of_domain: int


def calibrate_part(plan: CalibrationPlan) -> CalibratedPart:
    """Calibrate the rows of one part of a dataset and write them; runs on a worker."""
    summariser, target = plan.summariser, plan.summariser.target
    wanted = [IDENTITY, target.numerator, *summariser.density.inputs]
    wanted += [target.denominator] if plan.has_truth else []
    table = read_part(plan.dataset, plan.part, list(dict.fromkeys(wanted)))
    rows = {name: table[name].to_numpy() for name in table.column_names}
    truth_N = truth_of(target, rows) if plan.has_truth else None
    slabs = [
        summariser.summarise(
            {name: values[start : start + SLAB] for name, values in rows.items()},
            None if truth_N is None else truth_N[start : start + SLAB],
        )
        for start in range(0, table.num_rows, SLAB)
    ]
    columns = {name: np.concatenate([slab[name] for slab in slabs]) for name in slabs[0]}
    flags = {name: columns.pop(name) for name in list(columns) if name.endswith("_at_bound")}
    described = [column.name for column in calibrated_columns(target, plan.has_truth)]
    written = pa.table({IDENTITY: table[IDENTITY], **{name: columns[name] for name in described}})
    return CalibratedPart(
        part=write_part(plan.folder, plan.part.split, plan.part.index, written),
        rows_at_bound={name: int(values.sum()) for name, values in flags.items()},
        rows_out_of_domain=int((~columns["in_domain"]).sum()),
    )


def truth_of(target: Target, rows: Columns) -> NDArray[np.float64]:
    """log10 of the true target; from both columns: a ratio in float32 may pass its bound."""
    numerator, denominator = rows[target.numerator], rows[target.denominator]
    return np.asarray(np.log10(numerator.astype(np.float64) / denominator), np.float64)
