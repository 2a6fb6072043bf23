"""Files that are either complete or absent: temporary name first, rename at the end."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.formats.errors import UserError

TEMPORARY = ".tmp-"
CLAIM = ".topocal"  # an empty file in each output folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` if the block ends well.

    The file is flushed to disk before the rename, so that a crash leaves the old file or the
    new one. On an exception the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; it takes the place of `folder` if the block ends well.

    On an exception the temporary folder is removed and `folder` stays as it was, so that a wrong
    setting or a damaged input destroys no earlier result.

    Raises:
        UserError: There is such a folder, with contents that this program did not write.
    """
    refuse_foreign(folder)
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    claim(temporary)
    try:
        yield temporary
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def claim(folder: Path) -> None:
    """Make a folder and mark it as an output of this program.

    Raises:
        UserError: There is such a folder, with contents that this program did not write.
    """
    refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLAIM).touch()


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds files but not the mark of this program's outputs.

    Raises:
        UserError: It is such a folder.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CLAIM).exists():
        msg = (
            f"{folder}: holds files that this program did not write; "
            "move them away or set another output"
        )
        raise UserError(msg)


def _put_in_place(temporary: Path, folder: Path) -> None:
    old = folder.with_name(f"{TEMPORARY}old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
