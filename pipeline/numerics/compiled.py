"""Functions compiled by Numba on their first call and kept on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

from pipeline.formats.kernel_cache import caching_kernels

# Kernels call one another only within a group or in what all groups share, so an edit compiles the
# kernels of its group again and leaves the others in the cache.
SHARED = ("numerics/compiled", "numerics/special")
GROUPS = {
    "pipeline.densities": tuple(
        f"densities/gaussian_mixture/{name}"
        for name in (
            "components",
            "crps",
            "functionals",
            "mode_grid",
            "modes",
            "moments",
            "network_outputs",
            "quantiles",
        )
    ),
    "pipeline.evaluation": ("evaluation/fill",),
    "pipeline.lookup": ("lookup/bins",),
    "pipeline.statistics": tuple(
        f"statistics/{name}"
        for name in (
            "binning",
            "distribution",
            "moments",
            "sparse_histogram",
            "sums_on_axes",
        )
    ),
}
PACKAGE = Path(__file__).parents[1]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def kernel(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The function, compiled."""
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
    group = ".".join(function.__module__.split(".")[:2])
    with caching_kernels(numba.config, PACKAGE, (*SHARED, *GROUPS.get(group, ()))):
        compile_it = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)
        return cast("Callable[_P, _T]", compile_it(function))
