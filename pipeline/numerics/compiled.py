"""Functions compiled by Numba on their first call and kept on disk."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

from pipeline.formats.kernel_cache import caching_kernels

# Kernels call one another only within their folder of the package, the group, or in what all groups
# share: an edit compiles the kernels of its group again and leaves the others in the cache.
SHARED = "numerics"
PACKAGE = Path(__file__).parents[1]

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


def kernel(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The function, compiled; products and sums may be contracted (fused multiply-add)."""
    return _compile(function, {"contract"})


def summing_kernel(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same with sums in any order, without which they do not become vector instructions.

    Within it nothing may depend on NaN or on the order of operations.
    """
    return _compile(function, {"contract", "reassoc", "nsz", "nnan"})


def exact_kernel(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The function, compiled so that each operation rounds as it does in NumPy."""
    return _compile(function, set())


def _compile(function: Callable[_P, _T], flags: set[str]) -> Callable[_P, _T]:
    _, _, place = function.__module__.partition(".")
    group = place.partition(".")[0] or SHARED  # a kernel of a script calls shared ones alone
    with caching_kernels(numba.config, PACKAGE, kernel_files(group)):
        compile_it = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)
        return cast("Callable[_P, _T]", compile_it(function))


def has_kernels(*groups: str) -> bool:
    """Whether this machine's cache holds kernels of each of these groups."""
    for group in (*groups, SHARED):
        with caching_kernels(numba.config, PACKAGE, kernel_files(group)):
            folder = Path(getattr(numba.config, "CACHE_DIR"))  # noqa: B009 - made from the environment
        if not any(folder.rglob("*.nbc")):
            return False
    return True


def tell_of_compiling(stage: str, *groups: str) -> None:
    """Say that a stage compiles kernels, if any of these groups has none in the cache."""
    if not has_kernels(*groups):
        log.info(
            "%s: compiles its kernels, once after an installation or update, a minute or two", stage
        )


@functools.cache
def kernel_files(group: str) -> tuple[str, ...]:
    """The files that the kernels of a folder of the package are compiled from."""
    folders = dict.fromkeys((SHARED, group))
    files = (path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py")))
    return tuple(
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in files
        if b"kernel" in path.read_bytes()
    )
