"""Calibrated sets: a model mapped over the parts of a split, row by row."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.calibrators.protocol import Calibrator
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.manifest import Part, columns_of, read_part
from pipeline.numerics.arrays import Columns, FloatArray
from pipeline.parquet import write_part

# One layer's input and output of one network for this many rows stay in the second-level cache.
SLAB = 2048


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """All that a worker needs to calibrate one part.

    Attributes:
        calibrator: What is done with each row.
        dataset: Folder of the dataset.
        part: The part of the dataset.
        folder: Folder of the calibrated set.
        has_truth: Whether the dataset holds the target's true value.
    """

    calibrator: Calibrator
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
    calibrator, target = plan.calibrator, plan.calibrator.target
    wanted = [IDENTITY, target.numerator, *calibrator.inputs]
    scores = calibrator.scores if plan.has_truth else ()
    wanted += [target.denominator] if scores else []
    table = read_part(plan.dataset, plan.part, list(dict.fromkeys(wanted)))
    rows = columns_of(table)
    truth_N = truth_of(target, rows) if scores else None
    columns = calibrate_rows(calibrator, rows, truth_N)
    flags = {name: columns.pop(name) for name in list(columns) if name.endswith("_at_bound")}
    kept = {name: columns[name] for name in (*calibrator.columns, *scores)}
    written = pa.table({IDENTITY: table[IDENTITY], **kept})
    return CalibratedPart(
        part=write_part(plan.folder, plan.part.split, plan.part.index, written),
        rows_at_bound={name: int(values.sum()) for name, values in flags.items()},
        rows_out_of_domain=int((~columns["in_domain"]).sum()),
    )


def calibrate_rows(
    calibrator: Calibrator, rows: Columns, truth_N: FloatArray | None = None
) -> Columns:
    """The columns of a calibrated set for any number of rows, computed slab by slab.

    Args:
        calibrator: What is done with each row.
        rows: Its inputs and the target's numerator [N].
        truth_N: The transformed true target [N], for scores; None without truth.
    """
    num_rows, size = len(rows[calibrator.target.numerator]), SLAB * calibrator.slabs_at_once
    slabs = [
        calibrator.calibrate(
            {name: values[first : first + size] for name, values in rows.items()},
            None if truth_N is None else truth_N[first : first + size],
        )
        for first in range(0, max(num_rows, 1), size)
    ]
    return {name: np.concatenate([slab[name] for slab in slabs]) for name in slabs[0]}


def truth_of(target: Target, rows: Columns) -> FloatArray:
    """The transformed true target; from its columns: a ratio in float32 may pass its bound."""
    return target.transformed(target.value_of(rows))
