"""Jobs on a Ray cluster through its HTTP address: the one place that knows Ray's job server."""

import asyncio
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.ray.package import STUDY
from jobs.sites import RaySettings
from pipeline.formats.errors import UserError, cause_of, requiring_extra
from training.ray.environment import choose_token, own_signals

FAILED = 1
CLIENT = "ray://"


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
            "(http://HOST:8265) or of its Ray Client server (ray://HOST:10001), or to auto, the "
            f"one that this machine is a node of; got {address}"
        )
        raise UserError(msg)
    choose_token(settings.token)
    with requiring_extra("train", "submitting"):
        from ray.exceptions import RayError  # noqa: PLC0415 - optional, slow
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415
    try:
        with _no_other_address(address):
            server = JobSubmissionClient(_address_of_job_server(address))
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


def _address_of_job_server(address: str) -> str:
    """What Ray takes for the address of a job server.

    A Ray Client server tells it. Nothing else is done through that, since the trainings of a
    client end with its connection.
    """
    if not address.startswith(CLIENT):
        return address
    try:
        with own_signals(), warnings.catch_warnings(action="ignore"):
            told = _ask_client_server(address)
    except ConnectionError as error:
        msg = (
            f"{cause_of(error)}; is a Ray Client server running there, and ray.token the file "
            "with the token of its cluster?"
        )
        raise ConnectionError(msg) from error
    host, there = (urlsplit(text).hostname or "" for text in (address, f"http://{told}"))
    if _is_loopback(there) and not _is_loopback(host):
        port = urlsplit(f"http://{told}").port
        msg = (
            f"the job server of {host} listens on its loopback interface alone; lead there with "
            f"`ssh -N -L {port}:{told} {host}` and set ray.address=http://127.0.0.1:{port}"
        )
        raise ConnectionError(msg)
    return f"http://{told}"


def _ask_client_server(address: str, trials: int = 3) -> str:
    """The address of the cluster's job server, without its http.

    A head under load may not start what serves a client in the seconds that Ray gives it.
    """
    import ray  # noqa: PLC0415 - optional, slow

    options: Any = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with ray.init(address, **options) as context:
            return str(context.dashboard_url)
    except ConnectionAbortedError:
        if trials == 1:
            raise
    return _ask_client_server(address, trials - 1)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.")


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
