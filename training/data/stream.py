"""Rows that are read from Parquet as they are needed, in a shuffled order, with little memory.

An epoch is a permutation of the row groups, cut into pools that fit the memory; a pool is read in
a thread while the one before it is used, and its rows are shuffled. The order follows from seed,
epoch and memory alone, so it is the same for any number of workers; each of them reads all.

Shape letters: N rows, F features.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.formats.calibrated_set import LABEL
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import Part, check_part, columns_of, read_part
from pipeline.formats.ragged import Ragged, as_ragged, join_lists
from pipeline.formats.seeds import derive_seed
from pipeline.formats.transforms import Scaling, scale
from training.data.rows import Chunk, Sampler, TrainingRows, permutation
from training.steps.noise import StepRows
from training.steps.tables import TableRows, Tables, join_tables

SHARES = 3  # of the memory: the pool in use, the one being read, what reading needs


@dataclass(frozen=True)
class Recipe:
    """How the columns of a dataset become rows.

    Attributes:
        dataset: Its folder.
        scalings: Of the features that are one number a row.
        targets: How what is predicted is scaled; empty with labels.
        weights: Columns whose product is the weight of a row.
        labels: The folder and, by the paths of the dataset's parts, the parts of labels that take
            the place of the target; None to predict the target.
        tables: Of the columns of each table of lists.
        elements: That a row has of each table, on average; what memory is counted by.
    """

    dataset: Path
    scalings: tuple[Scaling, ...]
    targets: tuple[Scaling, ...]
    weights: tuple[str, ...]
    labels: tuple[Path, Mapping[str, Part]] | None = None
    tables: tuple[tuple[Scaling, ...], ...] = ()
    elements: tuple[float, ...] = ()

    @property
    def features(self) -> list[str]:
        """The names of the features, in the order of the columns of x."""
        return [scaling.name for scaling in self.scalings]

    @property
    def columns(self) -> list[str]:
        """The names of all columns that are read from a part."""
        targets = [target.name for target in self.targets]
        lists = [scaling.name for table in self.tables for scaling in table]
        return list(dict.fromkeys([*self.features, *lists, *targets, *self.weights]))

    @property
    def bytes_per_row(self) -> int:
        """Of the features, the tables, the targets and the weight, about."""
        numbers = len(self.scalings) + max(len(self.targets), 1) + 1
        of_tables = zip(self.tables, self.elements, strict=True)
        lists = sum(8 + 4 * len(table) * elements for table, elements in of_tables)
        return 4 * numbers + round(lists)

    def convert(self, table: pa.Table, path: str, first: int) -> "Converted":
        """The rows of a table as networks see them.

        Args:
            table: Of the columns.
            path: Of its part, for the message.
            first: Number of the table's first row in the part.

        Raises:
            UserError: A value is not finite after its transform.
        """
        columns = columns_of(table)
        with np.errstate(divide="ignore", invalid="ignore"):  # reported below, with the name
            x_NF = scale({name: columns[name] for name in self.features}, self.scalings)
            target_N = self._targets_of(columns, path, first)
        names = [target.name for target in self.targets] or [LABEL]
        named = zip(names, target_N.reshape(len(target_N), -1).T, strict=True)
        for name, values in [*zip(self.features, x_NF.T, strict=True), *named]:
            if not np.isfinite(values).all():
                bad = int(np.flatnonzero(~np.isfinite(values))[0])
                msg = (
                    f"{self.dataset / path}: row {first + bad}: {name} = {columns[name][bad]} is "
                    "not finite after its transform; cut such rows in `dataset`"
                )
                raise UserError(msg)
        lists = tuple(self._table_of(columns, scalings, path) for scalings in self.tables)
        return Converted(x_NF, target_N, self.weight_of(table), lists)

    def _table_of(
        self, columns: Mapping[str, np.ndarray], scalings: Sequence[Scaling], path: str
    ) -> Ragged:
        """A table's lists with all its columns scaled, values [E, C]."""
        lists = {s.name: each for s in scalings if (each := as_ragged(columns[s.name])) is not None}
        with np.errstate(divide="ignore", invalid="ignore"):
            x_EC = scale({name: each.values for name, each in lists.items()}, scalings)
        for scaling, values in zip(scalings, x_EC.T, strict=True):
            if not np.isfinite(values).all():
                msg = (
                    f"{self.dataset / path}: elements of {scaling.name} are not finite after their "
                    "transform; give it a floor in `dataset`"
                )
                raise UserError(msg)
        return Ragged(x_EC, lists[scalings[0].name].offsets)

    def _targets_of(self, columns: Mapping[str, np.ndarray], path: str, first: int) -> np.ndarray:
        if self.labels is None:
            target_NT = scale(columns, self.targets)
            return target_NT if len(self.targets) > 1 else target_NT[:, 0]
        folder, parts = self.labels
        label_N: np.ndarray = read_part(folder, parts[path], [LABEL])[LABEL].to_numpy()
        return label_N[first : first + len(columns[self.features[0]])]

    def weight_of(self, table: pa.Table) -> np.ndarray:
        """The weight [N] of each row of a table, float64."""
        weight_N = np.ones(len(table))
        for name in self.weights:
            weight_N *= table.column(name).to_numpy()
        return weight_N


