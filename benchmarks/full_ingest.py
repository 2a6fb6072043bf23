"""The full simulated sample, 14.5 million clusters, through ingest once.

Run: python -m benchmarks.full_ingest FOLDER
Simulates below FOLDER (3 GB in all) what is not there yet; writes benchmarks/full-ingest-DATE.json.
"""

import datetime as dt
import json
import os
import shutil
import sys
from pathlib import Path

from jobs.cli import main as topocal
from pipeline.formats.files import write_text
from pipeline.formats.manifest import read_manifest
from pipeline.formats.versions import git_hash, versions_of

HERE = Path(__file__).parent
STUDY = str(HERE.parent / "configs/paper.yaml")


def main(folder: Path) -> int:
    for job in ("simulate", "ingest"):
        if job == "ingest":
            shutil.rmtree(folder / "dataset", ignore_errors=True)
        status = topocal([job, STUDY, f"output={folder}"])
        if status:
            return status
    record = json.loads((folder / "records/ingest.json").read_text(encoding="utf-8"))
    manifest = read_manifest(folder / "dataset")
    rows = manifest.cut_flow[0].before
    figures = {
        "clusters": rows,
        "seconds": record["wall_seconds"],
        "clusters_per_second": round(rows / record["wall_seconds"]),
        "workers": os.cpu_count(),
        "worker_peak_mib": record["counts"]["worker_peak_mib"],
        "driver_peak_mib": record["peak_memory_mib"],
        "bytes_read": sum(file.size or 0 for file in manifest.inputs),
        "bytes_written": sum(part.size for part in manifest.parts),
        "parts": len(manifest.parts),
        "rows": {split: manifest.rows_of(split) for split in ("train", "validation", "test")},
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "git_hash": git_hash(),
        "versions": versions_of("uproot", "pyarrow", "dask", "numpy"),
    }
    text = json.dumps(figures, indent=1) + "\n"
    write_text(HERE / f"full-ingest-{figures['date']}.json", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
