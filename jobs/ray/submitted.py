"""A job of topocal on the head node of a Ray cluster, as `topocal submit` starts it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import main as run
from jobs.launch import run_tool
from jobs.ray.package import STUDY, refuse_unshared
from jobs.study import load_study
from training.ray.session import ray_session


def main(argv: Sequence[str]) -> int:
    """Look for the client's file, then do the job; its exit status.

    One connection to Ray lasts as long as the job, over all its models.
    """
    ended: list[int] = []

    def action() -> None:
        study = load_study([STUDY], [])
        with ray_session("auto", 0, study.ray.interface):
            refuse_unshared(Path.cwd())
            ended.append(run(argv))

    return run_tool(argv[0], action) or ended[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