class Converted(NamedTuple):
    """N rows as networks see them.

    Attributes:
        x_NF: Scaled features, float32.
        target_N: Scaled target or label; several as [N, T].
        weight_N: Weights, float64.
        tables: Lists of scaled columns, values [E, C].
    """

    x_NF: np.ndarray
    target_N: np.ndarray
    weight_N: np.ndarray
    tables: tuple[Ragged, ...]


class Gathered:
    """Rows of several tables of a dataset, one after the other, in memory that is taken once."""

    def __init__(self, recipe: Recipe, num_rows: int) -> None:
        self.recipe, self.first = recipe, 0
        num_targets = max(len(recipe.targets), 1)
        self.x_NF = np.empty((num_rows, len(recipe.scalings)), np.float32)
        self.target_N = np.empty(
            num_rows if num_targets == 1 else (num_rows, num_targets), np.float32
        )
        self.weight_N = np.empty(num_rows, np.float64)
        self.tables: list[tuple[Ragged, ...]] = []

    def add(self, found: Converted) -> None:
        """Take the next rows."""
        rows = slice(self.first, self.first + len(found.x_NF))
        self.x_NF[rows], self.target_N[rows], self.weight_N[rows] = found[:3]
        self.tables.append(found.tables)
        self.first = rows.stop

    def rows(self, weight_N: np.ndarray | None) -> TrainingRows:
        """What was taken, with these weights, float32."""
        tables = (join_lists(table) for table in zip(*self.tables, strict=True))
        return TrainingRows(
            torch.from_numpy(self.x_NF),
            torch.from_numpy(self.target_N),
            None if weight_N is None else torch.from_numpy(weight_N),
            tuple(
                TableRows(torch.from_numpy(each.values), torch.from_numpy(each.offsets))
                for each in tables
            ),
        )


@dataclass(frozen=True)
class RowGroup:
    """A row group of a part: its number, its rows, and the number of its first row."""

    path: str
    index: int
    rows: int
    first: int


