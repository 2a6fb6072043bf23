"""The names of accumulators."""

from typing import NamedTuple


class Key(NamedTuple):
    """What an accumulator holds: a figure of a set, by axis or for a population."""

    figure: str
    name: str
    where: str
