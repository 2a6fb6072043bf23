"""Studies of toy inputs, and looking at what ingest leaves of them."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import uproot
from toy_detector import DATASET, toy_columns, write_tree

from jobs import ingest
from jobs.launch import Run
from jobs.study import load_study
from pipeline.formats.manifest import read_manifest

ROOT = Path(__file__).parents[2]


def write_toys(folder: Path, sizes) -> list[str]:
    """Toy inputs 0.root, 1.root, ... of so many clusters."""
    return [
        write_tree(folder / f"{number}.root", toy_columns(rows, number), tree="Hits")
        for number, rows in enumerate(sizes)
    ]


def write_baskets(path: Path, columns, rows: int = 65_536) -> str:
    """Like write_tree, with so many clusters in a basket, compressed and thus with checksums."""
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        tree = file.mktree("Hits", {name: values.dtype for name, values in columns.items()})
        for start in range(0, len(columns["e_raw"]), rows):
            tree.extend({name: values[start : start + rows] for name, values in columns.items()})
    return str(path)


def flip_basket(path: str, branch: str, number: int) -> None:
    """Damage one basket of a branch; done twice, it is whole again."""
    with uproot.open({path: "Hits"}) as tree:
        place = int(tree[branch].member("fBasketSeek")[number])
        middle = place + int(tree[branch].member("fBasketBytes")[number]) // 2
    with Path(path).open("r+b") as file:
        file.seek(middle)
        content = file.read(8)
        file.seek(middle)
        file.write(bytes(byte ^ 0xFF for byte in content))


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
    """Ingest in a process of its own, which may be killed: what it leaves lies beside the study."""
    words = [sys.executable, "-m", "jobs.ingest", path]
    place = {**os.environ, "TMPDIR": str(Path(path).parent)}
    return subprocess.Popen(words, cwd=ROOT, env=place, stderr=subprocess.PIPE, text=True)


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


@contextmanager
def meanwhile(action):
    """Something that happens beside the block; its failure is the test's."""
    failures = []

    def guarded():
        try:
            action()
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failures
