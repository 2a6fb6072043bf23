"""The parts of a dataset, written by workers: from ROOT files, or from what is there already."""

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.columns import IDENTITY, Column
from pipeline.formats.errors import UserError
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import SPLITS, Part, Split, read_part
from pipeline.formats.ragged import Ragged, column_of, join, table_of
from pipeline.ingest.clean import CleanBlock, clean_block
from pipeline.ingest.plan import ROWS, Block, PartPlan
from pipeline.ingest.resume import BlockRecord, MomentsRecord, Receipt, receipt_path
from pipeline.numerics.arrays import Columns
from pipeline.parquet import part_path, write_part
from pipeline.root.read import RootBlock, concatenate, read_rows


def write_parts(plan: PartPlan) -> Receipt:
    """Write the parts of a plan, reading what no earlier run has read; runs on a worker.

    Raises:
        UserError: An input cannot be read, and that is not to be skipped; the message names the
            file and the entries.
    """
    receipt = _kept_whole(plan)
    if receipt is None:
        receipt = _write(plan)
    # What a power cut leaves of it is checked before it is used, so nobody waits for the disk.
    receipt.save(receipt_path(plan.folder, plan.index), flush=False)
    return receipt


def _kept_whole(plan: PartPlan) -> Receipt | None:
    """The receipt of parts that hold the plan's blocks and nothing else, put in their place."""
    keys = [plan.key_of(block) for block in plan.blocks]
    first = plan.earlier.get(keys[0])
    if first is None or keys != [b.key for b in first.receipt.blocks if b.failure is None]:
        return None
    parts = [_keep(plan, first.folder, part) for part in first.receipt.parts]
    complete = tuple(part for part in parts if part is not None)
    if len(complete) < len(parts):
        return None
    blocks = tuple(block for block in first.receipt.blocks if block.failure is None)
    return first.receipt.model_copy(
        update={"index": plan.index, "parts": complete, "blocks": blocks}
    )


def _keep(plan: PartPlan, folder: Path, part: Part) -> Part | None:
    """An earlier part under its new name; none if it is not the one that was written."""
    path = part_path(part.split, plan.index)
    old, new = folder / part.path, plan.folder / path
    try:
        if sha256_of(old) != part.sha256:
            return None
        if old != new:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            _link(old, new)
    except FileNotFoundError:
        return None
    return part.model_copy(update={"path": path, "index": plan.index})


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # a file system without hard links
        shutil.copyfile(old, new)


def _write(plan: PartPlan) -> Receipt:
    records: list[BlockRecord] = []
    pieces: dict[Split, list[Columns]] = {split: [] for split in SPLITS}
    for block, content in _contents(plan):
        if isinstance(content, UserError):
            records.append(BlockRecord(key=plan.key_of(block), failure=str(content)))
            continue
        record, rows = content
        records.append(record)
        for split in SPLITS:
            pieces[split].append(rows[split])
    names = [column.name for column in plan.columns]
    parts = []
    for split in SPLITS:
        if any(len(piece[names[0]]) for piece in pieces[split]):
            table = table_of({n: join([p[n] for p in pieces[split]]) for n in names})
            parts.append(write_part(plan.folder, split, plan.index, table))
    return Receipt(
        index=plan.index, columns=tuple(names), blocks=tuple(records), parts=tuple(parts)
    )


Content = tuple[BlockRecord, dict[Split, Columns]]


def _contents(plan: PartPlan) -> Iterator[tuple[Block, Content | UserError]]:
    """Each block's record and rows by split, or why it is skipped."""
    known = _read_earlier(plan)
    for (_, is_known), group in groupby(plan.blocks, lambda b: (b.file, b in known)):
        blocks = list(group)
        if is_known:
            yield from ((block, known[block]) for block in blocks)
        else:
            yield from _read_blocks(plan, blocks)


def _read_earlier(plan: PartPlan) -> dict[Block, Content]:
    """The blocks that an earlier run has read, without those whose parts are damaged.

    Each part is read once, and is in memory no longer than it takes to copy the blocks' rows.
    """
    found = {b: plan.earlier[key] for b in plan.blocks if (key := plan.key_of(b)) in plan.earlier}
    rows: dict[Block, dict[Split, Columns]] = {block: {} for block in found}
    wanted: dict[tuple[Path, str], tuple[Part, list[Block]]] = {}
    for block, earlier in found.items():
        for split in SPLITS:
            part = earlier.part_of(split)
            if part is None:
                rows[block][split] = {c.name: _nothing(c) for c in plan.columns}
            else:
                wanted.setdefault((earlier.folder, part.path), (part, []))[1].append(block)
    for (folder, _), (part, blocks) in wanted.items():
        try:
            table = read_part(folder, part)
        except UserError:
            continue
        for block in blocks:
            span = found[block].rows_of(part.split)
            some = table.slice(span.start, span.stop - span.start)
            # Copies: the part that they are of is not kept in memory.
            columns = {c.name: join([column_of(some[c.name])]) for c in plan.columns}
            rows[block][part.split] = columns
    return {
        block: (earlier.receipt.blocks[earlier.position], rows[block])
        for block, earlier in found.items()
        if len(rows[block]) == len(SPLITS)
    }


def _nothing(column: Column) -> NDArray[Any]:
    """A column without rows."""
    numbers = np.zeros(0, np.uint64 if column.name == IDENTITY else np.float32)
    if column.shape == "scalar":
        return numbers
    return cast("NDArray[Any]", Ragged.of_counts(numbers, np.zeros(0, np.int64)))


def _read_blocks(
    plan: PartPlan, blocks: Sequence[Block]
) -> Iterator[tuple[Block, Content | UserError]]:
    """Adjacent blocks of one file, read at once; one by one where that fails and may be skipped."""
    source = plan.sources[blocks[0].file]
    done = 0
    try:
        for block, rows in zip(blocks, _rows_of(plan, blocks), strict=True):
            cleaned = clean_block(plan, source, rows)
            yield block, (_record(plan, block, cleaned), {s: cleaned.of(s) for s in SPLITS})
            done += 1
    except UserError as error:
        if plan.settings.on_error == "fail":
            raise
        failed = error
    else:
        return
    if len(blocks) == 1:
        yield blocks[0], failed
        return
    for block in blocks[done:]:
        yield from _read_blocks(plan, [block])


def _rows_of(plan: PartPlan, blocks: Sequence[Block]) -> Iterator[RootBlock]:
    source = plan.sources[blocks[0].file]
    pieces = read_rows(source, plan.settings.layout, blocks[0].start, blocks[-1].stop, plan.access)
    held: list[RootBlock] = []
    for block in blocks:
        missing = block.stop - block.start - sum(map(len, held))
        while missing > 0:
            held.append(next(pieces))
            missing -= len(held[-1])
        joined = held[0] if len(held) == 1 else concatenate(held)
        yield joined[: block.stop - block.start]
        held = [joined[block.stop - block.start :]]


def _record(plan: PartPlan, block: Block, cleaned: CleanBlock) -> BlockRecord:
    return BlockRecord(
        key=plan.key_of(block),
        rows=cleaned.rows,
        counts=tuple(cleaned.counts.tolist()),
        floored=tuple(cleaned.floored.tolist()),
        plus=MomentsRecord.of(cleaned.moments[ROWS].plus),
        minus=MomentsRecord.of(cleaned.moments[ROWS].minus),
        tables={
            table: (MomentsRecord.of(moments.plus), MomentsRecord.of(moments.minus))
            for table, moments in cleaned.moments.items()
            if table != ROWS
        },
    )
