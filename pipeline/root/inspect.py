"""Looking into a ROOT file: which of the wanted columns it has, and where its clusters are.

The files are found from what a user names: paths, globs, URLs and files that list them.
"""

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from pipeline.formats.errors import UserError, cause_of
from pipeline.formats.manifest import InputFile
from pipeline.formats.records import LIST_MARK
from pipeline.root.expressions import arrays_of, branches_of, lengths
from pipeline.root.files import (
    Access,
    fingerprint_of,
    open_tree,
    reading_errors,
    simulation_of,
    size_of,
)
from pipeline.root.layout import Layout, unit_factor
from pipeline.root.remote import RemoteSettings, connecting, with_retries

# Rows between two places of a file that are found without reading what is before them.
MARK_ROWS = 65_536
MODEL_PURPOSE = "the model's"  # what columns are needed for where there is no dataset
COUNT_ENTRIES = 65_536  # entries whose vectors are counted at a time


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns that somebody wants of a file.

    Attributes:
        needed: By name: what for, as in "feature" or "cut".
        optional: Taken where they are.
        units: By name: the unit in which values are wanted.
        lists: Columns that have a list in each row.
    """

    needed: Mapping[str, str]
    optional: tuple[str, ...]
    units: Mapping[str, str]
    lists: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RootSource:
    """One file, and how its columns are made.

    Attributes:
        file: Which file.
        expressions: By column, those that the file has.
        factors: By column: to the unit that is wanted.
        event_identity: Columns of the file that name the event.
        cluster_identity: Columns of the file that name a cluster in its event.
        marks: For vectors: (entry, clusters of that entry before) of every 65,536th cluster.
        lists: Columns that have a list in each row.
    """

    file: InputFile
    expressions: Mapping[str, str]
    factors: Mapping[str, float]
    event_identity: tuple[str, ...] = ()
    cluster_identity: tuple[str, ...] = ()
    marks: tuple[tuple[int, int], ...] = ()
    lists: frozenset[str] = frozenset()


def inspect_file(path: str, layout: Layout, wanted: Wanted, access: Access) -> RootSource:
    """What a file is and how the columns that are wanted come out of it.

    Raises:
        UserError: It cannot be read, has not this layout or lacks what is needed.
    """

    def look() -> RootSource:
        with open_tree(path, layout.tree, access) as (file, table):
            keys = _keys_of(table)
            expressions = _find_expressions(path, layout, wanted, keys)
            marks = _marks_of(table, layout, expressions)
            record = InputFile(
                path=path,
                size=size_of(file),
                uuid=str(file.file.uuid),
                fingerprint=fingerprint_of(file, layout.tree),
                entries=int(table.num_entries),
                rows=marks[-1][1] if marks else int(table.num_entries),
                simulation=simulation_of(file),
            )
        return RootSource(
            file=record,
            expressions=expressions,
            factors=_factors(path, layout, wanted, expressions),
            event_identity=_named(layout, expressions, "event"),
            cluster_identity=_named(layout, expressions, "cluster"),
            marks=marks[:-1],
            lists=wanted.lists & expressions.keys(),
        )

    with reading_errors(path, "cannot be read"):
        return access.read(path, look)


def refuse_other_layout(path: str, layout: Layout, access: Access) -> None:
    """Make sure that a file has the layout's tree and what every file of the layout has.

    Raises:
        UserError: It has not, or cannot be read.
    """

    def look() -> None:
        with open_tree(path, layout.tree, access) as (_, table):
            _refuse_foreign(path, layout, _keys_of(table))

    with reading_errors(path, "cannot be read"):
        access.read(path, look)


def _keys_of(table: Any) -> set[str]:  # noqa: ANN401 - uproot is untyped
    """Branches by their own names and by their full paths."""
    return {*table.keys(recursive=True, full_paths=False), *table.keys(recursive=True)}


def _named(layout: Layout, expressions: Mapping[str, str], level: str) -> tuple[str, ...]:
    return tuple(name for name in layout.named("identity", level) if name in expressions)


def _find_expressions(path: str, layout: Layout, wanted: Wanted, keys: set[str]) -> dict[str, str]:
    expressions: dict[str, str] = {}
    for name in dict.fromkeys([*wanted.needed, *wanted.optional]):
        found = [e for e in layout.expressions_of(name) if branches_of(e, keys) is not None]
        if found:
            expressions[name] = found[0]
    _refuse_foreign(path, layout, keys)
    missing = [name for name in wanted.needed if name not in expressions]
    if missing:
        raise UserError(_explain_missing(path, layout, wanted, missing))
    return expressions


def _refuse_foreign(path: str, layout: Layout, keys: set[str]) -> None:
    foreign = [
        name
        for name in layout.required
        if not any(branches_of(e, keys) is not None for e in layout.expressions_of(name))
    ]
    if foreign:
        msg = (
            f"{path}: tree {layout.tree} lacks {', '.join(foreign)}, which every file of the "
            "layout has; give the layout of this file"
        )
        raise UserError(msg)


def _explain_missing(path: str, layout: Layout, wanted: Wanted, missing: Sequence[str]) -> str:
    by_purpose: dict[str, list[str]] = {}
    for name in missing:
        first = layout.expressions_of(name)[0]
        text = name if first == name else f"{name} ({' or '.join(layout.expressions_of(name))})"
        by_purpose.setdefault(wanted.needed[name], []).append(text)
    listed = "; ".join(f"{purpose} {', '.join(names)}" for purpose, names in by_purpose.items())
    advice = "name their branches in a layout of your own, or leave them out of the study"
    if set(by_purpose) == {"truth"}:
        advice = "set dataset.target=null to ingest clusters without truth, for calibration only"
    if set(by_purpose) == {MODEL_PURPOSE}:
        advice = "name their branches in layout=FILE.yaml, or take a model without them"
    return f"{path}: tree {layout.tree} lacks {listed}; {advice}"


def _factors(
    path: str, layout: Layout, wanted: Wanted, expressions: Mapping[str, str]
) -> dict[str, float]:
    factors: dict[str, float] = {}
    for name in expressions:
        if name in layout.columns and name in wanted.units:
            try:
                factors[name] = unit_factor(layout.columns[name].unit, wanted.units[name])
            except UserError as error:
                msg = f"{path}: column {name}: the layout's {error}"
                raise UserError(msg) from None
    return factors


def _marks_of(
    table: Any,  # noqa: ANN401 - uproot is untyped
    layout: Layout,
    expressions: Mapping[str, str],
) -> tuple[tuple[int, int], ...]:
    """For vectors: where every 65,536th cluster is, and last (entries, clusters) in all."""
    if layout.rows == "entries":
        return ()
    counted = next((n for n in expressions if layout.level_of(n) == "cluster"), None)
    if counted is None:
        msg = "dataset.features: at least one must be of level cluster, to count clusters by"
        raise UserError(msg)
    marks: list[tuple[int, int]] = []
    rows = 0
    for first in range(0, table.num_entries, COUNT_ENTRIES):
        last = min(first + COUNT_ENTRIES, table.num_entries)
        arrays = arrays_of(table, [expressions[counted]], (first, last), "ak")
        ends = rows + np.cumsum(lengths(arrays[expressions[counted]], counted))
        begin = -(-rows // MARK_ROWS) * MARK_ROWS
        for mark in range(begin, int(ends[-1]), MARK_ROWS):
            at = int(np.searchsorted(ends, mark, side="right"))
            before = int(ends[at - 1]) if at else rows
            marks.append((first + at, mark - before))
        rows = int(ends[-1])
    return (*marks, (int(table.num_entries), rows))


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

    with reading_errors(pattern, "cannot be listed"):
        return sorted(with_retries(ask, pattern, remote))
