"""Fitting and mapping a look-up table, against reading the columns that each needs.

Run on a dataset that is there: python -m benchmarks.table_side DATASET FOLDER RESULT.json
Fits over the training split and maps over all splits, each as one pass on a farm of one worker;
writes what it calibrates below FOLDER.
"""

import datetime as dt
import functools
import json
import operator
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from distributed import Client

from benchmarks.measure import interleave, ratio
from jobs.farm.dask import open_farm
from jobs.sites import DaskSettings
from pipeline.calibrators.calibrate import CalibrationPlan, calibrate_part
from pipeline.calibrators.lookup_table import LookupTable
from pipeline.fold import fold, map_parts, merge_in_order
from pipeline.formats.columns import IDENTITY
from pipeline.formats.files import sha256_of, write_text
from pipeline.formats.manifest import SPLITS, Part, Split, read_manifest, read_part
from pipeline.formats.versions import git_hash, versions_of
from pipeline.lookup.fit import FitPlan, group_parts, plan_fit, sum_group
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.sums import TableSums
from pipeline.lookup.tables import Tables, make_tables, write_tables

REPEATS = 3  # of the whole passes
TIMES_OVER = 5


def measure_lookup_table(dataset: Path, folder: Path) -> dict[str, float]:
    """Both steps in this process, over the training and the test split of a small dataset.

    Several times over, since what does not grow with the rows would decide otherwise: the tables
    have 140,000 bins.
    """
    plan = plan_fit(dataset, read_manifest(dataset), LookupTableSettings())
    groups = group_parts(read_manifest(dataset), "train") * TIMES_OVER

    def fit() -> Tables:
        sums = [sum_group(parts, plan=plan) for parts in groups]
        return make_tables(merge_in_order(sums, TableSums.__add__), plan.settings)

    calibrations = plan_maps(dataset, plan, fit(), folder, ("test",)) * TIMES_OVER
    works: dict[str, Callable[[], object]] = {
        "read": lambda: (
            [read_to_fit(parts, plan=plan) for parts in groups],
            [read_to_map(each) for each in calibrations],
        ),
        "fit and map": lambda: (fit(), [calibrate_part(each) for each in calibrations]),
    }
    return {"lookup_table.ratio_to_read": ratio(interleave(works), "fit and map", "read")}


def plan_maps(
    dataset: Path, plan: FitPlan, tables: Tables, folder: Path, splits: Sequence[Split]
) -> list[CalibrationPlan]:
    """The mapping of tables over the parts of some splits."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tables.parquet"
    write_tables(tables, path)
    manifest = read_manifest(dataset)
    columns = plan.settings.columns
    ranges = {n: (manifest.statistics[n].minimum, manifest.statistics[n].maximum) for n in columns}
    table = LookupTable(path, sha256_of(path), columns, plan.target, ranges)
    return [
        CalibrationPlan(table, dataset, part, folder, has_truth=True)
        for split in splits
        for part in manifest.parts_of(split)
    ]


def read_to_fit(parts: Sequence[Part], *, plan: FitPlan) -> int:
    """What fitting reads, and nothing else; its columns."""
    return sum(len(plan.read(part, labelled=True)) for part in parts)


def read_to_map(plan: CalibrationPlan) -> int:
    """What mapping reads, and nothing else; its columns."""
    table = read_part(plan.dataset, plan.part, [IDENTITY, *plan.calibrator.inputs])
    return len({name: table[name].to_numpy() for name in table.column_names})


def main(dataset: Path, folder: Path, result: Path) -> None:
    plan = plan_fit(dataset, read_manifest(dataset), LookupTableSettings())
    groups = group_parts(read_manifest(dataset), "train")
    with open_farm(DaskSettings(workers=1)) as client:
        tables = make_tables(_fit(client, plan, groups), plan.settings)
        calibrations = plan_maps(dataset, plan, tables, folder, SPLITS)
        read = functools.partial(read_to_fit, plan=plan)
        works: dict[str, Callable[[], object]] = {
            "read_to_fit": lambda: map_parts(client, read, groups, label="read to fit"),
            "fit": lambda: make_tables(_fit(client, plan, groups), plan.settings),
            "read_to_map": lambda: map_parts(client, read_to_map, calibrations, label="read"),
            "map": lambda: map_parts(client, calibrate_part, calibrations, label="map"),
        }
        for work in works.values():
            work()
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(REPEATS):
            for name, work in works.items():
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
    manifest = read_manifest(dataset)
    record = {
        "clusters": sum(part.rows for part in manifest.parts),
        "clusters_to_fit": manifest.rows_of("train"),
        **{f"{name}_seconds": round(statistics.median(each), 2) for name, each in seconds.items()},
        "fit_ratio_to_read": round(ratio(seconds, "fit", "read_to_fit"), 3),
        "map_ratio_to_read": round(ratio(seconds, "map", "read_to_map"), 3),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "git_hash": git_hash(),
        "versions": versions_of("pyarrow", "dask", "numba"),
    }
    text = json.dumps(record, indent=1) + "\n"
    write_text(result, text)
    print(text)


def _fit(client: Client, plan: FitPlan, groups: Sequence[Sequence[Part]]) -> TableSums:
    add = functools.partial(sum_group, plan=plan)
    sums: TableSums = fold(client, add, groups, operator.add, label="fit")
    return sums


if __name__ == "__main__":
    main(*(Path(word).absolute() for word in sys.argv[1:4]))
