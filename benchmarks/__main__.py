"""Measure and write benchmarks/latest.json and a dated copy.

Run: make bench
"""

from benchmarks.data_side import limit_threads

limit_threads()

import datetime as dt  # noqa: E402 - after the threads are limited
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from benchmarks import (  # noqa: E402
    data_side,
    ensemble_side,
    ingest_side,
    onnx_side,
    report_side,
    scaling_side,
    table_side,
    training_peers,
    training_side,
)
from jobs.cli import main as topocal  # noqa: E402
from jobs.ingest import dataset_folder  # noqa: E402
from jobs.study import load_study  # noqa: E402
from pipeline.formats.files import write_text  # noqa: E402
from pipeline.formats.versions import git_hash, versions_of  # noqa: E402

FOLDER = Path(__file__).parent
STUDY = str(FOLDER.parent / "configs/demo.yaml")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # As many components as the paper has. Enough epochs for densities as a finished network has
        # them: modes and quantiles of the broad ones after one epoch take three times as long.
        words = [
            f"output={scratch}/out",
            "models.bnn.components=3",
            "models.bnn.epochs=12",
            "models.bnn.optimizer.milestones=[9]",
        ]
        for job in ("simulate", "ingest", "train", "calibrate"):
            if topocal([job, STUDY, *words]) != 0:
                msg = f"the job {job} failed"
                raise RuntimeError(msg)
        study = load_study([STUDY], words)
        figures = {
            **data_side.measure_simulation(),
            **ingest_side.measure_ingest(study, Path(scratch)),
            **data_side.measure_calibration(study, "bnn", Path(scratch) / "calibrated"),
            **data_side.measure_apply(study, "bnn", Path(scratch) / "applied"),
            **onnx_side.measure_onnx(study.folder / "models/bnn"),
            **data_side.measure_evaluation(study),
            **table_side.measure_lookup_table(dataset_folder(study), Path(scratch) / "table"),
            **training_side.measure_bnn_steps(),
            **training_side.measure_two_workers(),
            **training_side.measure_streaming(study),
            **training_peers.measure_peers(),
            **ensemble_side.measure_ensemble(),
            **ensemble_side.measure_two_workers(),
            **scaling_side.measure_overhead(study),
            **report_side.measure_report([STUDY], words),
            **report_side.measure_fixed(),
        }
    today = dt.datetime.now(dt.UTC).date().isoformat()
    record = {
        **{name: round(value, 3) for name, value in sorted(figures.items())},
        "date": today,
        "git_hash": git_hash(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": versions_of("torch", "onnxruntime", "numba", "pyarrow", "uproot", "dask"),
    }
    write_text(FOLDER / "latest.json", json.dumps(record, indent=1) + "\n")
    shutil.copy(FOLDER / "latest.json", FOLDER / f"{today}.json")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
