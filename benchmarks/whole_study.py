"""A study from its first job to its last, once, and what it found: for runs of an hour and more.

Run: python -m benchmarks.whole_study STUDY.yaml FOLDER [key.path=value ...]
Does what is not yet done below FOLDER; writes benchmarks/NAME-DATE.json.
"""

import datetime as dt
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from jobs.cli import main as topocal
from jobs.evaluate import SUMMARY, metrics_folder
from jobs.ingest import open_dataset
from jobs.study import Study, load_study
from jobs.train import model_folder
from pipeline.formats.card import read_card
from pipeline.formats.files import write_text
from pipeline.formats.versions import git_hash, versions_of
from training.history import read_history

HERE = Path(__file__).parent
JOBS = ("simulate", "ingest", "train", "calibrate", "evaluate", "report")


def main(words: list[str]) -> int:
    path, folder, *overrides = words
    settings = [path, f"output={Path(folder).absolute()}", *overrides]
    for job in JOBS:
        if status := topocal([job, *settings]):
            return status
    study = load_study([path], settings[1:])
    text = json.dumps(figures_of(study), indent=1) + "\n"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    write_text(HERE / f"{study.name}-{today}.json", text)
    print(text)
    return 0


def figures_of(study: Study) -> dict[str, Any]:
    """Times and headline figures of a study that is done."""
    manifest = open_dataset(study)
    records = study.folder / "records"
    summary = json.loads((metrics_folder(study, manifest) / SUMMARY).read_text(encoding="utf-8"))
    return {
        "study": study.name,
        "rows": {split: manifest.rows_of(split) for split in ("train", "validation", "test")},
        "seconds": {job: _seconds(records / f"{job}.json") for job in JOBS},
        "trainings": {
            name: _training(model_folder(study, name), manifest.rows_of("train"))
            for name in study.models
        },
        "summary": summary,
        "git_hash": git_hash(),
        "versions": versions_of("torch", "onnxruntime", "numba", "dask", "numpy"),
    }


def _seconds(path: Path) -> float:
    """Wall seconds of a job's last run; a job that found its output done took next to none."""
    return float(json.loads(path.read_text(encoding="utf-8"))["wall_seconds"])


def _training(folder: Path, rows: int) -> dict[str, float | str]:
    """Steps and seconds of a training, the interrupted runs of it included."""
    card = read_card(folder)
    history = read_history(folder)
    return {
        "epochs": len(history),
        "steps": len(history) * -(-rows // card.settings["batch_rows"]),
        "seconds": sum(line["seconds"] for line in history),
        "rows_per_second": statistics.median(line["rows_per_second"] for line in history),
        "validation_nll": history[-1]["validation_nll"],
        "git_hash": card.git_hash,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
