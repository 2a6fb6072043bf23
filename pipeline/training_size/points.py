"""One training of a scaling study: what its networks say about the test rows, and its record."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.calibrators.calibrate import calibrate_rows, truth_of
from pipeline.calibrators.protocol import Calibrator
from pipeline.formats.files import replacing
from pipeline.formats.manifest import DatasetManifest, columns_of, read_manifest, read_part
from pipeline.formats.records import OutputRecord
from pipeline.numerics.arrays import Columns

POINT, ROWS = "point.json", "rows.parquet"
CENTRAL, WEIGHT = "central", "weight"  # columns that are named otherwise in a dataset
SIGMAS = ("sigma_stat", "sigma_syst", "sigma_tot")
MEANS = {"": "mean", "_log10": "mean_log10"}  # by the suffix of their sigmas
KEPT = (*MEANS.values(), *(f"{name}{suffix}" for suffix in MEANS for name in SIGMAS), "log_density")


class PointRecord(OutputRecord):
    """One training; written last.

    Attributes:
        ladder: Its name.
        model: Of the study.
        rows: Training rows.
        sample: Which sample of that size; 0 is the nested one.
        seed: Which seed; 0 is the first.
        networks: Networks that are averaged.
        updates: Steps of the optimiser.
        scores: NLL of the training rows and of the validation rows after the last epoch.
        seconds: That its epochs took, those before an interruption included.
        step_seconds: Of these, what its updates took.
        size: Bytes of the table of rows.
    """

    ladder: str
    model: str
    rows: int
    sample: int
    seed: int
    networks: int
    updates: int
    scores: dict[str, float]
    seconds: float
    step_seconds: float
    size: int

    @property
    def files(self) -> Mapping[str, int]:
        """The table of the test rows."""
        return {ROWS: self.size}


def judge_rows(calibrator: Calibrator, test: Path) -> pa.Table:
    """What a density says of each row of a test set: functionals, sigmas, log density.

    Args:
        calibrator: The density.
        test: Folder of the test set's manifest.
    """
    manifest = read_manifest(test)
    weights = [column.name for column in manifest.columns if column.role == "weight"]
    tables = [
        _judge_part(calibrator, test, manifest, number, weights)
        for number in range(len(manifest.parts_of("test")))
    ]
    return pa.concat_tables(tables)


def _judge_part(
    calibrator: Calibrator, test: Path, manifest: DatasetManifest, number: int, weights: list[str]
) -> pa.Table:
    target = calibrator.target
    wanted = [*calibrator.inputs, *calibrator.ranges, *weights]
    wanted += [target.numerator, target.denominator]
    table = read_part(test, manifest.parts_of("test")[number], list(dict.fromkeys(wanted)))
    rows = columns_of(table)
    made = calibrate_rows(calibrator, rows, truth_of(target, rows))
    columns = {name: made[name] for name in (target.name, *KEPT)}
    columns[CENTRAL] = columns.pop(target.name)
    if weights:
        columns[WEIGHT] = np.prod([rows[name].astype(np.float64) for name in weights], axis=0)
    return pa.table(columns)


def save_rows(folder: Path, table: pa.Table) -> int:
    """Write the table of a point; its size in bytes."""
    with replacing(folder / ROWS) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return (folder / ROWS).stat().st_size


def load_rows(folder: Path) -> Columns:
    """The columns of a point's table."""
    table = pq.read_table(folder / ROWS)
    return columns_of(table)
