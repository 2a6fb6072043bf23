"""Fitted tables: made from the sums over a training split, and kept as one Parquet file.

Bins with too few entries take their values from coarser bins; tables are drawn as their mean over
all axes but the first two.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.formats.errors import UserError
from pipeline.lookup.bins import Quantities, edges_of, values_at
from pipeline.lookup.settings import LookupTableSettings, TableAxis
from pipeline.lookup.sums import FineSums, TableSums
from pipeline.numerics.arrays import Columns, FloatArray, IntArray

Levels = NDArray[np.uint8]

# What a table's bins have when some of its last axes are left out: estimates [coarser bins].
Estimate = Callable[[int], FloatArray]


@dataclass(frozen=True, slots=True)
class FilledTable:
    """A value for each of B bins, and where it is from.

    Attributes:
        entries: [B] training rows in the bin itself.
        values: [B].
        levels: [B] 0: the bin's own entries; k < A: those of the bin without its last k of A axes;
            A: those of the nearest bin of the first axis; A + 1: those of all rows.
    """

    entries: IntArray
    values: FloatArray
    levels: Levels


def fill_table(
    entries: IntArray, estimate: Estimate, shape: Sequence[int], min_entries: int
) -> FilledTable:
    """The value of every bin from the finest bins that have enough entries.

    Args:
        entries: [B] training rows, the last axis running fastest.
        estimate: Given how many entries run into one coarser bin: their values [B / stride]; NaN
            where there is none.
        shape: Bins of each of A axes.
        min_entries: A bin with fewer is sparse.
    """
    values, levels = np.full(len(entries), np.nan), np.zeros(len(entries), np.uint8)
    coarse = np.full(shape[0], np.nan)
    for level in range(len(shape)):
        stride = int(np.prod(shape[len(shape) - level :]))
        coarse = estimate(stride)
        coarse[entries.reshape(-1, stride).sum(axis=1) < min_entries] = np.nan
        found = np.repeat(coarse, stride)
        new = np.isnan(values) & ~np.isnan(found)
        values[new], levels[new] = found[new], level
    missing = np.isnan(values)
    found = np.repeat(_nearest(coarse), len(entries) // shape[0])
    values[missing], levels[missing] = found[missing], len(shape)
    missing = np.isnan(values)
    values[missing], levels[missing] = estimate(len(entries))[0], len(shape) + 1
    return FilledTable(entries, values, levels)


def _nearest(values: FloatArray) -> FloatArray:
    """Each value that is NaN replaced by that of the nearest bin, the lower of two."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return values
    distance = np.abs(np.arange(len(values))[:, None] - known[None, :])
    return np.asarray(values[known[np.argmin(distance, axis=1)]])


def share_of(part: FloatArray, rest: FloatArray) -> Estimate:
    """Estimates part / (part + rest), from sums [B]."""

    def estimate(stride: int) -> FloatArray:
        above = part.reshape(-1, stride).sum(axis=1)
        total = above + rest.reshape(-1, stride).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, np.clip(above / total, 0.0, 1.0), np.nan)

    return estimate


def mean_of(values: FloatArray, weights: FloatArray) -> Estimate:
    """Estimates the weighted mean of something positive, from sums [B]."""

    def estimate(stride: int) -> FloatArray:
        above = values.reshape(-1, stride).sum(axis=1)
        below = weights.reshape(-1, stride).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Negative weights may leave a bin without a mean that is one.
            return np.where((below > 0) & (above > 0), above / below, np.nan)

    return estimate


def median_of(fine: FineSums, num_bins: int) -> Estimate:
    """Estimates the median of what fine bins hold in B bins."""

    def estimate(stride: int) -> FloatArray:
        return fine.medians(num_bins, stride)

    return estimate


CLASS, WEIGHT = "em_probability", "weight"
_AXES = b"axes"  # key of the axes in the file's own metadata
_AxesByTable = TypeAdapter(dict[str, tuple[TableAxis, ...]])


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its axes and a value for each bin."""

    axes: tuple[TableAxis, ...]
    filled: FilledTable

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of bins on each axis, in the order of the axes."""
        return tuple(axis.bins for axis in self.axes)

    def rows_by_level(self) -> dict[str, tuple[int, int]]:
        """By where values come from: bins that have entries, and their training rows."""
        names = ["own entries", *(_without(self.axes, k) for k in range(1, len(self.axes)))]
        names += [f"nearest bin of {self.axes[0].title}", "all rows"]
        seen = self.filled.entries > 0
        return {
            name: (int((seen & at).sum()), int(self.filled.entries[at].sum()))
            for level, name in enumerate(names)
            if (seen & (at := self.filled.levels == level)).any()
        }


@dataclass(frozen=True, slots=True)
class Tables:
    """The two tables of a calibration E [P + (1 - P) w]."""

    em_probability: Table
    weight: Table

    def probability_and_weight(self, columns: Columns) -> tuple[FloatArray, FloatArray]:
        """P_EM [N] and the weight of what is not electromagnetic [N]; NaN where a bin is unknown.

        Args:
            columns: The axes' columns [N].
        """
        axes = (*self.em_probability.axes, *self.weight.axes)
        quantities = Quantities.of(columns, axes)
        return (
            _gather(self.em_probability, quantities),
            _gather(self.weight, quantities),
        )

    def factors(self, columns: Columns) -> FloatArray:
        """P + (1 - P) w [N]: what the uncalibrated value is multiplied with."""
        probability, weight = self.probability_and_weight(columns)
        return np.asarray(probability + (1.0 - probability) * weight)