@dataclass(frozen=True)
class StreamedRows:
    """The rows of one split on disk.

    Attributes:
        recipe: How columns become rows.
        groups: All row groups, in order.
        mean_weight: Of all rows.
        pool_rows: Rows of a pool, except that it has at least one row group.
        device: Where rows are given out.
    """

    recipe: Recipe
    groups: tuple[RowGroup, ...]
    mean_weight: float
    pool_rows: int
    device: torch.device | str = "cpu"

    @cached_property
    def _num_rows(self) -> int:
        return sum(group.rows for group in self.groups)

    def __len__(self) -> int:
        return self._num_rows

    @property
    def num_features(self) -> int:
        """Number F of features of a row."""
        return len(self.recipe.scalings)

    @property
    def num_targets(self) -> int:
        """Number T of targets of a row."""
        return max(len(self.recipe.targets), 1)

    @property
    def table_widths(self) -> tuple[int, ...]:
        """Number C of columns of each table of lists."""
        return tuple(map(len, self.recipe.tables))

    def to(self, device: torch.device) -> "StreamedRows":
        """The same rows, given out on a device."""
        return replace(self, device=device)

    def sampler(self, seed: int, epoch: int) -> Sampler:
        """The rows in the order of an epoch."""
        return _ShuffledSampler(self._pools(seed, epoch))

    def slabs(self, rank: int, world_size: int) -> Iterator[TrainingRows]:
        """This worker's share of the row groups, in order."""
        shares = [[group] for group in self.groups[rank::world_size]]
        return (rows.to(torch.device(self.device)) for rows in self._read_ahead(shares))

    def _pools(self, seed: int, epoch: int) -> Iterator[tuple[TrainingRows, Tensor]]:
        """The pools of an epoch, each with the order of its rows."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "row groups", epoch))
        order = torch.randperm(len(self.groups), generator=generator).tolist()
        shares = _share_out([self.groups[index] for index in order], self.pool_rows)
        for number, rows in enumerate(self._read_ahead(shares)):
            yield rows, permutation(len(rows), derive_seed(seed, "pool", number), epoch)

    def _read_ahead(self, shares: Sequence[Sequence[RowGroup]]) -> Iterator[TrainingRows]:
        with ThreadPoolExecutor(max_workers=1) as reader:
            pending = [reader.submit(self._read, share) for share in shares[:1]]
            for following in [*shares[1:], None]:
                rows = pending.pop().result()
                if following is not None:
                    pending.append(reader.submit(self._read, following))
                yield rows

    def _read(self, groups: Sequence[RowGroup]) -> TrainingRows:
        gathered = Gathered(self.recipe, sum(group.rows for group in groups))
        for group in groups:
            table = _read_group(self.recipe.dataset, group, self.recipe.columns)
            gathered.add(self.recipe.convert(table, group.path, group.first))
        return gathered.rows((gathered.weight_N / self.mean_weight).astype(np.float32))


class _ShuffledSampler:
    """Gives out the rows of consecutive pools; asked in the order of the steps."""

    def __init__(self, pools: Iterator[tuple[TrainingRows, Tensor]]) -> None:
        self.pools = pools
        self.begin = self.end = 0  # places of the pool's rows in the epoch
        self.rows: TrainingRows | None = None
        self.order_N = torch.empty(0, dtype=torch.int64)
        self.pieces: list[Tables] = []

    def __call__(self, steps: Sequence[StepRows], chunk: Chunk) -> None:
        """Fill the start of the chunk."""
        first, self.pieces = 0, []
        for step in steps:
            place, last = step.start, step.start + step.rows
            while place < last:
                while place >= self.end:
                    self._take_next()
                count = min(last, self.end) - place
                self._copy(place - self.begin, count, chunk, first)
                place, first = place + count, first + count
        chunk.set_tables(join_tables(self.pieces))

    def _take_next(self) -> None:
        self.rows = None  # its memory is needed for the next but one
        self.rows, self.order_N = next(self.pools)
        self.begin, self.end = self.end, self.end + len(self.rows)

    def _copy(self, start: int, count: int, chunk: Chunk, first: int) -> None:
        if self.rows is None or self.rows.weight_N is None:
            msg = "a pool has its rows and their weights"
            raise RuntimeError(msg)
        index, to = self.order_N[start : start + count], slice(first, first + count)
        chunk.x_NF[to].copy_(self.rows.x_NF[index])
        chunk.target_N[to].copy_(self.rows.target_N[index])
        chunk.weight_N[to].copy_(self.rows.weight_N[index])
        self.pieces.append(tuple(table.take(index) for table in self.rows.tables))


def open_stream(recipe: Recipe, parts: Sequence[Part], memory_mib: float) -> StreamedRows:
    """The rows of some parts, whose checksums are compared once.

    Args:
        recipe: How columns become rows.
        parts: Of one split.
        memory_mib: What a worker may use for rows.

    Raises:
        UserError: A part is not the one that the manifest lists.
    """
    groups: list[RowGroup] = []
    for part in parts:
        check_part(recipe.dataset, part)
        metadata = pq.read_metadata(recipe.dataset / part.path)
        first = 0
        for index in range(metadata.num_row_groups):
            rows = metadata.row_group(index).num_rows
            groups.append(RowGroup(part.path, index, rows, first))
            first += rows
    total = sum(
        recipe.weight_of(_read_group(recipe.dataset, group, recipe.weights)).sum()
        if recipe.weights
        else group.rows
        for group in groups
    )
    mean = float(total) / sum(group.rows for group in groups)
    pool_rows = int(memory_mib * 2**20 / (SHARES * recipe.bytes_per_row))
    require_positive_mean(mean, recipe.dataset, parts[0].split)
    return StreamedRows(recipe, tuple(groups), mean, pool_rows)


def require_positive_mean(mean: float, dataset: Path, split: str) -> float:
    """The mean weight of a split's rows.

    Raises:
        UserError: It is not positive; single weights may be negative.
    """
    if not (np.isfinite(mean) and mean > 0.0):
        msg = f"{dataset}: the weights of the {split} split have mean {mean}, expected more than 0"
        raise UserError(msg)
    return mean


def _read_group(dataset: Path, group: RowGroup, columns: Sequence[str]) -> pa.Table:
    with pq.ParquetFile(dataset / group.path) as file:
        return file.read_row_group(group.index, columns=list(columns), use_threads=False)


def _share_out(groups: Sequence[RowGroup], pool_rows: int) -> list[list[RowGroup]]:
    """The groups in pools, in order; only a pool of one group may have more than pool_rows."""
    pools: list[list[RowGroup]] = []
    rows = 0
    for group in groups:
        rows += group.rows
        if not pools or rows > pool_rows:
            pools.append([])
            rows = group.rows
        pools[-1].append(group)
    return pools
