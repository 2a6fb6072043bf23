"""Rows for epochs that are so many updates long, however few or many rows there are.

The epochs follow each other along an endless row of permutations of the rows, so that all batches
are full and a small training set is trained as long as a large one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from training.data.rows import Chunk, Deal, Rows, Source
from training.steps.noise import StepRows


@dataclass(frozen=True)
class Passes:
    """The rows of a source, passed over as often as an epoch takes.

    Attributes:
        source: The rows.
        epoch_rows: Rows that an epoch sees.
    """

    source: Source
    epoch_rows: int

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_features(self) -> int:
        """F."""
        return self.source.num_features

    def to(self, device: torch.device) -> "Passes":
        """The same rows, given out on a device."""
        return replace(self, source=self.source.to(device))

    def slabs(self, rank: int, world_size: int) -> Iterator[Rows]:
        """This worker's share of the rows, in order."""
        return self.source.slabs(rank, world_size)

    def deal(self, seed: int, epoch: int) -> Deal:
        """The order of an epoch; it begins in the pass, and at the place, where the last ended."""
        begin, length = epoch * self.epoch_rows, len(self)
        current: list[tuple[int, Deal]] = []

        def pass_of(number: int) -> Deal:
            if not current or current[0][0] != number:
                current[:] = [(number, self.source.deal(seed, number))]
            return current[0][1]

        def fill(steps: Sequence[StepRows], chunk: Chunk) -> None:
            first = 0
            for step in steps:
                place, last = begin + step.start, begin + step.start + step.rows
                while place < last:
                    number, start = divmod(place, length)
                    rows = min(last - place, length - start)
                    rest = Chunk(*(column[first:] for column in chunk))
                    pass_of(number)([replace(step, start=start, rows=rows)], rest)
                    place, first = place + rows, first + rows

        return fill
