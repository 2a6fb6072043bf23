"""Functions compiled by Numba on their first call and kept on disk; without Numba as written.

No flag lets the compiler contract or reorder operations, so compiled code gives the same bits as
NumPy.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from pipeline.formats.kernel_cache import caching_kernels

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
    with caching_kernels(numba.config, Path(__file__).parent, KERNEL_FILES):
        compile_it = numba.njit(cache=True, nogil=True, error_model="numpy")
        return cast("Callable[_P, _T]", compile_it(function))
