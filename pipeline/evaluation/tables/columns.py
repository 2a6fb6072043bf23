"""Tables from blocks of columns, in which what is not known is missing and never a number."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

Row = dict[str, Any]


def table_of_rows(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """A table from its rows; a key that a row lacks, None and NaN are missing values."""
    given = list(rows)
    columns = [
        pa.array([row.get(field.name) for row in given], field.type, from_pandas=True)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def table_of_blocks(blocks: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table from blocks of rows, whose columns are arrays [N] or one value for all rows."""
    tables = []
    for block in blocks:
        length = max(len(value) for value in block.values() if isinstance(value, np.ndarray))
        columns = [_column(block.get(field.name), field.type, length) for field in schema]
        tables.append(pa.Table.from_arrays(columns, schema=schema))
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def _column(value: object, kind: pa.DataType, length: int) -> pa.Array:
    if isinstance(value, np.ndarray):
        return pa.array(value, kind, from_pandas=True)
    return pa.array([value] * length, kind, from_pandas=True)
