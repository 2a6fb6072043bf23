"""The rows of one split, in memory, and the order in which epochs see them.

Shape letters: N rows, F features.

Epochs of a fixed number of updates sample without replacement, permutation after permutation, so
that all batches are full and a small training set is trained as long as a large one.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.formats.seeds import derive_seed
from training.steps.noise import StepRows
from training.steps.tables import TableRows, Tables, join_tables

SLAB_ROWS = 65_536  # of the rows that a reader gets at a time


class Chunk(NamedTuple):
    """Room for the rows of some steps: features, scaled targets, weights or ones, and tables.

    Tables have as many elements as their rows happen to have, and are new tensors each time.
    """

    x_NF: Tensor
    target_N: Tensor
    weight_N: Tensor
    tables: list[TableRows] | None = None

    def after(self, rows: int) -> "Chunk":
        """The room behind the first rows, with tables of its own."""
        return Chunk(self.x_NF[rows:], self.target_N[rows:], self.weight_N[rows:], [])

    def set_tables(self, tables: Tables) -> None:
        """Take the tables of all its rows."""
        if self.tables is not None:
            self.tables[:] = tables


@dataclass(frozen=True)
class TrainingRows:
    """Rows in memory.

    Attributes:
        x_NF: Scaled features.
        target_N: The scaled target; several as [N, T].
        weight_N: Weights with mean 1; None where every row counts the same.
        tables: Of lists.
    """

    x_NF: Tensor
    target_N: Tensor
    weight_N: Tensor | None
    tables: Tables = ()

    def __len__(self) -> int:
        return len(self.target_N)

    @property
    def num_features(self) -> int:
        """Number F of features of a row."""
        return self.x_NF.shape[1]

    @property
    def num_targets(self) -> int:
        """Number T of targets of a row."""
        return 1 if self.target_N.ndim == 1 else self.target_N.shape[1]

    @property
    def table_widths(self) -> tuple[int, ...]:
        """Number C of columns of each table."""
        return tuple(table.x_EC.shape[1] for table in self.tables)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a network takes: features, then columns and rows of each table's elements."""
        return (self.x_NF, *(each for table in self.tables for each in table.inputs))

    def to(self, device: torch.device) -> "TrainingRows":
        """The same rows on a device."""
        weight_N = None if self.weight_N is None else self.weight_N.to(device)
        tables = tuple(table.to(device) for table in self.tables)
        return TrainingRows(self.x_NF.to(device), self.target_N.to(device), weight_N, tables)

    def sampler(self, seed: int, epoch: int) -> "Sampler":
        """The order of an epoch: a permutation of all rows."""
        order_N = permutation(len(self), seed, epoch, self.x_NF.device)

        def fill(steps: Sequence[StepRows], chunk: Chunk) -> None:
            index = torch.cat([order_N[step.start : step.start + step.rows] for step in steps])
            count = len(index)
            torch.index_select(self.x_NF, 0, index, out=chunk.x_NF[:count])
            torch.index_select(self.target_N, 0, index, out=chunk.target_N[:count])
            if self.weight_N is not None:
                torch.index_select(self.weight_N, 0, index, out=chunk.weight_N[:count])
            chunk.set_tables(tuple(table.take(index) for table in self.tables))

        return fill

    def slabs(self, rank: int, world_size: int) -> Iterator["TrainingRows"]:
        """This worker's share of the rows, in order."""
        return itertools.islice(self.pieces(SLAB_ROWS), rank, None, world_size)

    def pieces(self, count: int) -> Iterator["TrainingRows"]:
        """All rows in order, so many at a time."""
        for first in range(0, len(self), count):
            part = slice(first, first + count)
            weight_N = None if self.weight_N is None else self.weight_N[part]
            tables = tuple(table[part] for table in self.tables)
            yield TrainingRows(self.x_NF[part], self.target_N[part], weight_N, tables)


Sampler = Callable[[Sequence[StepRows], Chunk], None]
"""Copies a worker's rows of some steps to the start of a chunk; asked in the order of the steps."""


class RowSource(Protocol):
    """The rows of one split, wherever they are."""

    def __len__(self) -> int: ...

    @property
    def num_features(self) -> int:
        """Number F of features of a row."""
        ...

    @property
    def num_targets(self) -> int:
        """Number T of targets of a row."""
        ...

    @property
    def table_widths(self) -> tuple[int, ...]:
        """Number C of columns of each table of lists."""
        ...

    def to(self, device: torch.device) -> "RowSource":
        """The same rows, given out on a device."""
        ...

    def sampler(self, seed: int, epoch: int) -> Sampler:
        """The rows in the order of an epoch, which depends on seed and epoch alone."""
        ...

    def slabs(self, rank: int, world_size: int) -> Iterator[TrainingRows]:
        """This worker's share of the rows, in order."""
        ...


def permutation(num_rows: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """The order of the rows in an epoch; it depends on nothing but the arguments."""
    generator = torch.Generator(device).manual_seed(derive_seed(seed, "permutation", epoch))
    return torch.randperm(num_rows, generator=generator, device=device)


@dataclass(frozen=True)
class Passes:
    """The rows of a source, passed over as often as an epoch takes.

    Attributes:
        source: The rows.
        epoch_rows: Rows that an epoch sees.
    """

    source: RowSource
    epoch_rows: int

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_features(self) -> int:
        """Number F of features of a row."""
        return self.source.num_features

    @property
    def num_targets(self) -> int:
        """Number T of targets of a row."""
        return self.source.num_targets

    @property
    def table_widths(self) -> tuple[int, ...]:
        """Number C of columns of each table of lists."""
        return self.source.table_widths

    def to(self, device: torch.device) -> "Passes":
        """The same rows, given out on a device."""
        return replace(self, source=self.source.to(device))

    def slabs(self, rank: int, world_size: int) -> Iterator[TrainingRows]:
        """This worker's share of the rows, in order."""
        return self.source.slabs(rank, world_size)

    def sampler(self, seed: int, epoch: int) -> Sampler:
        """The order of an epoch; it begins in the pass, and at the place, where the last ended."""
        begin, length = epoch * self.epoch_rows, len(self)
        current: list[tuple[int, Sampler]] = []

        def pass_of(number: int) -> Sampler:
            if not current or current[0][0] != number:
                current[:] = [(number, self.source.sampler(seed, number))]
            return current[0][1]

        def fill(steps: Sequence[StepRows], chunk: Chunk) -> None:
            first, pieces = 0, []
            for step in steps:
                place, last = begin + step.start, begin + step.start + step.rows
                while place < last:
                    number, start = divmod(place, length)
                    rows = min(last - place, length - start)
                    rest = chunk.after(first)
                    pass_of(number)([replace(step, start=start, rows=rows)], rest)
                    pieces.append(tuple(rest.tables or ()))
                    place, first = place + rows, first + rows
            chunk.set_tables(join_tables(pieces))

        return fill
