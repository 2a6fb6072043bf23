"""The report against the evaluation that it shows, and a small study from its start to its page."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.cli import main as topocal
from jobs.evaluate import metrics_folder
from jobs.ingest import open_dataset
from jobs.report import report_folder
from jobs.study import Study, load_study

REPEATS = 3
FIXED = Path(__file__).with_name("fixed.yaml")
STAGES = ("simulate", "ingest", "train", "calibrate", "evaluate", "report")


def measure_report(files: list[str], words: list[str]) -> dict[str, float]:
    """Seconds of a report's panel, and of the report over those of its evaluation; both anew."""
    study = load_study(files, words)
    seconds: dict[str, list[float]] = {"evaluate": [], "report": []}
    for _ in range(REPEATS):
        for job, taken in seconds.items():
            start = time.perf_counter()
            if topocal([job, *files, *words, "--redo"]) != 0:
                msg = f"the job {job} failed"
                raise RuntimeError(msg)
            taken.append(time.perf_counter() - start)
    best = {job: sorted(taken)[REPEATS // 2] for job, taken in seconds.items()}
    return {
        "report.ratio_to_evaluate": best["report"] / best["evaluate"],
        "report.seconds_per_panel": best["report"] / _panels(study),
    }


def _panels(study: Study) -> int:
    manifest = open_dataset(study)
    assert metrics_folder(study, manifest).exists()
    return len(list((report_folder(study, manifest) / "figures").glob("*.svg")))


def measure_fixed() -> dict[str, float]:
    """Seconds of a study of 20,000 clusters and four kinds of models, in all and by stage."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "jobs.cli", "run", str(FIXED), f"output={scratch}/out"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        whole = time.perf_counter() - start
        records = Path(scratch) / "out/records"
        stages = {
            stage: json.loads((records / f"{stage}.json").read_bytes())["wall_seconds"]
            for stage in STAGES
        }
    return {
        "run.fixed_seconds": whole,
        **{f"run.fixed_seconds_of_{stage}": seconds for stage, seconds in stages.items()},
    }
