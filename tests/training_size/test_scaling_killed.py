"""A scaling study on Ray whose driver and worker are killed: the same table, no training twice."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from toy_detector import DATASET, toy_columns, write_tree

from jobs.cli import main

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0  # seconds for what takes a few
TRAININGS = 6


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of six trainings of about a second, done without Ray in `out`."""
    folder = tmp_path_factory.mktemp("scaling")
    content = {
        "name": "killed",
        "output": "out",
        "dataset": {
            **DATASET,
            "inputs": [write_tree(folder / "a.root", toy_columns(4_000), tree="Hits")],
        },
        "models": {
            "net": {
                "kind": "bnn",
                "hidden": [16],
                "components": 2,
                "samples": 3,
                "epochs": 60,
                "batch_rows": 256,
                "optimizer": {"milestones": []},
            }
        },
        "scaling": {
            "sizes": [300, 900],
            "test_rows": 200,
            "ladders": {"net": {"model": "net", "budget": "steps", "steps": 600, "seeds": 3}},
        },
        "dask": {"workers": 1},
    }
    path = folder / "study.json"
    path.write_text(json.dumps(content))
    assert main(["ingest", str(path)]) == 0
    assert main(["scaling", str(path), "ray.address=none"]) == 0
    return path


def _start(study, output):
    folder = study.parent / output
    if not folder.exists():
        folder.mkdir()
        (folder / "dataset").symlink_to(study.parent / "out/dataset")
    words = [str(study), f"output={folder}", "ray.workers=2"]
    with (study.parent / f"{output}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.scaling", *words],
            cwd=ROOT,
            stderr=log,
            start_new_session=True,
        )


def _wait_until(process, study, output, happened):
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert process.poll() is None, (study.parent / f"{output}.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def _points(study, output):
    """The finished trainings, with the time of their records."""
    folder = study.parent / output / "scaling/trainings"
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.rglob("point.json")}


def _epochs_begun(study, output):
    """Of the trainings that are not finished, by history file."""
    folder = study.parent / output / "scaling/trainings"
    return {
        path: len(path.read_text().splitlines())
        for path in folder.rglob("history.jsonl")
        if path.exists()
    }


def _tables(study, output):
    folder = study.parent / output / "scaling/tables"
    return {path.name: path.read_bytes() for path in folder.glob("scaling*")}


def _counts(study, output):
    return json.loads((study.parent / output / "records/scaling.json").read_text())["counts"]


def _trainers(process):
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # helpers come and go
            if "ray::make_point" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_killed_driver_and_worker_leave_the_same_table_and_train_nothing_twice(study):
    process = _start(study, "killed")
    _wait_until(process, study, "killed", lambda: _points(study, "killed"))
    _wait_until(process, study, "killed", lambda: _epochs_begun(study, "killed"))
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(PATIENCE)
    psutil.wait_procs(family, timeout=30)  # Ray ends after its driver
    done = _points(study, "killed")
    assert 0 < len(done) < TRAININGS

    process = _start(study, "killed")
    trainer = _wait_until(process, study, "killed", lambda: _trainers(process))[0]
    begun = _epochs_begun(study, "killed")
    _wait_until(process, study, "killed", lambda: _epochs_begun(study, "killed") != begun)
    os.kill(trainer.pid, 9)
    assert process.wait(PATIENCE) == 0
    assert _counts(study, "killed") == {"trained": TRAININGS - len(done), "kept": len(done)}
    after = _points(study, "killed")
    assert {name: after[name] for name in done} == done
    assert len(after) == TRAININGS
    assert _tables(study, "killed") == _tables(study, "out")
    assert not list((study.parent / "killed/scaling/trainings").rglob("history.jsonl"))

    assert main(["scaling", str(study), f"output={study.parent / 'killed'}"]) == 0
    assert _points(study, "killed") == after
