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

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.formats.calibrated_set import LABEL
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import Part, check_part, columns_of, read_part
from pipeline.formats.seeds import derive_seed
from pipeline.formats.transforms import Scaling, scale
from training.data.rows import Chunk, Sampler, TrainingRows, permutation
from training.steps.noise import StepRows

SHARES = 3  # of the memory: the pool in use, the one being read, what reading needs


@dataclass(frozen=True)
class Recipe:
    """How the columns of a dataset become rows.

    Attributes:
        dataset: Its folder.
        scalings: Of the features.
        targets: How what is predicted is scaled; empty with labels.
        weights: Columns whose product is the weight of a row.
        labels: The folder and, by the paths of the dataset's parts, the parts of labels that take
            the place of the target; None to predict the target.
    """

    dataset: Path
    scalings: tuple[Scaling, ...]
    targets: tuple[Scaling, ...]
    weights: tuple[str, ...]
    labels: tuple[Path, Mapping[str, Part]] | None = None

    @property
    def features(self) -> list[str]:
        """The names of the features, in the order of the columns of x."""
        return [scaling.name for scaling in self.scalings]

    @property
    def columns(self) -> list[str]:
        """The names of all columns that are read from a part."""
        targets = [target.name for target in self.targets]
        return list(dict.fromkeys([*self.features, *targets, *self.weights]))

    @property
    def bytes_per_row(self) -> int:
        """Of the features, the targets and the weight."""
        return 4 * (len(self.scalings) + max(len(self.targets), 1) + 1)

    def convert(
        self, table: pa.Table, path: str, first: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scaled features and targets or the labels, and weights of a table.

        Targets are [N], several [N, T].

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
        return x_NF, target_N, self.weight_of(table)

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
        num_rows = sum(group.rows for group in groups)
        x_NF = np.empty((num_rows, self.num_features), dtype=np.float32)
        target_N = empty_targets(num_rows, self.num_targets)
        weight_N = np.empty(num_rows, np.float32)
        first = 0
        for group in groups:
            rows = slice(first, first + group.rows)
            table = _read_group(self.recipe.dataset, group, self.recipe.columns)
            x_NF[rows], target_N[rows], weight = self.recipe.convert(table, group.path, group.first)
            weight_N[rows] = weight / self.mean_weight
            first += group.rows
        return TrainingRows(
            torch.from_numpy(x_NF), torch.from_numpy(target_N), torch.from_numpy(weight_N)
        )


class _ShuffledSampler:
    """Gives out the rows of consecutive pools; asked in the order of the steps."""

    def __init__(self, pools: Iterator[tuple[TrainingRows, Tensor]]) -> None:
        self.pools = pools
        self.begin = self.end = 0  # places of the pool's rows in the epoch
        self.rows: TrainingRows | None = None
        self.order_N = torch.empty(0, dtype=torch.int64)

    def __call__(self, steps: Sequence[StepRows], chunk: Chunk) -> None:
        """Fill the start of the chunk."""
        first = 0
        for step in steps:
            place, last = step.start, step.start + step.rows
            while place < last:
                while place >= self.end:
                    self._take_next()
                count = min(last, self.end) - place
                self._copy(place - self.begin, count, chunk, first)
                place, first = place + count, first + count

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


def empty_targets(num_rows: int, num_targets: int) -> np.ndarray:
    """Room for the targets of some rows, [N], or [N, T] of several."""
    return np.empty(num_rows if num_targets == 1 else (num_rows, num_targets), np.float32)


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
