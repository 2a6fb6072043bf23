"""Functions compiled by Numba on their first call and kept on disk; without Numba as written.

No flag lets the compiler contract or reorder operations, so compiled code gives the same bits as
NumPy. Numba's cache looks at the file of a compiled function alone, so the machine code is kept
in a folder named after the contents of all files that hold kernels.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

try:
    import numba
except ModuleNotFoundError:
    numba = None  # type: ignore[assignment]

KERNEL_FILES = ("compiled", "normals", "kernels")
IS_COMPILED = numba is not None and not cast("Any", numba.config).DISABLE_JIT

_P = ParamSpec("_P")
_T = TypeVar("_T")


def element(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A formula for single numbers or whole arrays, compiled into the loop that calls it."""
    if not IS_COMPILED:
        return function
    compile_it = numba.njit(nogil=True, error_model="numpy", forceinline=True)
    return cast("Callable[_P, _T]", compile_it(function))


def kernel(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A loop, compiled."""
    if not IS_COMPILED:
        return function
    config = cast("Any", numba.config)  # its attributes are made from the environment
    before = config.CACHE_DIR
    config.CACHE_DIR = before or str(cache_folder())  # the user's own choice comes first
    try:
        compile_it = numba.njit(cache=True, nogil=True, error_model="numpy")
        return cast("Callable[_P, _T]", compile_it(function))
    finally:
        config.CACHE_DIR = before


def cache_folder() -> Path:
    """Where compiled kernels are kept; another one as soon as any kernel changes."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in KERNEL_FILES:
        digest.update((folder / f"{name}.py").read_bytes())
    return folder / "__pycache__" / f"kernels-{digest.hexdigest()[:16]}"
