"""The package beside topocal, installed as pip does it, and topocal with it in processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.formats.calibrated_set import read_calibrated

ROOT = Path(__file__).parents[2]
PACKAGE = Path(__file__).parent / "toy_plugin"
PATIENCE = 300.0  # seconds for what takes a few


def install(folder: Path) -> Path:
    """Install the package; what is to be put on the path."""
    source = shutil.copytree(PACKAGE, folder / "source")
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run([sys.executable, "-m", "pip", *words, folder / "lib", source], check=True)
    return folder / "lib"


def _command(installed, words):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    return [sys.executable, "-m", "jobs.cli", *map(str, words)], environment


def topocal(installed, *words):
    """A finished process."""
    command, environment = _command(installed, words)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def stop_when(installed, is_there, *words) -> int:
    """Ask a process to stop as soon as something is there; its exit status."""
    command, environment = _command(installed, words)
    end = time.monotonic() + PATIENCE
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not is_there() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE)


def kill_when(installed, is_there, *words) -> None:
    """Kill a process and its children as soon as something is there."""
    command, environment = _command(installed, words)
    end = time.monotonic() + PATIENCE
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and not is_there() and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)


def write_study(folder: Path, study) -> Path:
    path = folder / "study.json"
    path.write_text(json.dumps(study))
    return path


def calibrated_columns(folder: Path):
    """All rows of a calibrated set, by column."""
    parts = [folder / part.path for part in read_calibrated(folder).parts]
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    return {name: np.asarray(table[name]) for name in table.column_names}
