"""Calibrated data that this project did not make, joined to a dataset's parts by cluster_id.

Files of any order and cut are read once, a chunk at a time; each chunk keeps, part by part, the
rows that the dataset has. A part of the dataset then takes its rows from all chunks. Memory holds
a chunk and the identities of one part, never a whole file or a whole dataset.
"""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import uproot
from numpy.typing import NDArray

from pipeline.evaluation.settings import ExternalSet
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.errors import UserError
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import Part, columns_of
from pipeline.numerics.arrays import FloatArray, IntArray
from pipeline.root.files import trees_in

CHUNK_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one file: some row groups of a Parquet file, or entries of a tree.

    Attributes:
        name: Of the set.
        given: Settings of the set.
        path: The file.
        start: First row group or entry.
        stop: The one after the last.
        folder: Where what is found is kept.
    """

    name: str
    given: ExternalSet
    path: Path
    start: int
    stop: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Staged:
    """What a chunk had: all its rows, and those that the dataset has."""

    rows: int
    found: int


def files_of(name: str, given: ExternalSet) -> list[Path]:
    """The files of an external set.

    Raises:
        UserError: A pattern matches no file.
    """
    paths: list[Path] = []
    for pattern in given.files:
        found = sorted(Path(path) for path in glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not found:
            msg = f"evaluate.external.{name}.files: no file matches {pattern}"
            raise UserError(msg)
        paths += found
    return list(dict.fromkeys(paths))


def identity_of(name: str, given: ExternalSet) -> dict[str, str]:
    """By file: the checksum of its contents, for the fingerprint of an evaluation."""
    return {str(path): sha256_of(path) for path in files_of(name, given)}


def chunks_of(name: str, given: ExternalSet, folder: Path) -> list[Chunk]:
    """The files in chunks of at most about a million rows; single row groups may be larger.

    Raises:
        UserError: A file is missing or of another kind, or lacks a column.
    """
    ranges = [(path, part) for path in files_of(name, given) for part in _ranges(name, given, path)]
    return [
        Chunk(name, given, path, start, stop, folder / f"{name}-{number:05d}")
        for number, (path, (start, stop)) in enumerate(ranges)
    ]


def stage_chunk(chunk: Chunk, dataset: Path, parts: Sequence[Part]) -> Staged:
    """Sort the rows of a chunk by the dataset's parts, and keep them; runs on a worker.

    Raises:
        UserError: Two rows of the chunk are of one cluster of the dataset.
    """
    ids, values = _read(chunk)
    order = np.argsort(ids)
    rising = ids[order]
    rows: list[IntArray] = []
    taken: list[IntArray] = []
    for part in parts:
        table = pq.read_table(dataset / part.path, columns=[IDENTITY], use_threads=False)
        wanted = table[IDENTITY].to_numpy()
        first = np.searchsorted(rising, wanted, side="left")
        number = np.searchsorted(rising, wanted, side="right") - first
        if (number > 1).any():
            twice = wanted[number > 1]
            first_of = f"{IDENTITY} {twice[0]}"
            raise UserError(_twice(chunk.name, str(chunk.path), len(twice), first_of))
        found = np.flatnonzero(number)
        rows.append(found)
        taken.append(order[first[found]])
    chunk.folder.mkdir(parents=True, exist_ok=True)  # a worker may have died here
    ends = np.cumsum([0, *(len(found) for found in rows)])
    np.save(chunk.folder / "ends.npy", ends)
    np.save(chunk.folder / "rows.npy", np.concatenate(rows))
    np.save(chunk.folder / "values.npy", values[:, np.concatenate(taken)])
    return Staged(len(ids), int(ends[-1]))


def external_columns(
    name: str, given: ExternalSet, target: Target, folders: Sequence[Path], place: tuple[int, Part]
) -> dict[str, FloatArray]:
    """The columns of an external set for the rows of a part [N]; NaN where it has no such cluster.

    Args:
        name: Of the set.
        given: Its settings.
        target: What is calibrated; the numerator is not known here, see `complete`.
        folders: Of the staged chunks.
        place: Number of the part among those staged, and the part.

    Raises:
        UserError: Two files have the same cluster.
    """
    number, part = place
    columns = np.full((len(given.columns), part.rows), np.nan)
    seen = np.zeros(part.rows, np.int64)
    for folder in folders:
        start, stop = np.load(folder / "ends.npy")[number : number + 2]
        rows = np.load(folder / "rows.npy", mmap_mode="r")[start:stop]
        columns[:, rows] = np.load(folder / "values.npy", mmap_mode="r")[:, start:stop]
        seen[rows] += 1
    if (seen > 1).any():
        twice = np.flatnonzero(seen > 1)
        first_of = f"row {twice[0]} of the dataset's {part.path}"
        raise UserError(_twice(name, "its files", len(twice), first_of))
    return {ours: columns[at] for at, ours in enumerate(_ours(given, target))}


def complete(
    columns: dict[str, FloatArray], numerator: NDArray[Any], target: Target
) -> dict[str, FloatArray]:
    """With both the target and the calibrated value, of which one follows from the other."""
    whole, known = dict(columns), {target.numerator: numerator}
    with np.errstate(divide="ignore", invalid="ignore"):
        if target.name not in whole:
            whole[target.name] = target.calibrate(known, whole[target.calibrated])
        if target.calibrated not in whole:
            whole[target.calibrated] = target.calibrate(known, whole[target.name])
    return whole


def _ours(given: ExternalSet, target: Target) -> list[str]:
    """The names of the columns here: `response` and `energy` stand for the target's."""
    places = {"response": target.name, "energy": target.calibrated}
    return [places.get(ours, ours) for ours in given.columns]


