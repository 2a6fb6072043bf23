"""Ingest against the least that the work needs, and against what one would write by hand."""

import multiprocessing
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

from benchmarks.measure import interleave, ratio
from jobs.farm.dask import open_farm
from jobs.sites import DaskSettings
from jobs.study import Study
from pipeline.fold import map_parts
from pipeline.ingest.plan import PartPlan, plan_parts, wanted_columns
from pipeline.ingest.write import write_parts
from pipeline.root.files import Access
from pipeline.root.inspect import inspect_file
from pipeline.settings import DatasetSettings
from pipeline.simulators.sample_files import plan_files, write_file
from pipeline.simulators.settings import SimulateSettings

CLUSTERS, MORE = 300_000, 8
PER_FILE = 300_000


def measure_ingest(study: Study, folder: Path) -> dict[str, float]:
    """Rows a second of ingest, a bare copy and a script, and the peak memory of a worker.

    All read the same branches of the same files, 2.4 million clusters. The bare copy writes them
    as they are: with pyarrow's own settings, in Zstandard without a dictionary, and in the codec
    of the parts, which is the fastest of the three.
    """
    inputs = _simulate(study, folder / "inputs")
    out = folder / "ingested"
    plans = _plans(study.dataset, inputs, out)
    rows = sum(plan.rows for plan in plans)
    branches = list(plans[0].sources[0].expressions.values())
    with (
        open_farm(DaskSettings(workers=1)) as one,
        open_farm(DaskSettings(workers=2)) as two,
    ):
        works: dict[str, Callable[[], object]] = {
            "bare": lambda: _copy_bare(inputs, branches, out),
            "zstd": lambda: _copy_bare(
                inputs, branches, out, compression="zstd", use_dictionary=False
            ),
            "same_codec": lambda: _copy_bare(
                inputs,
                branches,
                out,
                compression="lz4",
                use_dictionary=False,
                use_byte_stream_split=True,
            ),
            "pandas": lambda: ingest_by_hand(study.dataset, inputs, branches, out),
            "one": lambda: map_parts(one, write_parts, plans, label="one"),
            "two": lambda: map_parts(two, write_parts, plans, label="two"),
        }
        seconds = interleave({
            name: partial(_into_empty, out, work) for name, work in works.items()
        })
    small, large = _peak_of(plans[: max(1, len(plans) // MORE)]), _peak_of(plans)
    return {
        "ingest.ratio_to_bare": ratio(seconds, "one", "bare"),
        "ingest.ratio_to_bare_zstd": ratio(seconds, "one", "zstd"),
        "ingest.ratio_to_bare_same_codec": ratio(seconds, "one", "same_codec"),
        "ingest.ratio_to_pandas": ratio(seconds, "one", "pandas"),
        "ingest.speedup_2_workers": ratio(seconds, "one", "two"),
        "ingest.rows_per_second": rows / statistics.median(seconds["one"]),
        "ingest.peak_mib": large,
        "ingest.peak_ratio_8x_data": large / small,
    }


def _simulate(study: Study, folder: Path) -> list[str]:
    settings = SimulateSettings(num_clusters=MORE * CLUSTERS, clusters_per_file=PER_FILE)
    plans = plan_files(settings, folder=folder, seed=1, layout=study.dataset.layout)
    return [str(folder / write_file(plan).path) for plan in plans]


def _plans(settings: DatasetSettings, inputs: Sequence[str], folder: Path) -> list[PartPlan]:
    # as a study has them that says nothing of its own about parts
    usual = settings.model_copy(update={"rows_per_part": DatasetSettings().rows_per_part})
    access, wanted = Access(), wanted_columns(usual)
    sources = [inspect_file(path, usual.layout, wanted, access) for path in inputs]
    return plan_parts(usual, sources, folder=folder, access=access, earlier={})


def _into_empty(folder: Path, work: Callable[[], object]) -> float:
    """Seconds of a work that writes into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _copy_bare(inputs: Sequence[str], branches: list[str], folder: Path, **options: object) -> None:
    split = options.pop("use_byte_stream_split", False)
    for number, path in enumerate(inputs):
        with uproot.open(path) as file:
            arrays = file["ClusterTree"].arrays(branches, library="np")
        # pyarrow wants the processor's own byte order
        table = pa.table({n: v.astype(v.dtype.newbyteorder("=")) for n, v in arrays.items()})
        floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
        pq.write_table(
            table,
            folder / f"bare-{number}.parquet",
            use_byte_stream_split=floats if split else False,
            **options,
        )


def ingest_by_hand(
    settings: DatasetSettings, inputs: Sequence[str], branches: list[str], folder: Path
) -> pd.DataFrame:
    """What one would write without this project: the same cuts, split and statistics, in pandas."""
    identity = ["runNumber", "eventNumber", "clusterIndex"]
    columns = [name for name in branches if name not in identity]
    frames = []
    for path in inputs:
        with uproot.open(path) as file:
            arrays = file["ClusterTree"].arrays(branches, library="np")
        frames.append(pd.DataFrame({name: arrays[name] for name in arrays}))
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[np.isfinite(frame[columns]).all(axis=1)]
    for cut in settings.cuts:
        frame = frame.query(f"{cut.column} > {cut.above}")
    for name, floor in settings.floors.items():
        frame[name] = frame[name].clip(lower=floor)
    frame["response"] = frame["clusterE"] / frame["cluster_ENG_CALIB_TOT"]
    u = pd.util.hash_pandas_object(frame[identity], index=False).to_numpy() / 2.0**64
    split = np.digitize(u, [settings.split.train, settings.split.train + settings.split.validation])
    train = frame[split == 0]
    logs = [f.name for f in settings.features if f.transform == "log10_standard"]
    numbers = pd.concat([train[columns], np.log10(train[logs]).add_prefix("log10_")], axis=1)
    statistics_of = numbers.astype(np.float64).agg(["mean", "std", "min", "max"])
    for number, name in enumerate(("train", "validation", "test")):
        part = frame[split == number].drop(columns=identity)
        part.to_parquet(folder / f"{name}.parquet", index=False)
    return statistics_of


def _peak_of(plans: list[PartPlan]) -> float:
    """Peak memory in MiB of a process that does nothing but ingest."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_ingest_and_look, (plans,))


def _ingest_and_look(plans: list[PartPlan]) -> float:
    for plan in plans:
        write_parts(plan)
    # getrusage would tell the peak of the process that started this one, if that is larger
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return float(peak.split()[1]) / 1024
