"""Files on a server: time-outs, retries with back-off, and a cap on concurrent reads."""

import logging
import re
import time
from collections.abc import Callable
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import uproot
from pydantic import Field

from pipeline.formats.errors import UserError
from pipeline.formats.records import Record

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# A server's refusal (XRootD error codes: not authorised, not found) will not pass by waiting.
_REFUSALS = re.compile(r"\[30(10|11)\]|no such file", re.IGNORECASE)
_LONGEST_PAUSE = 60.0


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
    retries: Annotated[int, Field(ge=0)] = 5
    backoff: Annotated[float, Field(gt=0)] = 1.0
    reads_per_server: Annotated[int, Field(gt=0)] = 8


def server_of(path: str) -> str | None:
    """Host and port of a URL; None for a local file."""
    return urlsplit(path).netloc or None if "://" in path else None


def open_options(path: str, settings: RemoteSettings) -> dict[str, object]:
    """What uproot hands on to the file system of a URL."""
    if not path.startswith(("root://", "roots://", "xroot://")):
        return {}
    # A new instance has no handle of a connection that failed before.
    return {"timeout": settings.timeout, "skip_instance_cache": True}


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
        except (UserError, uproot.KeyInFileError, FileNotFoundError, ModuleNotFoundError):
            raise
        except Exception as error:  # what a broken connection raises depends on where it broke
            if _REFUSALS.search(str(error)):
                raise
            seconds = min(settings.backoff * 2 ** (attempt - 1), _LONGEST_PAUSE)
            first = str(error).strip().partition("\n")[0]
            log.warning(
                "%s: %s; try %d of %d in %.3g s", path, first, attempt + 1, attempts, seconds
            )
            pause(seconds)
    return action()
