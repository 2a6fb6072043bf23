"""Studies of toy inputs, and looking at what ingest leaves of them."""

import json
import subprocess
import sys
import time
from pathlib import Path

from conftest import toy_columns, write_tree
from test_ingest import DATASET

from jobs import ingest
from jobs.launch import Run
from jobs.study import load_study
from pipeline.formats.manifest import read_manifest

ROOT = Path(__file__).parent.parent


def write_toys(folder: Path, sizes) -> list[str]:
    """Toy inputs 0.root, 1.root, ... of so many clusters."""
    return [
        write_tree(folder / f"{number}.root", toy_columns(rows, number), tree="Hits")
        for number, rows in enumerate(sizes)
    ]


def study_file(folder: Path, name: str, inputs, *, dask=None, **dataset) -> str:
    """A study of toy inputs that writes <folder>/<name>, one block a part."""
    sections = {
        "name": name,
        "output": str(folder / name),
        "dataset": {**DATASET, "inputs": list(inputs), "rows_per_part": 1, **dataset},
        "dask": {"workers": 1, **(dask or {})},
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(sections))
    return str(path)


def make(folder: Path, name: str, inputs, **changes) -> Path:
    """Ingest in this process; the folder of the dataset."""
    study = load_study([study_file(folder, name, inputs, **changes)], [])
    ingest.main(study, Run())
    return ingest.dataset_folder(study)


def start(path: str) -> subprocess.Popen:
    """Ingest in a process of its own."""
    words = [sys.executable, "-m", "jobs.ingest", path]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def run(path: str) -> tuple[int, str]:
    """Ingest in a process of its own: exit status and what it says."""
    process = start(path)
    told = process.communicate(timeout=120)[1]
    return process.returncode, told


def contents(folder: Path, *, moved: bool = False) -> dict[str, bytes]:
    """The files of a dataset; where inputs were moved, their paths in the manifest do not count."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    if moved:
        manifest = read_manifest(folder)
        inputs = [file.model_copy(update={"path": ""}) for file in manifest.inputs]
        found["manifest.json"] = repr(manifest.model_copy(update={"inputs": inputs})).encode()
    return found


def staging_of(folder: Path) -> Path:
    """Where a dataset grows."""
    return folder.with_name(f".tmp-{folder.name}")


def inodes(folder: Path) -> dict[str, int]:
    """The parts in a folder and which files they are."""
    return {str(p.relative_to(folder)): p.stat().st_ino for p in folder.rglob("part-*.parquet")}


def wait_for(claim, seconds: float = 60.0):
    """What the claim returns once it is true."""
    end = time.monotonic() + seconds
    while not (found := claim()):
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.005)
    return found


def receipts(folder: Path) -> list[Path]:
    """Of the parts that are finished in the folder where a dataset grows."""
    return sorted(staging_of(folder).glob("receipts/part-*.json"))