def _ranges(name: str, given: ExternalSet, path: Path) -> Iterator[tuple[int, int]]:
    wanted = {given.identity, *given.columns.values()}
    where = f"evaluate.external.{name}: {path}"
    if path.suffix == ".root":
        with uproot.open(path) as file:
            tree = _tree(where, file, given)
            _require(where, wanted, tree.keys())
            entries = int(tree.num_entries)
        yield from (
            (start, min(start + CHUNK_ROWS, entries)) for start in range(0, entries, CHUNK_ROWS)
        )
        return
    try:
        metadata = pq.read_metadata(path)
    except (OSError, ValueError) as error:
        msg = f"{where} is neither a ROOT file (.root) nor Parquet ({error})"
        raise UserError(msg) from None
    _require(where, wanted, metadata.schema.to_arrow_schema().names)
    start, rows = 0, 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= CHUNK_ROWS or group == metadata.num_row_groups - 1:
            yield start, group + 1
            start, rows = group + 1, 0


def _tree(where: str, file: Any, given: ExternalSet) -> Any:  # noqa: ANN401 - uproot's
    names = trees_in(file)
    if given.tree is None or given.tree not in names:
        known = ", ".join(sorted(names)) or "none"
        msg = f"{where}: no tree {given.tree}; it has {known}: give one of them as `tree`"
        raise UserError(msg)
    return file[given.tree]


def _require(where: str, wanted: set[str], known: Sequence[str]) -> None:
    if missing := sorted(wanted - set(known)):
        msg = f"{where} has no column {', '.join(missing)}; it has {', '.join(known)}"
        raise UserError(msg)


def _read(chunk: Chunk) -> tuple[NDArray[np.uint64], FloatArray]:
    """Identities [N] and values [C, N] of a chunk."""
    names = list(chunk.given.columns.values())
    if chunk.path.suffix == ".root":
        with uproot.open(chunk.path) as file:
            branches = [chunk.given.identity, *names]
            span = {"entry_start": chunk.start, "entry_stop": chunk.stop}
            arrays = file[chunk.given.tree].arrays(branches, library="np", **span)
    else:
        groups = list(range(chunk.start, chunk.stop))
        wanted = [chunk.given.identity, *dict.fromkeys(names)]
        table = pq.ParquetFile(chunk.path).read_row_groups(groups, wanted, use_threads=False)
        arrays = columns_of(table)
    ids = arrays[chunk.given.identity].astype(np.uint64)
    return ids, np.stack([np.asarray(arrays[name], np.float64) for name in names])


def _twice(name: str, where: str, count: int, first: str) -> str:
    return (
        f"evaluate.external.{name}: {count} clusters are in {where} more than once, the first of "
        f"them {first}; one row a cluster is expected"
    )
