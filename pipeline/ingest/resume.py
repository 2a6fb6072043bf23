"""Receipts: what was read and written for one part, so that it need not be done again.

Parts and receipts stand in a staging folder, which outlives a run that fails.
"""

import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipeline.formats.errors import UserError
from pipeline.formats.files import flush_files, write_text
from pipeline.formats.folders import (
    CLAIM,
    claim,
    put_in_place,
    refuse_foreign,
    temporary_folder,
)
from pipeline.formats.lock import Held
from pipeline.formats.manifest import MANIFEST, DatasetManifest, Part, Split
from pipeline.formats.records import Record
from pipeline.ingest.moments import Moments, SignedMoments

log = logging.getLogger(__name__)

RECEIPTS = "receipts"


class MomentsRecord(Record):
    """Moments as JSON holds them, to the last bit; see pipeline/ingest/moments.py."""

    count: int
    sum_of_weights: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    @classmethod
    def of(cls, moments: Moments) -> Self | None:
        """The record; none of no rows, whose range JSON cannot hold."""
        if moments.count == 0:
            return None
        arrays = {n: tuple(getattr(moments, n).tolist()) for n in _ARRAYS}
        return cls(count=moments.count, sum_of_weights=moments.sum_of_weights, **arrays)

    def moments(self) -> Moments:
        """The accumulator that the record was made of, to the bit."""
        return Moments(
            self.count, self.sum_of_weights, *(np.array(getattr(self, name)) for name in _ARRAYS)
        )


_ARRAYS = ("mean", "spread", "minimum", "maximum")


class BlockRecord(Record):
    """What one block of clusters adds to a dataset.

    Attributes:
        key: Which block of which file.
        rows: Rows written, by split.
        counts: Clusters after each step of the cut flow.
        floored: Rows, or elements of lists, raised to each floor.
        plus: Statistics of training rows with weights of zero or more.
        minus: Of those with negative weights.
        tables: By table of lists: the same of the elements of these rows.
        failure: Why the block could not be read; all the rest is empty then.
    """

    key: str
    rows: dict[Split, int] = Field(default={})
    counts: tuple[int, ...] = ()
    floored: tuple[int, ...] = ()
    plus: MomentsRecord | None = None
    minus: MomentsRecord | None = None
    tables: dict[str, tuple[MomentsRecord | None, MomentsRecord | None]] = Field(
        default={}, exclude_if=lambda tables: not tables
    )
    failure: str | None = None

    def moments(self, table: str, num_columns: int) -> SignedMoments:
        """The statistics of the block's training rows, or of their elements in a table."""
        records = self.tables.get(table, (None, None)) if table else (self.plus, self.minus)
        nothing = Moments.of([np.zeros(0)] * num_columns)
        plus, minus = (each.moments() if each is not None else nothing for each in records)
        return SignedMoments(plus, minus)


class Receipt(Record):
    """The parts with one index and the blocks that are in them, in order."""

    index: int
    columns: tuple[str, ...]
    blocks: tuple[BlockRecord, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """Where an earlier run left a block.

    Attributes:
        folder: Of that run's dataset.
        receipt: Of the parts that hold the block.
        position: Of the block among the receipt's.
    """

    folder: Path
    receipt: Receipt
    position: int

    def rows_of(self, split: Split) -> slice:
        """The block's rows in the part of a split."""
        before = sum(block.rows.get(split, 0) for block in self.receipt.blocks[: self.position])
        return slice(before, before + self.receipt.blocks[self.position].rows.get(split, 0))

    def part_of(self, split: Split) -> Part | None:
        """The part of a split that holds the block's rows."""
        return next((part for part in self.receipt.parts if part.split == split), None)


def receipt_path(folder: Path, index: int) -> Path:
    """Where the receipt of the parts with an index is."""
    return folder / RECEIPTS / f"part-{index:05d}.json"


def find_earlier(folders: Iterable[Path], columns: tuple[str, ...]) -> dict[str, Earlier]:
    """The blocks that earlier runs have read, with these columns; the first folder wins."""
    found: dict[str, Earlier] = {}
    paths = [path for folder in folders for path in sorted((folder / RECEIPTS).glob("part-*.json"))]
    for path in paths:
        receipt = _read(path)
        if receipt is None or receipt.columns != columns:
            continue
        for position, block in enumerate(receipt.blocks):
            if block.failure is None:
                found.setdefault(block.key, Earlier(path.parents[1], receipt, position))
    return found


def _read(path: Path) -> Receipt | None:
    try:
        return Receipt.load(path, made_by="ingest")
    except UserError:  # damaged or from another version: its blocks are read again
        return None


STATE = "staging.json"


@dataclass(frozen=True, slots=True)
class Staging:
    """A dataset that is being made.

    Attributes:
        folder: Where its parts are written.
        earlier: Folders of earlier runs with the same settings, whose blocks can be used.
    """

    folder: Path
    earlier: tuple[Path, ...]
    _final: Path
    _held: Held

    def commit(self, manifest: DatasetManifest, others: list[str]) -> None:
        """Write the manifest and give the dataset its name.

        Args:
            manifest: Of the dataset; its parts are in the folder.
            others: Files to keep beside the parts; what else is in the folder is removed.
        """
        kept = {*manifest.files, *others, CLAIM}
        for path in self.folder.rglob("*"):
            if path.is_file() and str(path.relative_to(self.folder)) not in kept:
                path.unlink()
        flush_files(self.folder / path for path in manifest.files)
        manifest.save(self.folder / MANIFEST)
        self._held.check()
        put_in_place(self.folder, self._final)
        shutil.rmtree(_aside(self._final), ignore_errors=True)


def open_staging(folder: Path, held: Held, *, settings: str, plan: str, fresh: bool) -> Staging:
    """Where a dataset is made, going on from where an earlier run was stopped.

    Until it is committed the dataset stays as it was; what is finished is kept for the next run.

    Args:
        folder: Of the dataset.
        held: Its lock.
        settings: Fingerprint of the settings; rows made with others are of no use.
        plan: Fingerprint of settings and inputs; parts of another plan have other numbers.
        fresh: Use nothing of earlier runs.

    Raises:
        UserError: The folder holds files that this program did not write.
    """
    refuse_foreign(folder)
    temporary, aside = temporary_folder(folder), _aside(folder)
    if fresh or _state(temporary).get("settings") != settings:
        shutil.rmtree(temporary, ignore_errors=True)
    if fresh or _state(aside).get("settings") != settings:
        shutil.rmtree(aside, ignore_errors=True)
    if temporary.exists() and _state(temporary)["plan"] != plan:
        shutil.rmtree(aside, ignore_errors=True)
        temporary.rename(aside)
    claim(temporary)
    write_text(temporary / STATE, json.dumps({"settings": settings, "plan": plan}))
    earlier = [path for path in (temporary, aside) if path.exists()]
    if not fresh and _settings_of(folder) == settings:
        earlier.append(folder)
    return Staging(temporary, tuple(earlier), folder, held)


def _aside(folder: Path) -> Path:
    return temporary_folder(folder.with_name(f"earlier-{folder.name}"))


def _state(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _settings_of(folder: Path) -> str | None:
    try:
        return DatasetManifest.load(folder / MANIFEST, made_by="ingest").settings_fingerprint
    except UserError:
        return None
