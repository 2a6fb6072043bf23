"""The tables of an evaluation as UHI histograms, which `mplhep`, `hist` and others draw.

UHI's protocol for histograms that can be plotted: axes, kind, values, variances, counts
(https://uhi.readthedocs.io).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.formats.errors import UserError
from pipeline.numerics.arrays import FloatArray


class Traits(NamedTuple):
    """Bins of an axis neither begin anew at its end nor stand for single values."""

    circular: bool = False
    discrete: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PlottableAxis:
    """An axis of bins without flow.

    Attributes:
        edges: [B + 1], rising, in the unit of the axis.
        label: Name of what is binned.
    """

    edges: FloatArray
    label: str

    @property
    def traits(self) -> Traits:
        """What kind of axis it is."""
        return Traits()

    def __len__(self) -> int:
        return len(self.edges) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[float, float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[float, float]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        pairs = list(self)
        return pairs[index]

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return zip(self.edges[:-1].tolist(), self.edges[1:].tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlottableAxis) and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash(self.edges.tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class TableHistogram:
    """A histogram in one or two dimensions.

    Attributes:
        axes: One or two.
        kind: "COUNT" where the values add up, as weights do; "MEAN" where they are estimates.
    """

    axes: tuple[PlottableAxis, ...]
    kind: str
    _values: FloatArray
    _errors: FloatArray | None
    _rows: FloatArray

    def values(self) -> FloatArray:
        """The values [B] or [X, Y]; where the table has no bin 0 of a "COUNT", NaN of a "MEAN"."""
        return self._values

    def variances(self) -> FloatArray | None:
        """Squares of the values' errors; of a "MEAN" times the rows, as UHI defines them."""
        if self._errors is None:
            return None
        squares = self._errors**2
        return squares * self._rows if self.kind == "MEAN" else squares

    def counts(self) -> FloatArray:
        """The number of rows in each bin."""
        return self._rows


COUNTS = ("rows", "weight", "fraction")  # columns whose values add up


def histogram_of(table: pa.Table, value: str, chosen: Mapping[str, str]) -> TableHistogram:
    """Some rows of a table of an evaluation as a histogram.

    Args:
        table: Of `metrics/NAME.parquet`, with columns `low` and `high`, in two dimensions also
            those of another name that end so.
        value: The column that is shown; its error is that of the same name with `_error`.
        chosen: By column, such as `set` and `axis`: the rows that belong to the histogram.

    Raises:
        UserError: There is no such column, or no such row, or two rows have the same bin.
    """
    for name in (value, "low", *chosen):
        if name not in table.column_names:
            msg = f"the table has no column {name}; it has {', '.join(table.column_names)}"
            raise UserError(msg)
    for name, wanted in chosen.items():
        known = sorted(set(table[name].to_pylist()))
        table = table.filter(pc.equal(table[name], wanted))
        if not table.num_rows:
            msg = f"no row has {wanted} as {name}; there are {', '.join(map(str, known)) or 'none'}"
            raise UserError(msg)
    others = [name for name in table.column_names if name.endswith("_low")]
    lows = [
        "low",
        *(name for name in others if name.replace("_low", "_high") in table.schema.names),
    ]
    axes = tuple(_axis(table, low) for low in lows)
    place = tuple(
        np.searchsorted(axis.edges, _numbers(table, low))
        for axis, low in zip(axes, lows, strict=True)
    )
    kind = "COUNT" if value in COUNTS else "MEAN"
    shape = tuple(len(axis) for axis in axes)
    error = f"{value}_error"
    rows = _spread(_numbers(table, "rows"), place, shape, 0.0)
    if len(set(zip(*(at.tolist() for at in place), strict=True))) < table.num_rows:
        left = [
            name for name in ("set", "axis", "figure", "population", "class") if name not in chosen
        ]
        names = ", ".join(name for name in left if name in table.column_names)
        msg = f"several rows have the same bin; choose among {names} as well"
        raise UserError(msg)
    nothing = 0.0 if kind == "COUNT" else np.nan
    return TableHistogram(
        axes=axes,
        kind=kind,
        _values=_spread(_numbers(table, value), place, shape, nothing),
        _errors=_spread(_numbers(table, error), place, shape, nothing)
        if error in table.column_names
        else None,
        _rows=rows,
    )


def _axis(table: pa.Table, low: str) -> PlottableAxis:
    high = low.replace("low", "high")
    edges = np.unique(np.concatenate([_numbers(table, low), _numbers(table, high)]))
    return PlottableAxis(edges, low.removesuffix("low").removesuffix("_"))


def _numbers(table: pa.Table, name: str) -> FloatArray:
    """A column in float64; missing values are NaN."""
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _spread(
    values: FloatArray, place: tuple[Any, ...], shape: tuple[int, ...], nothing: float
) -> FloatArray:
    dense = np.full(shape, nothing)
    dense[place] = values
    return dense
