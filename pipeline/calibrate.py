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
from pipeline.settings import CalibrateSettings

Columns = dict[str, NDArray[Any]]

# One layer's input and output of one network for this many rows stay in the second-level cache.
SLAB = 2048

# A float32 would round the sum of five million rows' scores in its sixth digit.
_DOUBLE = ("log_density", "pit")


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """All that a worker needs to calibrate one part.

    Attributes:
        density: The model or the oracle.
        dataset: Folder of the dataset.
        part: The part of the dataset.
        folder: Folder of the calibrated set.
        target: What the density describes.
        has_truth: Whether the dataset holds the target's true value.
        search_range: log10 range of modes and moments.
        ranges: By feature: the training range, for `in_domain`.
        settings: The study's section calibrate.
    """

    density: Density
    dataset: Path
    part: Part
    folder: Path
    target: Target
    has_truth: bool
    search_range: tuple[float, float]
    ranges: Mapping[str, tuple[float, float]]
    settings: CalibrateSettings


@dataclass(frozen=True, slots=True)
class CalibratedPart:
    """A written part, and what its rows add to the manifest."""

    part: Part
    rows_at_bound: Mapping[str, int]
    rows_out_of_domain: int


def calibrate_part(plan: CalibrationPlan) -> CalibratedPart:
    """Calibrate the rows of one part of a dataset and write them; runs on a worker."""
    target = plan.target
    wanted = [IDENTITY, target.numerator, *plan.density.inputs]
    wanted += [target.denominator] if plan.has_truth else []
    table = read_part(plan.dataset, plan.part, list(dict.fromkeys(wanted)))
    rows = {name: table[name].to_numpy() for name in table.column_names}
    slabs = [
        _calibrate_rows(plan, {name: values[start : start + SLAB] for name, values in rows.items()})
        for start in range(0, table.num_rows, SLAB)
    ]
    columns = {name: np.concatenate([slab[name] for slab in slabs]) for name in slabs[0]}
    flags = {name: columns.pop(name) for name in list(columns) if name.endswith("_at_bound")}
    described = [IDENTITY, *(column.name for column in calibrated_columns(target, plan.has_truth))]
    written = pa.table({name: columns[name] for name in described})
    return CalibratedPart(
        part=write_part(plan.folder, plan.part.split, plan.part.index, written),
        rows_at_bound={name: int(values.sum()) for name, values in flags.items()},
        rows_out_of_domain=int((~columns["in_domain"]).sum()),
    )


def _calibrate_rows(plan: CalibrationPlan, rows: Columns) -> Columns:
    truth = _truth_of(plan, rows) if plan.has_truth else None
    summary = summarise(
        plan.density.mixtures(rows),
        *plan.search_range,
        central=plan.settings.central,
        sigma=plan.settings.sigma,
        points=truth,
    )
    central = summary[plan.settings.central]
    columns: Columns = {
        name: values if values.dtype == bool or name in _DOUBLE else values.astype(np.float32)
        for name, values in summary.items()
    }
    columns[IDENTITY] = rows[IDENTITY]
    columns[plan.target.name] = central.astype(np.float32)
    columns[plan.target.calibrated] = (rows[plan.target.numerator] / central).astype(np.float32)
    columns["in_domain"] = _is_in_domain(plan, rows)
    return columns


def _truth_of(plan: CalibrationPlan, rows: Columns) -> NDArray[np.float64]:
    """log10 of the true target; from both columns: a ratio in float32 may pass its bound."""
    numerator, denominator = rows[plan.target.numerator], rows[plan.target.denominator]
    return np.asarray(np.log10(numerator.astype(np.float64) / denominator), np.float64)


def _is_in_domain(plan: CalibrationPlan, rows: Columns) -> NDArray[np.bool_]:
    inside = np.ones(len(rows[IDENTITY]), dtype=bool)
    for name, (low, high) in plan.ranges.items():
        inside &= (rows[name] >= low) & (rows[name] <= high)
    return inside
