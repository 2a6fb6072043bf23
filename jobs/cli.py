"""The command `topocal`: one word names the job."""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from pipeline.formats.errors import UserError

# One line each; the same line heads the job's module.
JOBS = {
    "simulate": "write simulated clusters with a known response density to ROOT files",
    "ingest": "turn ROOT files into a partitioned Parquet dataset with streamed statistics",
    "tag": "tag clusters that no regression can learn, and leave them out",
    "train": "train the study's models and export them to ONNX",
    "calibrate": "map the models and the oracle over a split of the dataset",
    "evaluate": "reduce the calibrated sets to binned metrics and headline figures",
    "scaling": "train on growing subsets: sigma_stat and sigma_syst against the sample's size",
    "report": "draw the figures and write the HTML report",
    "run": "do all stages in order, each kept when it is done",
}
# These take no study.
TOOLS = {
    "apply": "calibrate anybody's clusters with a finished model; every cluster comes back",
    "submit": "send a job to a Ray cluster, follow it, leave it and pick it up again",
    "describe": "show what is in a dataset or a model as tables, and check its files",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job named by the first word; the exit status of jobs/launch.py."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_help())
        return 0 if words else 2
    if words[0] == "--version":
        sys.stdout.write(f"topocal {version('topocal')}\n")
        return 0
    known = JOBS | TOOLS
    if words[0] not in known:
        sys.stderr.write(f"topocal: no job named {words[0]}; the jobs are {', '.join(known)}\n")
        return 2
    try:
        module = importlib.import_module(f"jobs.{words[0]}")
    except UserError as error:  # of an entry in a table that another package adds
        sys.stderr.write(f"topocal: {error}\n")
        return 2
    if words[0] in TOOLS:
        status: int = module.main(words[1:])
        return status
    from jobs.launch import run_job  # noqa: PLC0415 - `topocal --help` answers at once

    return run_job(words[0], module.main, words[1:], getattr(module, "OPTIONS", None))


def _help() -> str:
    width = max(map(len, JOBS | TOOLS))
    return "\n".join([
        "usage: topocal JOB STUDY.yaml [SITE.yaml ...] [key.path=value ...] [--redo]",
        "       topocal apply MODEL INPUT [INPUT ...] OUTPUT [SITE.yaml ...] [key=value ...]",
        "       topocal submit JOB STUDY.yaml [SITE.yaml ...] [key.path=value ...] [--redo]",
        "       topocal describe FOLDER [--verify]",
        "",
        "Calibrates calorimeter topo-clusters with uncertainties. Jobs:",
        *(f"  {name:<{width}}  {text}" for name, text in (JOBS | TOOLS).items()),
        "",
        "Start with: topocal run configs/demo.yaml",
        "",
    ])


if __name__ == "__main__":
    sys.exit(main())
