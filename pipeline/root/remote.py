"""Files on a server: time-outs, retries with back-off, and a cap on concurrent reads."""

import importlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from pydantic import Field

from pipeline.formats.errors import cause_of
from pipeline.formats.records import Record

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# A server's refusal (XRootD error codes: not authorised, not found) will not pass by waiting.
_REFUSALS = re.compile(r"\[30(10|11)\]|no such file", re.IGNORECASE)
# Neither will wrong bytes and settings, or a farm that is being closed (RuntimeError).
_LASTING = (ValueError, KeyError, FileNotFoundError, ImportError, RuntimeError)
_LONGEST_PAUSE = 60.0
# Handles are closed here: one that the file system closes and opens anew could be another file's.
_HANDLE_SECONDS = 86_400


class RemoteSettings(Record):
    """How files behind `root://` and other URLs are read; a matter of the site.

    Attributes:
        timeout: Seconds until a request that got no answer has failed.
        retries: How often a failed read is tried again, each time on a new connection.
        backoff: Seconds before the first retry; each later pause is twice as long, at most a
            minute.
        reads_per_server: Reads that run at the same time on one server, over all workers.
    """

    timeout: Annotated[int, Field(gt=0)] = 60
    retries: Annotated[int, Field(ge=0)] = 8
    backoff: Annotated[float, Field(gt=0)] = 2.0
    reads_per_server: Annotated[int, Field(gt=0)] = 8


def server_of(path: str) -> str | None:
    """Host and port of a URL; None for a local file."""
    return urlsplit(path).netloc or None if "://" in path else None


@contextmanager
def connecting(path: str, settings: RemoteSettings) -> Iterator[dict[str, Any]]:
    """What uproot hands on to the file system of a URL; its handle of the file is closed after.

    Raises:
        ModuleNotFoundError: XRootD's client is not installed.
    """
    if not path.startswith("root://"):
        yield {}
        return
    _disable_xrootd_retries(settings)
    options: dict[str, Any] = {"timeout": settings.timeout, "filehandle_cache_ttl": _HANDLE_SECONDS}
    try:
        yield options
    finally:
        system, place = fsspec.url_to_fs(path, **options)
        with suppress(OSError):  # the handle of a broken connection, which would stay broken
            system.invalidate_cache(place)


def _disable_xrootd_retries(settings: RemoteSettings) -> None:
    """Make XRootD's client tell of a failure at once and forget it.

    Left alone it tries to connect for ten minutes and, once that has failed, refuses the server
    for half an hour without asking it. What is set in the shell (XRD_CONNECTIONWINDOW and its
    kind) stays as it is.
    """
    client = importlib.import_module("XRootD.client")  # an extra
    for name, value in {
        "ConnectionWindow": settings.timeout,
        "ConnectionRetry": 1,
        "StreamErrorWindow": 0,
        "StreamTimeout": settings.timeout,
        "RequestTimeout": settings.timeout,
        "TimeoutResolution": max(1, settings.timeout // 4),
    }.items():
        client.EnvPutInt(name, value)


def with_retries(
    action: Callable[[], Result],
    path: str,
    settings: RemoteSettings,
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """What the action returns; for a remote file it is repeated when it fails.

    Raises:
        Exception: What the action raised last, or at once where waiting will not help.
    """
    attempts = 1 + (settings.retries if server_of(path) is not None else 0)
    for attempt in range(1, attempts):
        try:
            return action()
        except _LASTING:
            raise
        except Exception as error:  # what a broken connection raises depends on where it broke
            if _REFUSALS.search(str(error)):
                raise
            seconds = min(settings.backoff * 2 ** (attempt - 1), _LONGEST_PAUSE)
            again = f"try {attempt + 1} of {attempts} in {seconds:.3g} s"
            log.warning("%s: %s; %s", path, cause_of(error), again)
            pause(seconds)
    return action()
