"""Output folders that are either complete or absent, and that only this program has written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.formats.errors import UserError
from pipeline.formats.files import TEMPORARY, room_for
from pipeline.formats.lock import holding

CLAIM = ".topocal"  # an empty file in each output folder


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; it takes the place of `folder` if the block ends well.

    On an exception the temporary folder is removed and `folder` stays as it was, so that a wrong
    setting or a damaged input destroys no earlier result.

    Raises:
        UserError: There is such a folder, with contents that this program did not write, or
            another process is writing it.
    """
    refuse_foreign(folder)
    with holding(folder) as held:
        temporary = temporary_folder(folder)
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        claim(temporary)
        try:
            yield temporary
            held.check()
            put_in_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def temporary_folder(folder: Path) -> Path:
    """The folder that is filled before it takes the place of another."""
    return folder.with_name(f"{TEMPORARY}{folder.name}")


def claim(folder: Path) -> None:
    """Make a folder and mark it as an output of this program.

    Raises:
        UserError: There is such a folder, with contents that this program did not write.
    """
    refuse_foreign(folder)
    with room_for(folder):
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


def put_in_place(temporary: Path, folder: Path) -> None:
    """Give a complete folder its name; what had the name before is removed."""
    old = folder.with_name(f"{TEMPORARY}old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
