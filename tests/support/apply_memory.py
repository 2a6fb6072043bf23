"""Run: python -m apply_memory MODEL INPUT FOLDER: apply a model, print the peak of memory [MiB]."""

import sys
from pathlib import Path

from jobs.apply import AppliedSettings, prepare
from pipeline.apply.inputs import open_input
from pipeline.apply.run import apply_chunk, finish_input, plan_input
from pipeline.formats.card import read_card
from pipeline.root.files import Access
from pipeline.root.inspect import Wanted
from pipeline.root.layout import Layout

READ_ROWS = 16_384  # few, so that what a growing input adds stands out

HITS = Layout(tree="Hits", rows="vectors")


def main(model: Path, path: str, folder: Path) -> None:
    calibration, columns = prepare(model, read_card(model), AppliedSettings())
    access = Access(read_rows=READ_ROWS)
    source = open_input(path, HITS, Wanted(dict.fromkeys(calibration.needed, ""), (), {}), access)
    names = tuple(column.name for column in columns)
    plan = plan_input(source, "out", folder, calibration, names, access, wanted="root")
    for chunk in plan.chunks:
        apply_chunk(chunk)
    finish_input(plan)
    status = Path("/proc/self/status").read_text()
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    sys.stdout.write(f"{int(peak) // 1024}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
