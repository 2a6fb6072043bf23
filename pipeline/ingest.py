"""From ROOT files to a dataset: one pass that cuts, splits, writes parts and sums statistics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.formats.columns import IDENTITY, Column
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import (
    SPLITS,
    InputFile,
    Part,
    Split,
)
from pipeline.identity import Ids, ids_from_columns, ids_from_file, uniform_of
from pipeline.moments import Moments
from pipeline.parquet import write_part
from pipeline.read import read_blocks
from pipeline.select import raise_to_floor, select
from pipeline.settings import STATISTICS_BLOCK, DatasetSettings

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Block:
    """Entries [start, stop) of one file: the unit in which statistics are summed."""

    file: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PartPlan:
    """All that a worker needs to write the parts with one index."""

    index: int
    blocks: tuple[Block, ...]
    files: tuple[InputFile, ...]
    columns: tuple[Column, ...]
    has_identity: bool
    settings: DatasetSettings
    folder: Path
    step: int


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """What one block adds to the manifest."""

    counts: NDArray[np.int64]
    floored: NDArray[np.int64]
    moments: Moments

    def __add__(self, other: "BlockSummary") -> "BlockSummary":
        return BlockSummary(
            self.counts + other.counts, self.floored + other.floored, self.moments + other.moments
        )


@dataclass(frozen=True, slots=True)
class WrittenParts:
    """The parts of one plan and the summaries of its blocks, both in order."""

    parts: tuple[Part, ...]
    summaries: tuple[BlockSummary, ...]


def plan_blocks(files: Sequence[InputFile], rows_per_part: int) -> list[tuple[Block, ...]]:
    """Blocks aligned to each file, grouped in file order until a part has its rows.

    The grouping follows from the files and `rows_per_part` alone, so that neither the number of
    workers nor the size of a read changes a part.
    """
    groups: list[tuple[Block, ...]] = []
    group: list[Block] = []
    for number, file in enumerate(files):
        for start in range(0, file.entries, STATISTICS_BLOCK):
            group.append(Block(number, start, min(start + STATISTICS_BLOCK, file.entries)))
            if sum(block.stop - block.start for block in group) >= rows_per_part:
                groups.append(tuple(group))
                group = []
    return [*groups, tuple(group)] if group else groups


def plan_parts(
    settings: DatasetSettings,
    files: tuple[InputFile, ...],
    branches: set[str],
    *,
    folder: Path,
    step: int,
) -> list[PartPlan]:
    """What the workers need to write each part.

    Args:
        settings: The study's section dataset.
        files: The inputs, in order.
        branches: Those that all inputs have.
        folder: Of the dataset.
        step: Entries that a worker reads at a time.

    Raises:
        UserError: The inputs hold no entries.
    """
    groups = plan_blocks(files, settings.rows_per_part)
    if not groups:
        msg = f"{files[0].path}: tree {settings.tree} has no entries, nor has any other input"
        raise UserError(msg)
    return [
        PartPlan(
            index=index,
            blocks=blocks,
            files=files,
            columns=kept_columns(settings, branches),
            has_identity=set(settings.identity) <= branches,
            settings=settings,
            folder=folder,
            step=step,
        )
        for index, blocks in enumerate(groups)
    ]


def required_branches(settings: DatasetSettings) -> list[str]:
    """Branches without which the dataset cannot be made, in a fixed order, each once."""
    names = [feature.name for feature in settings.features]
    names += [settings.target.numerator, settings.target.denominator]
    names += [cut.column for cut in settings.cuts]
    names += list(settings.floors)
    names += [settings.weight] if settings.weight is not None else []
    return list(dict.fromkeys(names))


def kept_columns(settings: DatasetSettings, branches: set[str]) -> tuple[Column, ...]:
    """The columns of the parts, `cluster_id` first; extras only where every input has them."""
    target = settings.target
    columns = [Column(name=IDENTITY, role="identity")]
    columns += [Column(name=f.name, unit=f.unit, role="feature") for f in settings.features]
    named = {column.name for column in columns}
    if target.numerator not in named:
        columns.append(Column(name=target.numerator, unit=target.calibrated_unit, role="reference"))
    columns.append(Column(name=target.denominator, unit=target.calibrated_unit, role="truth"))
    columns.append(Column(name=target.name, unit=target.unit, role="target"))
    named = {column.name for column in columns}
    columns += [c for c in settings.extras if c.name in branches and c.name not in named]
    return tuple(columns)


def write_parts(plan: PartPlan) -> WrittenParts:
    """Read a plan's blocks and write its parts; runs on a worker.

    Raises:
        UserError: An input cannot be read; the message names the file and the entries.
    """
    summaries: list[BlockSummary] = []
    pieces: dict[Split, list[Arrays]] = {split: [] for split in SPLITS}
    for block, arrays in _read_plan(plan):
        kept, counts, floored = _clean(plan, block, arrays)
        u_N = uniform_of(kept[IDENTITY], plan.settings.split.seed)
        edges = np.cumsum([plan.settings.split.train, plan.settings.split.validation])
        split_N = np.searchsorted(edges, u_N, side="right")
        for number, split in enumerate(SPLITS):
            pieces[split].append({k: v[split_N == number] for k, v in kept.items()})
        summaries.append(BlockSummary(counts, floored, _moments(plan, pieces["train"][-1])))
    parts = [
        write_part(plan.folder, split, plan.index, table)
        for split in SPLITS
        if (table := _table(plan, pieces[split])).num_rows > 0
    ]
    return WrittenParts(tuple(parts), tuple(summaries))


def statistics_columns(settings: DatasetSettings) -> tuple[list[str], list[str]]:
    """Columns of which statistics are kept, and those of which log10 is taken as well."""
    target = settings.target
    names = [feature.name for feature in settings.features]
    names += [target.numerator, target.denominator, target.name]
    logs = [f.name for f in settings.features if f.transform == "log10_standard"]
    return list(dict.fromkeys(names)), [*logs, target.name]


def _read_plan(plan: PartPlan) -> Iterator[tuple[Block, Arrays]]:
    branches = required_branches(plan.settings)
    known = {column.name for column in plan.columns} - {IDENTITY, plan.settings.target.name}
    identity = plan.settings.identity if plan.has_identity else ()
    wanted = list(dict.fromkeys([*branches, *sorted(known), *identity]))
    for number in sorted({block.file for block in plan.blocks}):
        blocks = [block for block in plan.blocks if block.file == number]
        ranges = [(block.start, block.stop) for block in blocks]
        path = plan.files[number].path
        arrays = read_blocks(path, plan.settings.tree, wanted, ranges, plan.step)
        yield from zip(blocks, arrays, strict=True)


def _clean(
    plan: PartPlan, block: Block, arrays: Arrays
) -> tuple[Arrays, NDArray[np.int64], NDArray[np.int64]]:
    """Kept rows as the columns of the parts; counts of the cut flow; counts of the floors."""
    settings, target = plan.settings, plan.settings.target
    ids = _identify(plan, block, arrays)
    # float32 first: what is cut, floored and divided is what is written.
    with np.errstate(over="ignore"):  # becomes inf, which the first cut counts
        single = {name: values.astype(np.float32) for name, values in arrays.items()}
    keep_N, counts = select(single, settings.cuts, required_branches(settings))
    rows = {name: values[keep_N] for name, values in single.items()}
    floored = np.zeros(len(settings.floors), dtype=np.int64)
    for number, (name, floor) in enumerate(settings.floors.items()):
        rows[name], floored[number] = raise_to_floor(rows[name], floor)
    ratio_N = rows[target.numerator].astype(np.float64) / rows[target.denominator]
    rows[target.name] = ratio_N.astype(np.float32)
    kept: Arrays = {column.name: rows[column.name] for column in plan.columns[1:]}
    return {IDENTITY: ids[keep_N], **kept}, counts, floored


def _identify(plan: PartPlan, block: Block, arrays: Arrays) -> Ids:
    if plan.has_identity:
        return ids_from_columns([arrays[name] for name in plan.settings.identity])
    return ids_from_file(plan.files[block.file].uuid, block.start, block.stop)


def _moments(plan: PartPlan, rows: Arrays) -> Moments:
    names, logs = statistics_columns(plan.settings)
    columns = [rows[name].astype(np.float64) for name in names]
    columns += [np.log10(rows[name].astype(np.float64)) for name in logs]
    values_NC = np.stack(columns, axis=1)
    weight = plan.settings.weight
    weights_N = np.ones(len(values_NC)) if weight is None else rows[weight].astype(np.float64)
    return Moments.of(values_NC, weights_N)


def _table(plan: PartPlan, pieces: list[Arrays]) -> pa.Table:
    names = [column.name for column in plan.columns]
    return pa.table({name: np.concatenate([p[name] for p in pieces]) for name in names})
