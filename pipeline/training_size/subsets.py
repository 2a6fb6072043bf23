"""Training subsets of a dataset, in the order of a hash of the clusters' identity.

A cluster's rank follows from its identity, so that a smaller subset lies within a larger one.
A subset is a dataset of its own, with the statistics of its rows, so that a training on it knows
nothing of the other rows.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.fold import merge_in_order
from pipeline.formats.columns import IDENTITY
from pipeline.formats.errors import UserError
from pipeline.formats.folders import replacing_folder
from pipeline.formats.manifest import (
    MANIFEST,
    DatasetManifest,
    Part,
    Split,
    columns_of,
    read_manifest,
    read_part,
)
from pipeline.formats.seeds import derive_seed
from pipeline.formats.versions import fingerprint
from pipeline.ingest.clean import moments_of
from pipeline.ingest.dataset import statistics_of
from pipeline.ingest.identity import uniform_of
from pipeline.ingest.moments import SignedMoments, merge_tables
from pipeline.numerics.arrays import IntArray
from pipeline.parquet import write_part
from pipeline.settings import STATISTICS_BLOCK, DatasetSettings

PART_ROWS = 2 * STATISTICS_BLOCK
VERSION = 1  # raised when the same dataset gives other subsets


@dataclass(frozen=True)
class Origin:
    """A dataset from which subsets are taken.

    Attributes:
        folder: Of its manifest.
        manifest: Of the dataset.
        settings: It was made with.
        seed: Of the study; another one gives another order.
    """

    folder: Path
    manifest: DatasetManifest
    settings: DatasetSettings
    seed: int


@dataclass(frozen=True)
class Subset:
    """Rows [first, first + rows) of a split in the order of the hash."""

    split: Split
    first: int
    rows: int


def ranks_of(origin: Origin, split: Split) -> list[IntArray]:
    """The place of each row in the order of the hash, part by part."""
    parts = origin.manifest.parts_of(split)
    ids = [read_part(origin.folder, part, [IDENTITY])[IDENTITY].to_numpy() for part in parts]
    all_N = np.concatenate([np.empty(0, np.uint64), *ids])
    hash_N = uniform_of(all_N, derive_seed(origin.seed, "order of the subsets"))
    rank_N = np.empty(len(all_N), np.int64)
    rank_N[np.lexsort((all_N, hash_N))] = np.arange(len(all_N))
    return np.split(rank_N, np.cumsum([part.rows for part in parts])[:-1])


def identity_of(origin: Origin, *subsets: Subset) -> str:
    """The fingerprint of all that the subsets of a scaling study follow from."""
    return fingerprint(
        version=VERSION,
        dataset=origin.manifest.fingerprint,
        seed=origin.seed,
        subsets=[[each.split, each.first, each.rows] for each in subsets],
    )


def write_subset(
    folder: Path,
    origin: Origin,
    subset: Subset,
    ranks: Sequence[IntArray],
    validation: Sequence[Part],
) -> DatasetManifest:
    """A training subset as a dataset with a manifest of its own; one that is there is kept.

    Args:
        folder: Of the subset.
        origin: Where its rows are.
        subset: Of the training split.
        ranks: As from `ranks_of`.
        validation: Parts of the validation split, whose paths count from the subset's folder.

    Raises:
        UserError: The weights of the rows allow no statistics.
    """
    identity = fingerprint(
        subset=identity_of(origin, subset), validation=[part.sha256 for part in validation]
    )
    if (folder / MANIFEST).exists() and read_manifest(folder).fingerprint == identity:
        return read_manifest(folder)
    manifest = origin.manifest
    with replacing_folder(folder) as new:
        if subset.rows == manifest.rows_of("train"):  # no copy of what may be large
            parts = [seen_from(folder, origin.folder, part) for part in manifest.parts_of("train")]
            statistics = manifest.statistics
        else:
            parts, moments = _write_rows(new, origin, subset, ranks)
            statistics = statistics_of(origin.settings, moments)
        written = manifest.model_copy(
            update={
                "fingerprint": identity,
                "parts": (*parts, *validation),
                "statistics": statistics,
            }
        )
        written.save(new / MANIFEST)
    return written


def write_rows(folder: Path, origin: Origin, subset: Subset) -> DatasetManifest:
    """The rows of a subset that is not trained on, as a dataset; one that is there is kept."""
    identity = identity_of(origin, subset)
    if (folder / MANIFEST).exists() and read_manifest(folder).fingerprint == identity:
        return read_manifest(folder)
    with replacing_folder(folder) as new:
        parts, _ = _write_rows(new, origin, subset, ranks_of(origin, subset.split))
        written = origin.manifest.model_copy(
            update={"fingerprint": identity, "parts": tuple(parts)}
        )
        written.save(new / MANIFEST)
    return written


def seen_from(folder: Path, origin: Path, part: Part) -> Part:
    """A part of another dataset, with its path from a folder."""
    path = os.path.relpath(origin / part.path, folder)
    return part.model_copy(update={"path": path})


def require_rows(origin: Origin, split: Split, rows: int, purpose: str) -> None:
    """Refuse a subset that is larger than its split.

    Raises:
        UserError: It is.
    """
    present = origin.manifest.rows_of(split)
    if rows > present:
        msg = (
            f"{purpose}: {rows} rows are wanted, the {split} split of {origin.folder} has "
            f"{present}; choose smaller sizes or a larger sample"
        )
        raise UserError(msg)


def _write_rows(
    folder: Path, origin: Origin, subset: Subset, ranks: Sequence[IntArray]
) -> tuple[list[Part], dict[str, SignedMoments]]:
    parts: list[Part] = []
    moments: list[dict[str, SignedMoments]] = []
    for table in _tables(origin, subset, ranks):
        parts.append(write_part(folder, subset.split, len(parts), table))
        for first in range(0, table.num_rows, STATISTICS_BLOCK):
            block = table.slice(first, STATISTICS_BLOCK)
            columns = columns_of(block)
            moments.append(moments_of(origin.settings, columns))
    return parts, merge_in_order(moments, merge_tables)


def _tables(origin: Origin, subset: Subset, ranks: Sequence[IntArray]) -> Iterator[pa.Table]:
    """The rows of a subset in the order of the dataset, as tables of one part each."""
    waiting: list[pa.Table] = []
    rows = 0
    for part, rank_N in zip(origin.manifest.parts_of(subset.split), ranks, strict=True):
        chosen = (rank_N >= subset.first) & (rank_N < subset.first + subset.rows)
        if chosen.any():
            waiting.append(read_part(origin.folder, part).filter(pa.array(chosen)))
            rows += waiting[-1].num_rows
        while rows >= PART_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, PART_ROWS).combine_chunks()
            waiting, rows = [whole.slice(PART_ROWS)], rows - PART_ROWS
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()
