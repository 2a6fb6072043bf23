"""Jobs on a Ray cluster through its HTTP address: the one place that knows Ray's job server."""

import asyncio
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.ray_package import STUDY
from jobs.sites import RaySettings
from pipeline.formats.errors import UserError, cause_of
from training.ray_environment import choose_token

FAILED = 1


@contextmanager
def job_server(settings: RaySettings) -> Iterator[Any]:
    """A client of the cluster's job server.

    Raises:
        UserError: There is none, it does not know the token, or the connection breaks.
    """
    if not settings.address.startswith("http"):
        msg = (
            f"ray.address: jobs are submitted to http://HOST:PORT, got {settings.address}; "
            "8265 is the usual port of a cluster's head node"
        )
        raise UserError(msg)
    choose_token(settings.token)
    try:
        from ray.exceptions import RayError  # noqa: PLC0415 - optional, slow
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; submitting needs it: pip install 'topocal[train]'"
        raise UserError(msg) from None
    try:
        yield JobSubmissionClient(settings.address)
    except (OSError, RuntimeError, RayError) as error:  # OSError: of requests as well
        msg = f"ray.address: {settings.address}: {cause_of(error)}"
        raise UserError(msg) from error


def submit_job(server: Any, words: Sequence[str], package: Path, python: str) -> str:  # noqa: ANN401
    """Submit a job of topocal; its number.

    Args:
        server: From job_server.
        words: The job and options of its command line, without the study.
        package: The folder with the code and the study.
        python: Of the head node.
    """
    command = [python, "-m", "jobs.submitted", words[0], STUDY, *words[1:]]
    number: str = server.submit_job(
        entrypoint=shlex.join(command), runtime_env={"working_dir": str(package)}
    )
    return number


def follow_job(server: Any, number: str) -> int:  # noqa: ANN401 - of Ray, without types
    """Print what a job prints until it ends; its exit status."""
    asyncio.run(_print_log(server, number))
    info = server.get_job_info(number)
    if info.status == "SUCCEEDED":
        return 0
    if info.driver_exit_code is None:
        sys.stderr.write(f"topocal submit: {number}: {info.status.lower()}: {info.message}\n")
    return int(info.driver_exit_code or FAILED)


async def _print_log(server: Any, number: str) -> None:  # noqa: ANN401
    async for text in server.tail_job_logs(number):
        sys.stderr.write(text)
        sys.stderr.flush()


def stop_job(server: Any, number: str) -> None:  # noqa: ANN401
    """Ask a job to end; it leaves its last complete state."""
    server.stop_job(number)
