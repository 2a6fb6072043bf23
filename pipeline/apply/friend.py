"""Friend trees: calibrated columns beside an input's tree, entry by entry and vector by vector."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from pipeline.formats.files import replacing
from pipeline.numerics.arrays import Columns, IntArray

FRIEND_TREE = "topocal"
COUNTER = "nTopocal"  # the length of the vectors of an entry


def write_friend(
    path: Path,
    pieces: Iterable[tuple[Columns, IntArray]],
    entries: int | None,
    empty: Columns,
) -> None:
    """Write the friend tree of one input file.

    Args:
        path: The file to write.
        pieces: Columns [N] and the entry [N] of each row, in order.
        entries: Of the input, whose entries are events; None where each entry is one row.
        empty: The columns without rows, for their types.
    """
    with (
        replacing(path) as temporary,
        uproot.recreate(temporary, compression=uproot.LZ4(1)) as file,
    ):
        is_flat = entries is None
        first = empty if is_flat else _vectors(empty, np.zeros(0, np.int64), 0, 0)
        tree = file.mktree(
            FRIEND_TREE,
            {n: v.dtype if is_flat else ak.type(v).content for n, v in first.items()},
            counter_name=lambda _: COUNTER,
            field_name=lambda _, inner: inner,
        )
        if entries is None:
            for columns, _ in pieces:
                tree.extend(columns)
        else:
            for events in _events(pieces, entries, empty):
                tree.extend(events)


def _events(
    pieces: Iterable[tuple[Columns, IntArray]], entries: int, empty: Columns
) -> Iterator[dict[str, Any]]:
    """Whole events as vectors; the last event of a piece waits for the rest of its clusters."""
    first = 0
    held = empty
    held_entry = np.zeros(0, np.int64)
    for columns, entry in pieces:
        held = {name: np.concatenate([held[name], values]) for name, values in columns.items()}
        held_entry = np.concatenate([held_entry, entry])
        if not len(held_entry):
            continue
        last = int(held_entry[-1])
        ready = int(np.searchsorted(held_entry, last, side="left"))
        if last > first:
            yield _vectors({n: v[:ready] for n, v in held.items()}, held_entry[:ready], first, last)
        held = {n: v[ready:] for n, v in held.items()}
        held_entry = held_entry[ready:]
        first = last
    if entries > first:
        yield _vectors(held, held_entry, first, entries)


def _vectors(columns: Columns, entry: IntArray, first: int, last: int) -> dict[str, Any]:
    counts = np.bincount(entry - first, minlength=last - first)
    return {
        "clusters": ak.zip({name: ak.unflatten(values, counts) for name, values in columns.items()})
    }
