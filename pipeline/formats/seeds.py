"""Random generators made from (seed, purpose, index) and passed in; there is no global one."""

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit seed that depends on all arguments and on nothing else (not on rank or order)."""
    text = "/".join([str(seed), purpose, *map(str, index)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A NumPy generator for one purpose, for example ("simulate", file number)."""
    return np.random.Generator(np.random.SFC64(derive_seed(seed, purpose, *index)))
