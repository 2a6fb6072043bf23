"""Where Numba keeps machine code.

Its cache looks at the file of the compiled function alone, so after an update of a function that
it calls it would go on with the old machine code. Kernels are therefore cached in a folder named
after the contents of all files that hold kernels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any


@contextmanager
def caching_kernels(config: Any, folder: Path, names: Sequence[str]) -> Iterator[None]:  # noqa: ANN401 - Numba's attributes are made from the environment
    """What is compiled within is cached below the folder; the user's own choice comes first.

    Args:
        config: `numba.config`.
        folder: Of a package.
        names: Its files with kernels, without their ending.
    """
    before = config.CACHE_DIR
    config.CACHE_DIR = before or str(_cache_folder(folder, tuple(names)))
    try:
        yield
    finally:
        config.CACHE_DIR = before


@cache  # once for all kernels of a group, not once for each
def _cache_folder(folder: Path, names: tuple[str, ...]) -> Path:
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / f"{name}.py").read_bytes())
    return folder / "__pycache__" / f"kernels-{digest.hexdigest()[:16]}"
