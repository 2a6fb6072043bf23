"""Hash what a study of every kind of model writes, so that a change of structure changes no number.

Run: python tests/golden/outputs.py check|record
     python tests/golden/outputs.py hash STUDY_FOLDER RESULT.json

`check` runs tests/golden/study.yaml with one and two Dask workers and compares both with
hashes.json; `record` writes that file anew, and the commit that does so says which numbers changed
and why. `hash` hashes a study that has run already (the demo, say), to compare two checkouts.

Hashed are contents, not files: columns of Parquet files, tensors of weights, values of the summary,
numbers behind figures. What tells of versions, commits and times stays out.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HASHES = HERE / "hashes.json"
LIBRARIES = ("numba", "numpy", "onnxruntime", "pyarrow", "scikit-learn", "torch")


NETWORKS = ("antithetic", "bnn", "dnn", "dnn_log", "mdn", "re")  # trained without Dask


def run_study(folder: Path, workers: int, trained: Path | None = None) -> None:
    """Run the study from its simulation to its report.

    Args:
        folder: Becomes the study's output.
        workers: Of Dask; a training has one, since more change results by rounding.
        trained: The output of the same study with another number of workers: its networks are
            taken, with the files that they follow from, and no report is written, since neither
            is made by Dask.
    """
    where = [f"output={folder}", f"dask.workers={workers}", "ray.address=none"]
    if trained is None:
        _run("run", where)
        return
    shutil.copytree(trained / "simulated", folder / "simulated")
    _run("ingest", where)
    for name in NETWORKS:
        shutil.copytree(trained / "models" / name, folder / "models" / name)
    for job in ("train", "calibrate", "evaluate"):
        _run(job, where)


def _run(job: str, where: list[str]) -> None:
    """A job of the study in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", job, str(HERE / "study.yaml"), *where],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = f"{job} ended with status {done.returncode}:\n{done.stderr}"
        raise RuntimeError(msg)


def hash_outputs(folder: Path) -> dict[str, str]:
    """By path below the study's folder: the SHA-256 of the contents of each output."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {}
    for path in paths:
        digest = hashlib.sha256()
        pieces = list(_pieces(path))
        for piece in pieces:
            digest.update(piece)
        if pieces:
            found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def _pieces(path: Path) -> Iterator[bytes]:
    """The contents of an output, and nothing of a file that is none."""
    if path.suffix == ".parquet":
        table = pq.read_table(path).replace_schema_metadata(None).combine_chunks()
        for field, column in zip(table.schema, table.columns, strict=True):
            yield f"{field.name}: {field.type}\n".encode()
            yield from _values(column)
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            for name in sorted(file.keys()):
                yield name.encode() + file.get_tensor(name).tobytes()
    elif path.name == "summary.json":
        yield json.dumps(json.loads(path.read_text()), sort_keys=True).encode()
    elif path.suffix == ".csv":
        yield path.read_bytes()


def _values(column: pa.ChunkedArray) -> Iterator[bytes]:
    """Through Arrow's own stream, which writes what the slices of a column show alone."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([column.combine_chunks()], names=["column"])
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    yield sink.getvalue().to_pybytes()


def processor() -> dict[str, str]:
    """What the bits of floating-point results depend on beside the code."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    cpu = {key.strip(): value.strip() for key, value in lines.items()}
    flags = sorted(flag for flag in cpu.get("flags", "").split() if flag.startswith(("avx", "amx")))
    known = {"model": cpu.get("model name", "unknown"), "vectors": " ".join(flags)}
    return known | {name: version(name) for name in LIBRARIES}


def summary_of(folder: Path) -> dict[str, float]:
    """The headline figures of a study."""
    values: dict[str, float] = json.loads((folder / "metrics" / "summary.json").read_text())
    return values


def recorded() -> dict[str, Any]:
    """What hashes.json holds: processor, hashes and headline figures."""
    content: dict[str, Any] = json.loads(HASHES.read_text(encoding="utf-8"))
    return content


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The outputs that are not the same, each with what became of it."""
    return [
        f"{path}: {'missing' if path not in now else 'new' if path not in before else 'changed'}"
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]


def differences_of_workers(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The same of two numbers of workers; only the first has a report."""
    made = {path: digest for path, digest in one.items() if not path.startswith("report/")}
    return differences(made, other)


def main(words: list[str]) -> int:
    """Run a command of the module's docstring; 0 if nothing differs."""
    if words[:1] == ["hash"] and len(words) == 3:
        Path(words[2]).write_text(json.dumps(hash_outputs(Path(words[1])), indent=1) + "\n")
        return 0
    if words not in (["check"], ["record"]):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="topocal-golden-") as scratch:
        one, two = Path(scratch) / "one", Path(scratch) / "two"
        run_study(one, 1)
        run_study(two, 2, trained=one)
        hashes = hash_outputs(one)
        wrong = differences_of_workers(hashes, hash_outputs(two))
        if words == ["record"] and not wrong:
            content = {"processor": processor(), "hashes": hashes, "summary": summary_of(one)}
            HASHES.write_text(json.dumps(content, indent=1) + "\n")
            return 0
        wrong += differences(recorded()["hashes"], hashes) if words == ["check"] else []
    sys.stdout.writelines(f"{line}\n" for line in wrong or [f"all {len(hashes)} outputs equal"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