def _gather(table: Table, quantities: Quantities) -> FloatArray:
    return values_at(table.filled.values, quantities.bins(table.axes))


def make_tables(sums: TableSums, settings: LookupTableSettings) -> Tables:
    """The tables that follow from the sums over all training rows.

    Raises:
        UserError: One of the two classes has no rows.
    """
    totals = sums.em.weights.sum(), sums.other.weights.sum()
    if min(totals) <= 0:
        missing = "at least" if totals[0] <= 0 else "below"
        msg = (
            f"no training rows with {settings.em_label} {missing} em_from = {settings.em_from:g} "
            f"({sums.unlabelled} rows have no label); a look-up table needs both classes"
        )
        raise UserError(msg)
    scales = (1.0, 1.0)
    if settings.em_prior is not None:
        scales = (settings.em_prior / totals[0], (1 - settings.em_prior) / totals[1])
    probability = fill_table(
        sums.em.counts + sums.other.counts,
        share_of(sums.em.weights * scales[0], sums.other.weights * scales[1]),
        [axis.bins for axis in settings.class_axes],
        settings.min_entries,
    )
    ratios = sums.ratios
    assert ratios.values is not None  # noqa: S101 - of TableSums.of
    weight = fill_table(
        ratios.counts,
        mean_of(ratios.values, ratios.weights)
        if sums.fine is None
        else median_of(sums.fine, len(ratios.counts)),
        [axis.bins for axis in settings.weight_axes],
        settings.min_entries,
    )
    return Tables(Table(settings.class_axes, probability), Table(settings.weight_axes, weight))


def write_tables(tables: Tables, path: Path) -> None:
    """Write both tables into one Parquet file: table, bin, entries, value, level; axes beside."""
    named = {CLASS: tables.em_probability, WEIGHT: tables.weight}
    axes = {name: [axis.model_dump() for axis in table.axes] for name, table in named.items()}
    whole = pa.concat_tables([
        pa.table({
            "table": pa.array([name] * len(table.filled.values)).dictionary_encode(),
            "bin": np.arange(len(table.filled.values), dtype=np.int32),
            "entries": table.filled.entries,
            "value": table.filled.values,
            "level": table.filled.levels,
        })
        for name, table in named.items()
    ])
    whole = whole.replace_schema_metadata({_AXES: json.dumps(axes)})
    pq.write_table(whole, path, compression="zstd", compression_level=19)


def read_tables(path: Path) -> Tables:
    """The tables that `write_tables` has put into a Parquet file."""
    whole = pq.read_table(path, use_threads=False)
    axes = _AxesByTable.validate_json(whole.schema.metadata[_AXES])
    found = {}
    for name in (CLASS, WEIGHT):
        chosen = whole.filter(pa.compute.equal(whole["table"], name))
        filled = FilledTable(
            chosen["entries"].to_numpy(), chosen["value"].to_numpy(), chosen["level"].to_numpy()
        )
        found[name] = Table(axes[name], filled)
    return Tables(found[CLASS], found[WEIGHT])


def export_csv(table: Table) -> str:
    """The bins that have training rows, as text: edges of each axis, entries, value, level."""
    seen = np.flatnonzero(table.filled.entries)
    places = np.unravel_index(seen, table.shape)
    columns: dict[str, list[float]] = {}
    for axis, place in zip(table.axes, places, strict=True):
        edges = edges_of(axis)
        columns[f"{axis.title} from"] = edges[place].tolist()
        columns[f"{axis.title} to"] = edges[place + 1].tolist()
    columns |= {
        "entries": table.filled.entries[seen].tolist(),
        "value": table.filled.values[seen].tolist(),
        "level": table.filled.levels[seen].tolist(),
    }
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(f"{value:.9g}" for value in row) for row in rows)]
    return "\n".join(lines) + "\n"


def _without(axes: Sequence[TableAxis], dropped: int) -> str:
    return "without " + ", ".join(axis.title for axis in axes[len(axes) - dropped :])


SCHEMA = pa.schema([
    *((name, pa.string()) for name in ("model", "quantity", "x", "x_scale", "y", "y_scale")),
    *((name, pa.float64()) for name in ("x_low", "x_high", "y_low", "y_high", "value")),
    ("entries", pa.int64()),
])


def project_tables(models: Mapping[str, Tables]) -> pa.Table:
    """Long form, by model and quantity: bins of x and y, training rows, mean of their values.

    Bins without training rows are left out; a table of one axis has y = "" from 0 to 1.
    """
    rows: list[dict[str, Any]] = []
    for model, tables in models.items():
        for name, table in ((CLASS, tables.em_probability), (WEIGHT, tables.weight)):
            rows += [{"model": model, "quantity": name, **row} for row in _rows(table)]
    return pa.Table.from_pylist(rows, SCHEMA)


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    x, *others = table.axes
    x_edges = edges_of(x)
    y_edges = edges_of(others[0]) if others else np.array([0.0, 1.0])
    shape = (len(x_edges) - 1, len(y_edges) - 1, -1)
    entries = table.filled.entries.reshape(shape)
    sums = (entries * table.filled.values.reshape(shape)).sum(axis=2)
    totals = entries.sum(axis=2)
    names = {"x": x.title, "x_scale": x.scale, "y": "", "y_scale": ""}
    if others:
        names |= {"y": others[0].title, "y_scale": others[0].scale}
    for i, j in np.argwhere(totals > 0):
        yield names | {
            "x_low": x_edges[i],
            "x_high": x_edges[i + 1],
            "y_low": y_edges[j],
            "y_high": y_edges[j + 1],
            "value": sums[i, j] / totals[i, j],
            "entries": int(totals[i, j]),
        }
