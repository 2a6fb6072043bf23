"""Functions compiled by Numba on their first call and kept on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

from pipeline.formats.kernels import caching_kernels

KERNEL_FILES = (
    "blocks",
    "compiled",
    "crps",
    "evaluation/binning",
    "evaluation/deviations",
    "evaluation/intervals",
    "evaluation/lanes",
    "evaluation/occupied",
    "evaluation/moment_sums",
    "evaluation/on_axes",
    "fastmath",
    "functionals",
    "lookup/bins",
    "masses",
    "mixture_moments",
    "mode_grid",
    "mode_peaks",
    "modes",
    "moment_edges",
    "quantile_guess",
    "quantiles",
)

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
    with caching_kernels(numba.config, Path(__file__).parent, KERNEL_FILES):
        compile_it = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)
        return cast("Callable[_P, _T]", compile_it(function))
