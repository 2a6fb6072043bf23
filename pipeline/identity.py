"""A cluster's identity and the split that follows from it, both by hashing.

The hash is a chain of SplitMix64 finalisers (Steele, Lea, Flood 2014): every input bit moves
every output bit, on whole arrays, with no list position involved.
"""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def mix(words: Ids) -> Ids:
    """SplitMix64 of each word; a bijection of 64-bit numbers."""
    words = words + _GAMMA  # wraps around, as it should
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    return words ^ (words >> np.uint64(31))


def ids_from_columns(columns: Sequence[NDArray[Any]]) -> Ids:
    """`cluster_id` [N] from integer columns such as run, event and index in the event."""
    ids = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        ids = mix(ids ^ column.astype(np.int64).view(np.uint64))
    return ids


def ids_from_file(file_uuid: str, start: int, stop: int, index: int = 0) -> Ids:
    """`cluster_id` [stop - start] from a ROOT file's UUID, the entry and the index in it."""
    number = uuid.UUID(file_uuid).int
    high, low = number >> 64, number & (2**64 - 1)
    seed = mix(mix(np.array([high], np.uint64)) ^ np.array([low], np.uint64))
    entries = mix(seed ^ np.arange(start, stop, dtype=np.uint64))
    return mix(entries ^ np.uint64(index))


def uniform_of(ids: Ids, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each identity; another seed gives an independent one."""
    salt = mix(np.array([seed % 2**64], np.uint64))
    return (mix(ids ^ salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
