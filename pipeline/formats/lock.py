"""One writer at a time: a lock file with its owner and a heartbeat, beside an output folder.

A lock of the operating system would be released by itself when a process dies, but shared file
systems do not all have one; a file with a heartbeat works on all of them.

filelock's SoftFileLease was tried in its place (4.2.11): it counts the silence of another host's
owner from the first look of whoever waits, so a job that is started again would wait a minute, or
be refused, however long its predecessor has been dead. Here the age of the file tells at once.
"""

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from pipeline.formats.errors import UserError
from pipeline.formats.files import TEMPORARY, room_for

BEAT_SECONDS = 5.0
DEAD_SECONDS = 60.0

log = logging.getLogger(__name__)


class LockLostError(RuntimeError):
    """Another process took the lock over, because this one gave no sign of life for a minute."""


class Held:
    """A lock that this process holds."""

    def __init__(self, path: Path, owner: str) -> None:
        self._path, self._owner = path, owner

    def check(self) -> None:
        """Make sure, before results are put in place, that nobody else has taken over.

        Raises:
            LockLostError: Somebody has.
        """
        if _owner_of(self._path) != self._owner:
            msg = f"{self._path}: taken over by another process; this one leaves all as it is"
            raise LockLostError(msg)


@contextmanager
def holding(folder: Path) -> Iterator[Held]:
    """Hold an output folder: no second process writes it until the block ends.

    A lock whose owner has died is taken over: at once where the process ran on this host, else
    when its heartbeat is a minute old.

    Raises:
        UserError: A living process holds it.
    """
    path = folder.with_name(f".lock-{folder.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = json.dumps({
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "lock": uuid.uuid4().hex,
    })
    _take(path, owner, folder)
    released = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, owner, released), daemon=True)
    beat.start()
    held = Held(path, owner)
    try:
        yield held
    finally:
        released.set()
        beat.join()
        if _owner_of(path) == owner:
            path.unlink(missing_ok=True)


def _take(path: Path, owner: str, folder: Path) -> None:
    for _ in range(3):  # a lock that is given up just now is free in the next round
        if _create(path, owner):
            return
        content = _owner_of(path)
        if content is not None and not _is_dead(path, content):
            raise UserError(_explain(path, content, folder))
        _remove(path, content)
    msg = f"{path}: cannot be taken; another process was faster, try again"
    raise UserError(msg)


def _create(path: Path, owner: str) -> bool:
    """Whether the lock was free and is the owner's now."""
    try:
        with room_for(path), path.open("x", encoding="utf-8") as file:
            file.write(owner)
    except FileExistsError:
        return False
    except UserError:
        path.unlink(missing_ok=True)  # half of it, on a full disk
        raise
    return True


def _remove(path: Path, content: str | None) -> None:
    """Remove a dead process's lock, but not one that has been taken over meanwhile."""
    if content is None:
        return
    log.info("%s: its process has died, the lock is taken over", path)
    aside = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-dead-lock")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _owner_of(aside) != content:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)


def _owner_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _is_dead(path: Path, content: str) -> bool:
    """Whether the owner's process is gone, or its heartbeat too old by the file system's clock."""
    with suppress(ValueError, KeyError, TypeError):  # a lock that is being written has no owner yet
        owner = json.loads(content)
        if owner["host"] == socket.gethostname() and not _is_running(owner["pid"]):
            return True
    with NamedTemporaryFile(dir=path.parent, prefix=TEMPORARY) as now:
        try:
            return Path(now.name).stat().st_mtime - path.stat().st_mtime > DEAD_SECONDS
        except FileNotFoundError:
            return True


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks only
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _explain(path: Path, content: str, folder: Path) -> str:
    owner = {"pid": "?", "host": "?"}
    with suppress(ValueError):
        owner |= json.loads(content)
    return (
        f"{folder}: process {owner['pid']} on {owner['host']} is writing it; wait until it has "
        f"ended, or set another output (the lock is {path})"
    )


def _beat(path: Path, owner: str, released: threading.Event) -> None:
    while not released.wait(BEAT_SECONDS):
        if _owner_of(path) == owner:
            with suppress(FileNotFoundError):
                os.utime(path)
