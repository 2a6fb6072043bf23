"""The expressions of layouts: uproot's Python language with the functions that layouts need."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray
from uproot.language.python import PythonLanguage

from pipeline.formats.errors import UserError
from pipeline.formats.ragged import Ragged
from pipeline.numerics.arrays import IntArray

# EMB1-3, EME1-3 and FCAL0 in the numbering of CaloSampling; the presamplers (0 and 4) are not
# part of the fraction's numerator.
EM_SAMPLINGS = (1, 2, 3, 5, 6, 7, 21)
_PATTERN_BITS = 32


def em_fraction(e_sampl: Any, pattern: Any) -> Any:  # noqa: ANN401 - awkward is untyped
    """Fraction of a cluster's positive energy in the electromagnetic calorimeters.

    It is made from sums by layer, where Athena's ENG_FRAC_EM is made from cells: a layer whose
    cells nearly cancel counts differently.

    Args:
        e_sampl: Energies by layer [event, cluster, layer]; a cluster lists the layers it touches.
        pattern: Bit n is set where the cluster touches sampling n [event, cluster].

    Returns:
        [event, cluster]; NaN for a cluster without positive energy.

    Raises:
        UserError: A cluster's pattern names another number of layers than it has energies.
    """
    by_cluster = ak.flatten(e_sampl, axis=1)
    bits_N = ak.to_numpy(ak.flatten(pattern, axis=1)).astype(np.uint32)
    touched_NS = (bits_N[:, None] >> np.arange(_PATTERN_BITS, dtype=np.uint32)) & 1
    if not np.array_equal(touched_NS.sum(axis=1), ak.to_numpy(ak.num(by_cluster))):
        msg = "em_fraction: samplingPattern and e_sampl differ in their number of layers"
        raise UserError(msg)
    energy_NS = np.zeros(touched_NS.shape)
    energy_NS[touched_NS == 1] = np.maximum(ak.to_numpy(ak.flatten(by_cluster)), 0.0)
    with np.errstate(invalid="ignore"):
        fraction_N = energy_NS[:, EM_SAMPLINGS].sum(axis=1) / energy_NS.sum(axis=1)
    return ak.unflatten(fraction_N.astype(np.float32), ak.num(pattern))


def _sum(values: Any) -> Any:  # noqa: ANN401 - awkward is untyped
    """The sum over the innermost lists; of booleans, how many are true."""
    return ak.sum(values, axis=-1)


FUNCTIONS = {"em_fraction": em_fraction, "sum": _sum, "count": lambda x: ak.num(x, axis=-1)}
LANGUAGE = PythonLanguage({**PythonLanguage.default_functions, **FUNCTIONS})


def branches_of(expression: str, keys: Collection[str]) -> list[str] | None:
    """The branches that an expression reads; None where a tree with these keys lacks one.

    Raises:
        UserError: It is no expression.
    """
    try:
        found: list[str] = LANGUAGE.free_symbols(expression, keys, (), "", "")
    except uproot.KeyInFileError:
        return None
    except (SyntaxError, TypeError, ValueError) as error:
        msg = f"{expression!r} is no uproot expression ({str(error).splitlines()[0]})"
        raise UserError(msg) from None
    return found


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of an RNTuple with what uproot's language asks of a branch."""

    name: str
    cache_key: str
    parent: Any


def arrays_of(
    table: Any,  # noqa: ANN401 - uproot is untyped
    expressions: Sequence[str],
    entries: tuple[int, int],
    library: str,
) -> Mapping[str, Any]:
    """The values of expressions in the entries [first, last) of a tree, as `library` has them."""
    options = {"entry_start": entries[0], "entry_stop": entries[1], "library": library}
    if isinstance(table, uproot.TTree):
        found: Mapping[str, Any] = table.arrays(expressions, language=LANGUAGE, **options)
        return found
    # Of an RNTuple uproot reads fields only; expressions it leaves out without a word.
    keys = set(table.keys())
    used = {expression: branches_of(expression, keys) or [] for expression in expressions}
    names = sorted({name for fields in used.values() for name in fields})
    fields = table.arrays(filter_name=names, **options)
    context = [
        (
            expression,
            {
                "is_primary": True,
                "is_cut": False,
                "branches": [_Field(name, name, table) for name in used[expression]],
            },
        )
        for expression in expressions
    ]
    arrays = {name: fields[name] for name in names}
    values: Mapping[str, Any] = LANGUAGE.compute_expressions(
        table, arrays, context, keys, {}, "", ""
    )
    return values


def as_numbers(values: Any) -> NDArray[Any]:  # noqa: ANN401 - awkward is untyped
    """A flat awkward array as NumPy in native byte order, missing values as NaN.

    Raises:
        ValueError: It does not hold one number per entry.
    """
    if isinstance(values, ak.Array):
        if values.ndim != 1:
            raise ValueError("is not one number per entry")
        if ak.any(ak.is_none(values)):
            values = ak.fill_none(values, np.nan)
        values = ak.to_numpy(values)
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise ValueError("is not one number per entry")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_lists(values: Any) -> Ragged:  # noqa: ANN401 - awkward is untyped
    """An awkward array of lists of numbers.

    Raises:
        ValueError: It does not hold one list of numbers per entry.
    """
    if values.ndim != 2 or ak.any(ak.is_none(values)):
        raise ValueError("is not one list of numbers per entry")
    return Ragged.of_counts(as_numbers(ak.flatten(values, axis=1)), ak.to_numpy(ak.num(values)))


def lengths(values: Any, name: str) -> IntArray:  # noqa: ANN401 - awkward is untyped
    """Clusters of each event [entry].

    Raises:
        UserError: The column has one number an event.
    """
    if values.ndim < 2:
        msg = f"column {name} is one number an event; give it `level: event` in the layout"
        raise UserError(msg)
    return np.asarray(ak.to_numpy(ak.num(values, axis=1)), np.int64)
