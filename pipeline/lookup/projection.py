"""Tables as they are drawn: the mean over all axes but the first two, for each bin of these."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.lookup.bins import edges_of
from pipeline.lookup.tables import CLASS, WEIGHT, Table, Tables

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
