"""Send a job to a Ray cluster, follow its log, leave it and pick it up again.

Run: topocal submit JOB STUDY.yaml [SITE.yaml ...] [key.path=value ...] [--redo]
     topocal submit --follow NUMBER SITE.yaml
     topocal submit --stop NUMBER SITE.yaml
ray.address is that of the cluster's job server, http://HOST:8265, or auto on one of its nodes;
dataset and output lie where all nodes see them.
"""

import argparse
import functools
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from jobs.cli import JOBS
from jobs.launch import parse_words, require_output, run_tool
from jobs.ray.package import packed
from jobs.ray.server import find_job, follow_job, job_server, stop_job, submit_job
from jobs.settings import load_settings
from jobs.signals import SignalArrived
from jobs.sites import RaySettings
from jobs.study import load_study
from pipeline.formats.errors import StoppedBySignal, UserError

log = logging.getLogger(__name__)


class _Site(BaseModel):
    """What a site file, or a study with one, says of Ray."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ray: RaySettings = RaySettings()


@dataclass(slots=True)
class _Ended:
    status: int = 0


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status is that of the job, 75 when it was left."""
    ended = _Ended()
    return run_tool("submit", functools.partial(_submit, argv, ended)) or ended.status


def _submit(argv: Sequence[str], ended: _Ended) -> None:
    arguments = _parse(argv)
    ray = load_settings(_Site, arguments.files, arguments.overrides).ray
    words = [*arguments.files, *arguments.overrides]
    with job_server(ray) as server:
        if arguments.stop:
            stop_job(server, arguments.stop)
            log.info("submit: %s is asked to stop", arguments.stop)
        elif arguments.follow:
            find_job(server, arguments.follow)
            ended.status = _follow(server, arguments.follow, words)
        else:
            study = load_study(arguments.files, arguments.overrides)
            require_output(study)
            job = [arguments.job, *(["--redo"] if arguments.redo else [])]
            with packed(study) as package:
                number = submit_job(server, job, package, ray.python)
                log.info("submit: %s runs on %s as %s", arguments.job, ray.address, number)
                ended.status = _follow(server, number, words)


def _follow(server: object, number: str, words: Sequence[str]) -> int:
    again = f"topocal submit --follow {number} {shlex.join(words)}"
    try:
        return follow_job(server, number)
    except SignalArrived:
        msg = f"left {number}, which goes on; pick it up with `{again}`"
        raise StoppedBySignal(msg) from None
    except (OSError, RuntimeError) as error:
        msg = f"the connection is lost ({error}), {number} goes on; pick it up with `{again}`"
        raise UserError(msg) from error


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="topocal submit",
        usage=(
            "topocal submit JOB STUDY.yaml [SITE.yaml ...] [key.path=value ...] [--redo]\n"
            "       topocal submit (--follow | --stop) NUMBER SITE.yaml"
        ),
    )
    parser.add_argument("words", nargs="+", metavar="JOB, STUDY.yaml or key.path=value")
    parser.add_argument("--redo", action="store_true", help="make the output again, kept or not")
    parser.add_argument("--follow", metavar="NUMBER", help="pick up a job that was left")
    parser.add_argument("--stop", metavar="NUMBER", help="end a job, which can be continued")
    arguments = parser.parse_intermixed_args(argv)
    if not (arguments.follow or arguments.stop):
        arguments.job = arguments.words.pop(0)
        if arguments.job not in JOBS:
            parser.error(f"no job named {arguments.job}; the jobs are {', '.join(JOBS)}")
    parse_words(parser, arguments)
    return arguments
