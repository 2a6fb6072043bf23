"""A job of topocal on the head node of a Ray cluster, as `topocal submit` starts it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import main as run
from jobs.launch import run_tool
from jobs.ray_package import refuse_unshared


def main(argv: Sequence[str]) -> int:
    """Look for the client's file, then do the job; its exit status."""
    status = run_tool(argv[0], lambda: refuse_unshared(Path.cwd()))
    return status or run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
