"""ROOT files: what is in them, and entry ranges of their columns as arrays."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from pipeline.formats.errors import UserError
from pipeline.formats.manifest import InputFile

# The key under which `simulate` leaves the generator's settings in the files it writes.
SIMULATION_KEY = "topocal_simulation"

Arrays = dict[str, NDArray[Any]]


def list_inputs(patterns: Sequence[str]) -> tuple[str, ...]:
    """The files that paths and globs name, globs sorted, in the order given.

    Raises:
        UserError: A pattern matches nothing, or a file is named twice.
    """
    paths: list[str] = []
    for pattern in patterns:
        # Path.glob takes no absolute pattern
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
        if not found:
            msg = f"dataset.inputs: no file matches {pattern}; check the path"
            raise UserError(msg)
        paths += found
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        msg = f"dataset.inputs: {twice[0]} is named twice; each file may be read once"
        raise UserError(msg)
    return tuple(paths)


def inspect_file(path: str, tree: str, required: Sequence[str]) -> tuple[InputFile, set[str]]:
    """The identity of a ROOT file and the names of its tree's branches.

    Raises:
        UserError: The file or tree is missing, is not readable or lacks required branches.
    """
    with _open_tree(path, tree) as (file, table):
        branches = set(table.keys(recursive=False))
        missing = [name for name in required if name not in branches]
        if missing:
            msg = (
                f"{path}: tree {tree} lacks {', '.join(missing)}; "
                "correct the names in dataset, or leave those features out"
            )
            raise UserError(msg)
        simulation = None
        if SIMULATION_KEY in file:
            simulation = json.loads(str(file[SIMULATION_KEY]))
        record = InputFile(
            path=path,
            size=os.path.getsize(path) if os.path.exists(path) else None,  # noqa: PTH110, PTH202
            uuid=str(file.file.uuid),
            entries=int(table.num_entries),
            simulation=simulation,
        )
    return record, branches


def read_blocks(
    path: str, tree: str, branches: Sequence[str], blocks: Sequence[tuple[int, int]], step: int
) -> Iterator[Arrays]:
    """The columns of each block of entries, in native byte order.

    Args:
        path: The ROOT file.
        tree: The flat tree.
        branches: Columns wanted.
        blocks: (start, stop) entry ranges, ascending.
        step: Entries to read at a time; it bounds memory and changes no value.

    Raises:
        UserError: The file cannot be read or a branch is not one number per entry.
    """
    with _open_tree(path, tree) as (_, table):
        for start, stop in blocks:
            pieces = [
                _read(table, path, branches, low, min(low + step, stop))
                for low in range(start, stop, step)
            ]
            yield {name: np.concatenate([piece[name] for piece in pieces]) for name in branches}


@contextmanager
def _open_tree(path: str, tree: str) -> Iterator[tuple[Any, Any]]:
    if "://" not in path and not Path(path).is_file():
        msg = f"{path}: no such file; check dataset.inputs"
        raise UserError(msg)
    try:
        # uproot's caches grow from file to file (scikit-hep/uproot5#1528).
        file = uproot.open(path, array_cache=None, object_cache=None)
        classes = file.classnames(cycle=False)
    except Exception as error:
        msg = f"{path}: cannot be opened as a ROOT file ({_first_line(error)})"
        raise UserError(msg) from error
    with file:
        trees = [name for name, kind in classes.items() if kind in {"TTree", "ROOT::RNTuple"}]
        if tree not in trees:
            held = f"it holds {', '.join(sorted(set(trees)))}" if trees else "it holds no tree"
            msg = f"{path}: no tree named {tree}, {held}; set dataset.tree"
            raise UserError(msg)
        yield file, file[tree]


def _read(table: Any, path: str, branches: Sequence[str], start: int, stop: int) -> Arrays:  # noqa: ANN401 - uproot is untyped
    try:
        arrays = table.arrays(list(branches), entry_start=start, entry_stop=stop, library="np")
    except Exception as error:
        msg = f"{path}: entries {start} to {stop} cannot be read ({_first_line(error)})"
        raise UserError(msg) from error
    native = {}
    for name in branches:
        values = arrays[name]
        if values.dtype == object or values.ndim != 1:
            msg = (
                f"{path}: branch {name} is not one number per entry; "
                "the flat layout has one cluster an entry"
            )
            raise UserError(msg)
        native[name] = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
