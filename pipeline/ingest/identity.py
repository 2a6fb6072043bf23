"""A cluster's identity and the split that follows from it, both by hashing.

The hash is a chain of SplitMix64 finalisers (Steele, Lea, Flood 2014): every input bit moves
every output bit, on whole arrays, with no list position involved.
"""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.numerics.arrays import FloatArray, IntArray

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


def chain(ids: Ids, columns: Sequence[NDArray[Any]]) -> Ids:
    """Identities [N] that follow from others and from integer columns [N]."""
    for column in columns:
        ids = mix(ids ^ column.astype(np.int64).view(np.uint64))
    return ids


def ids_from_columns(columns: Sequence[NDArray[Any]]) -> Ids:
    """Identities [N] from integer columns [N] such as run and event."""
    return chain(np.zeros(len(columns[0]), dtype=np.uint64), columns)


def ids_from_file(file_uuid: str, entry: IntArray) -> Ids:
    """Identities [N] from a ROOT file's UUID and the entries [N] in it."""
    number = uuid.UUID(file_uuid).int
    words = np.array([[number >> 64], [number & (2**64 - 1)]], np.uint64)
    seed = mix(mix(words[0]) ^ words[1])
    return mix(seed ^ entry.view(np.uint64))


def uniform_of(ids: Ids, seed: int) -> FloatArray:
    """A number in [0, 1) for each identity; another seed gives an independent one."""
    salt = mix(np.array([seed % 2**64], np.uint64))
    return (mix(ids ^ salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
