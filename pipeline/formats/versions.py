"""What software and which commit made a result.

A fingerprint says in one short text what a result depends on; it is equal when nothing changed.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def versions_of(*packages: str) -> dict[str, str]:
    """Versions of Python, this project and the packages named; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in ("topocal", "numpy", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe_differences(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[str]:
    """What differs between two answers of `versions_of`, a sentence for each package."""
    for name in sorted(here.keys() | there.keys()):
        mine, other = here.get(name, "none"), there.get(name, "none")
        if mine != other:
            yield f"{name} {other} instead of {mine}"


def git_hash() -> str:
    """The commit of this checkout, with "+changes" when files differ from it; else "unknown"."""
    folder = Path(__file__).parent
    try:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if Path(top) != folder.parent.parent:  # installed inside another project's checkout
            return "unknown"
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changed else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def fingerprint(**parts: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    """The first 32 hexadecimal digits of the SHA-256 of the parts as canonical JSON.

    Pydantic records count as their JSON form. The order of keys does not matter, the order of
    list items does.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_as_json)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _as_json(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    msg = f"cannot take the fingerprint of a {type(value).__name__}"
    raise TypeError(msg)
