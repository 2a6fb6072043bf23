"""Lists of rows as networks take them: the elements of all rows one after the other.

Shape letters: N rows, E elements, C columns of a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TableRows:
    """One table of N rows, each of which has any number of elements.

    Attributes:
        x_EC: Scaled columns of the elements.
        offsets: [N + 1], from 0: where the elements of each row begin.
    """

    x_EC: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> Tensor:
        """The number of each element's row [E]."""
        numbers = torch.arange(len(self), device=self.offsets.device)
        return numbers.repeat_interleave(self.offsets.diff())

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """What a network takes of a table: columns [E, C] and the row of each element [E]."""
        return self.x_EC, self.rows

    def to(self, device: torch.device | str) -> "TableRows":
        """The same elements on a device."""
        return TableRows(self.x_EC.to(device), self.offsets.to(device))

    def __getitem__(self, rows: slice) -> "TableRows":
        """Adjacent rows, as a view."""
        first, last, _ = rows.indices(len(self))
        offsets = self.offsets[first : max(last, first) + 1]
        return TableRows(self.x_EC[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, index_B: Tensor) -> "TableRows":
        """Rows by their numbers."""
        counts_B = self.offsets.diff()[index_B]
        offsets = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
        # Where each element comes from: the start of its row, and its place in it.
        shift_E = (self.offsets[index_B] - offsets[:-1]).repeat_interleave(counts_B)
        place_E = torch.arange(len(shift_E), device=shift_E.device) + shift_E
        return TableRows(self.x_EC[place_E], offsets)

    @staticmethod
    def join(pieces: Sequence["TableRows"]) -> "TableRows":
        """Rows one after the other."""
        counts = torch.cat([piece.offsets.diff() for piece in pieces])
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return TableRows(torch.cat([piece.x_EC for piece in pieces]), offsets)


Tables = tuple[TableRows, ...]


def join_tables(pieces: Sequence[Tables]) -> Tables:
    """Rows one after the other, table by table."""
    return tuple(TableRows.join(table) for table in zip(*pieces, strict=True))
