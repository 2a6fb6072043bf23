"""Functions compiled by Numba on their first call and kept on disk.

No flag lets the compiler contract or reorder operations, so compiled code gives the same bits as
NumPy, and as the functions interpreted: NUMBA_DISABLE_JIT=1 runs them so, for a debugger.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

from pipeline.formats.kernel_cache import caching_kernels

KERNEL_FILES = ("compiled", "normals", "kernels")

_P = ParamSpec("_P")
_T = TypeVar("_T")


def element(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A formula for single numbers or whole arrays, compiled into the loop that calls it."""
    compile_it = numba.njit(nogil=True, error_model="numpy", forceinline=True)
    return cast("Callable[_P, _T]", compile_it(function))


def kernel(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function with a loop, compiled and kept on disk."""
    with caching_kernels(numba.config, Path(__file__).parent, KERNEL_FILES):
        compile_it = numba.njit(cache=True, nogil=True, error_model="numpy")
        return cast("Callable[_P, _T]", compile_it(function))
