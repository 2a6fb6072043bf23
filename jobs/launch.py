"""Starting a job: arguments, logging, the run record and the exit status."""

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from jobs.signals import stopping_on_signals
from jobs.study import Study, load_study
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.files import TEMPORARY, write_text
from pipeline.formats.records import OutputRecord
from pipeline.formats.versions import git_hash, versions_of

log = logging.getLogger(__name__)

RECORDED_PACKAGES = (
    "dask",
    "distributed",
    "uproot",
    "pyarrow",
    "numba",
    "onnxruntime",
    "torch",
    "ray",
)


@dataclass(slots=True)
class Run:
    """One run of one job: what it was asked for, and what it has to record.

    Attributes:
        redo: Finished stages are done again.
        options: Names of the job's own options that were given.
        before: What earlier stages of the same run have made or kept.
        fingerprints: Of the stages, by name.
        counts: What it did.
    """

    redo: bool = False
    options: frozenset[str] = frozenset()
    before: frozenset[str] = frozenset()
    fingerprints: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)

    def keeps(self, stage: str, path: Path, kind: type[OutputRecord], wanted: str) -> bool:
        """Whether a stage is done already.

        Args:
            stage: The job, and after a slash which of its outputs.
            path: Where the output's record is, if there is one.
            kind: Of the record.
            wanted: The fingerprint that the output must carry.

        Raises:
            UserError: The record is damaged; --redo does not look at it.
        """
        self.fingerprints[stage] = wanted
        if self.redo or not path.exists():
            return False
        record = kind.load(path, made_by=stage.partition("/")[0])
        if record.fingerprint != wanted:
            log.info("%s: %s is of other settings or data, made again", stage, path.parent)
            return False
        missing = record.missing_from(path.parent)
        if missing:
            log.info("%s: made again, %s is missing or changed", stage, missing[0])
            return False
        log.info("%s: kept, %s is up to date (--redo makes it again)", stage, path.parent)
        return True


Job = Callable[[Study, Run], None]


def run_job(
    name: str, job: Job, argv: Sequence[str], options: Mapping[str, str] | None = None
) -> int:
    """Run a job from its command line and return the exit status.

    Options that the job has beside those of all are given by name, with what they do.

    0 done; 2 the user's input or setting is at fault; 75 stopped by a signal, run again to
    continue. Anything else raises and ends with status 1 and a traceback.
    """
    own = options or {}
    arguments = _parse(name, argv, own)

    def action() -> None:
        study = load_study(arguments.files, arguments.overrides)
        require_output(study)
        given = frozenset(word for word in own if getattr(arguments, word.replace("-", "_")))
        run = Run(redo=arguments.redo, options=given)
        start = time.monotonic()
        job(study, run)
        if run.counts:  # a run that kept everything leaves the record of the one that made it
            _write_record(name, study, run, time.monotonic() - start)

    return run_tool(name, action)


def run_stage(name: str, job: Job, study: Study, run: Run) -> None:
    """One stage of a run, with a record of its own; what it records enters the run's as well."""
    stage = Run(redo=run.redo, before=frozenset(run.fingerprints))
    start = time.monotonic()
    job(study, stage)
    run.fingerprints |= stage.fingerprints
    run.counts |= stage.counts
    if stage.counts:
        _write_record(name, study, stage, time.monotonic() - start)


def run_tool(name: str, action: Callable[[], None]) -> int:
    """Do what a command is for, with its log; the exit status."""
    _configure_logging()
    try:
        with stopping_on_signals():
            action()
    except UserError as error:
        sys.stderr.write(f"topocal {name}: {error}\n")
        return 2
    except StoppedBySignal as stop:
        sys.stderr.write(f"topocal {name}: {stop}\n")
        return 75
    return 0


def require_output(study: Study) -> None:
    """Make the study's output folder.

    Raises:
        UserError: It cannot be written to.
    """
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=study.folder, prefix=TEMPORARY):
            pass
    except OSError as error:
        msg = f"output: {study.folder} cannot be written to ({error.strerror}); choose another one"
        raise UserError(msg) from None


def _parse(name: str, argv: Sequence[str], own: Mapping[str, str]) -> argparse.Namespace:
    flags = " ".join(f"[--{option}]" for option in ("redo", *own))
    parser = argparse.ArgumentParser(
        prog=f"topocal {name}",
        usage=f"topocal {name} STUDY.yaml [SITE.yaml ...] [key.path=value ...] {flags}",
    )
    parser.add_argument("words", nargs="+", metavar="STUDY.yaml or key.path=value")
    parser.add_argument("--redo", action="store_true", help="make the output again, kept or not")
    for option, text in own.items():
        parser.add_argument(f"--{option}", action="store_true", help=text)
    arguments = parser.parse_intermixed_args(argv)
    parse_words(parser, arguments)
    return arguments


def parse_words(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Tell the files from the overrides, or print the usage and exit if there are no files."""
    arguments.overrides = [word for word in arguments.words if "=" in word]
    arguments.files = [word for word in arguments.words if "=" not in word]
    if not arguments.files:
        parser.error("name a study file")


def _configure_logging() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for library in (
        "distributed",
        "dask",
        "matplotlib",
        "fontTools",
        "asyncio",
        "torch",
        "onnxscript",
        "onnx_ir",
    ):
        logging.getLogger(library).setLevel(logging.WARNING)


def _write_record(name: str, study: Study, run: Run, seconds: float) -> None:
    record = {
        "job": name,
        "study": study.model_dump(mode="json"),
        "git_hash": git_hash(),
        "versions": versions_of(*RECORDED_PACKAGES),
        "fingerprints": run.fingerprints,
        "counts": run.counts,
        "wall_seconds": round(seconds, 2),
        # of this process; Linux counts a child's peak from its parent's size, which says nothing
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    write_text(study.folder / "records" / f"{name}.json", json.dumps(record, indent=1) + "\n")
