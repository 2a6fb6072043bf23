"""Functions compiled by Numba on their first call and kept on disk.

Numba's cache looks at the file of the compiled function alone, so after an update of a function
that it calls it would go on with the old machine code. The kernels are therefore cached in a
folder named after the contents of all files that hold kernels.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

KERNEL_FILES = (
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


def cache_folder() -> Path:
    """Where compiled kernels are kept; another one as soon as any kernel changes."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in KERNEL_FILES:
        digest.update((folder / f"{name}.py").read_bytes())
    return folder / "__pycache__" / f"kernels-{digest.hexdigest()[:16]}"


def _compile(function: Callable[_P, _T], flags: set[str]) -> Callable[_P, _T]:
    config = cast("Any", numba.config)  # its attributes are made from the environment
    before = config.CACHE_DIR
    config.CACHE_DIR = before or str(cache_folder())  # the user's own choice comes first
    try:
        compile_it = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)
        return cast("Callable[_P, _T]", compile_it(function))
    finally:
        config.CACHE_DIR = before
