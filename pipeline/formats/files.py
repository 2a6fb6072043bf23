"""Files that are either complete or absent: temporary name first, rename at the end."""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.formats.errors import UserError

TEMPORARY = ".tmp-"


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` if the block ends well.

    The file is flushed to disk before the rename, so that a crash leaves the old file or the
    new one. On an exception the temporary file is removed and `path` stays as it was.

    Args:
        path: The file.
        flush: False leaves the flushing to whoever makes use of the file, see `flush_files`.

    Raises:
        UserError: There is no room for it on the disk.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        with room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if flush:
                flush_files([temporary])
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Around the writing of a file or folder: a full disk is told as what it is.

    Raises:
        UserError: There is no room for it on the disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            msg = (
                f"{path.parent}: no space left on the disk for {path.name}; what was finished is "
                "kept: free some space and run again, or set another output"
            )
            raise UserError(msg) from error
        raise


def flush_files(paths: Iterable[Path]) -> None:
    """Wait until the files are on the disk."""
    for path in paths:
        with path.open("rb") as written:
            os.fsync(written.fileno())


def write_text(path: Path, text: str, *, flush: bool = True) -> None:
    """Write a text file that appears complete or not at all."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
