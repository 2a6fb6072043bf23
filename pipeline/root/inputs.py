"""Which files a user means: paths, globs, URLs and files that list them."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import fsspec

from pipeline.formats.errors import UserError, cause_of
from pipeline.formats.records import LIST_MARK
from pipeline.root.files import told
from pipeline.root.remote import RemoteSettings, connecting, with_retries

LIST_SUFFIX = ".txt"

_REMOTE = RemoteSettings()


def list_inputs(patterns: Sequence[str], remote: RemoteSettings = _REMOTE) -> tuple[str, ...]:
    """The files that patterns name, in the order given; those of one glob are sorted.

    Args:
        patterns: Paths, URLs, globs of either, and list files: `@FILE` or `FILE.txt`, with a path,
            URL or glob a line. Blank lines and what follows a # do not count; relative paths count
            from the list file.
        remote: How servers are asked what they have.

    Raises:
        UserError: A list file cannot be read or names nothing, a pattern matches nothing, or a
            file is named twice.
    """
    paths = [path for pattern in patterns for path in _files_of(pattern, remote)]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        msg = f"inputs: {twice[0]} is named twice; each file may be read once"
        raise UserError(msg)
    return tuple(paths)


def is_list(pattern: str) -> bool:
    """Whether an input is a file that lists inputs."""
    return pattern.startswith(LIST_MARK) or (
        pattern.endswith(LIST_SUFFIX) and "://" not in pattern and not glob.has_magic(pattern)
    )


def _files_of(pattern: str, remote: RemoteSettings) -> list[str]:
    if not is_list(pattern):
        return _matches(pattern, pattern, remote)
    path = Path(pattern.removeprefix(LIST_MARK))
    paths: list[str] = []
    for number, line in _lines_of(path):
        place = line if "://" in line else str(path.parent / line)
        paths += _matches(place, f"{path}: line {number}: {line}", remote)
    if not paths:
        msg = f"{path}: lists no inputs; write a path, glob or URL on each line"
        raise UserError(msg)
    return paths


def _lines_of(path: Path) -> list[tuple[int, str]]:
    """The lines of a list file that name something, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        msg = f"{path}: no such list of inputs; check the path"
        raise UserError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as a list of inputs ({cause_of(error)})"
        raise UserError(msg) from None
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines()]
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def _matches(pattern: str, named: str, remote: RemoteSettings) -> list[str]:
    """The files of one pattern, which errors call as it was named."""
    if "://" in pattern:
        # a question mark begins a URL's parameters
        found = _remote_matches(pattern, remote) if re.search(r"[*[]", pattern) else [pattern]
    else:
        # Path.glob takes no absolute pattern
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
    if not found:
        msg = f"inputs: no file matches {named}; check the path"
        raise UserError(msg)
    return found


def _remote_matches(pattern: str, remote: RemoteSettings) -> list[str]:
    def ask() -> list[str]:
        with connecting(pattern, remote) as options:
            system, place = fsspec.url_to_fs(pattern, **options)
            system.dircache.clear()  # what was there when it was last asked
            # left alone, glob takes a folder that it cannot list for an empty one
            found = system.glob(place, on_error="raise")
            return [str(system.unstrip_protocol(path)) for path in found]

    with told(pattern, "cannot be listed"):
        return sorted(with_retries(ask, pattern, remote))
