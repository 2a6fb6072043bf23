"""A look-up table as a calibrator, and a column of weights that the input has already."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.calibrators.protocol import PointEstimate, calibrated_pair, is_inside
from pipeline.formats.card import require_artefact
from pipeline.formats.columns import Target
from pipeline.lookup.tables import Tables, read_tables
from pipeline.numerics.arrays import Columns, FloatArray


@dataclass(frozen=True, slots=True)
class LookupTable(PointEstimate):
    """Finished tables, read once by each process that calibrates.

    Attributes:
        path: Of the tables.
        sha256: Of that file.
        inputs: The axes' columns.
        target: What is calibrated.
        ranges: By input: the training range.
    """

    path: Path
    sha256: str
    inputs: tuple[str, ...]
    target: Target
    ranges: Mapping[str, tuple[float, float]]

    @property
    def slabs_at_once(self) -> int:
        """Some, over which the work of each call is spread."""
        return 16

    def calibrate(self, rows: Columns, truth: FloatArray | None = None) -> Columns:  # noqa: ARG002
        """Central value, calibrated value and domain flag of N rows."""
        columns = calibrated_pair(
            self.target, rows, 1.0 / _open_tables(self.path, self.sha256).factors(rows)
        )
        return columns | {"in_domain": is_inside(rows, self.ranges)}


@dataclass(frozen=True, slots=True)
class ReferenceScale(PointEstimate):
    """A calibration that the input brings along: a column of weights w, the value becoming w E.

    Attributes:
        weight: The column. Rows whose weight is not positive (missing) are not calibrated.
        target: What is calibrated.
    """

    weight: str
    target: Target

    @property
    def inputs(self) -> tuple[str, ...]:
        """The column of weights, which is all that is needed beside the numerator."""
        return (self.weight,)

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """All positive float32 numbers: a weight that is not positive means that there is none."""
        return {self.weight: (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))}

    def calibrate(self, rows: Columns, truth: FloatArray | None = None) -> Columns:  # noqa: ARG002
        """The columns for N rows; NaN without a weight."""
        inside = is_inside(rows, self.ranges)
        weight = np.where(inside, rows[self.weight].astype(np.float64), np.nan)
        return calibrated_pair(self.target, rows, 1.0 / weight) | {"in_domain": inside}


@functools.lru_cache(maxsize=8)
def _open_tables(path: Path, sha256: str) -> Tables:
    """The tables of a model, read once a process; the key holds the file's checksum."""
    require_artefact(path, sha256)
    return read_tables(path)
