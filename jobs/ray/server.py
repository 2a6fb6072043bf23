"""Jobs on a Ray cluster through its HTTP address: the one place that knows Ray's job server."""

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.ray.package import STUDY
from jobs.sites import RaySettings
from pipeline.formats.errors import UserError, cause_of, requiring_extra
from training.ray.environment import choose_token

FAILED = 1


@contextmanager
def job_server(settings: RaySettings) -> Iterator[Any]:
    """A client of the cluster's job server.

    Raises:
        UserError: There is none, it does not know the token, or the connection breaks.
    """
    address = settings.address
    if address in {"local", "none"}:
        msg = (
            "ray.address: jobs are submitted to a Ray cluster, by the address of its job server "
            "(http://HOST:8265), or to auto, the one that this machine is a node of; "
            f"got {address}"
        )
        raise UserError(msg)
    choose_token(settings.token)
    with requiring_extra("train", "submitting"):
        from ray.exceptions import RayError  # noqa: PLC0415 - optional, slow
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415
    try:
        with _no_other_address(address):
            server = JobSubmissionClient(address)
        yield server
    except (OSError, RuntimeError, RayError) as error:  # OSError: of requests as well
        msg = f"ray.address: {address}: {cause_of(error)}"
        raise UserError(msg) from error


@contextmanager
def _no_other_address(address: str) -> Iterator[None]:
    """Keep Ray from an address of the environment, which it prefers to any; "auto" means that."""
    names = () if address == "auto" else ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def submit_job(server: Any, words: Sequence[str], package: Path, python: str) -> str:  # noqa: ANN401
    """Submit a job of topocal; its number.

    Args:
        server: From job_server.
        words: The job and options of its command line, without the study.
        package: The folder with the code and the study.
        python: Of the head node.
    """
    command = [python, "-m", "jobs.ray.submitted", words[0], STUDY, *words[1:]]
    number: str = server.submit_job(
        entrypoint=shlex.join(command), runtime_env={"working_dir": str(package)}
    )
    return number


def find_job(server: Any, number: str) -> None:  # noqa: ANN401
    """Make sure that the cluster knows a job.

    Raises:
        RuntimeError: It does not.
    """
    server.get_job_info(number)


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
