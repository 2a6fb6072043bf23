"""Tables of texts, for a person at a terminal."""

from collections.abc import Sequence
from typing import NamedTuple


class TextTable(NamedTuple):
    """A table of texts."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
