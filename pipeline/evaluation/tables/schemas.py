"""What a table of an evaluation is: its columns, and the function that fills it.

In a table what is not known is missing, and never a number.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.evaluation.evaluation import Evaluation

Row = dict[str, Any]
Block = dict[str, Any]


def schema(text: str = "", whole: str = "", real: str = "") -> pa.Schema:
    """Columns by type, in this order: text, whole numbers, real numbers; all may be missing."""
    kinds = ((text, pa.string()), (whole, pa.int64()), (real, pa.float64()))
    return pa.schema([(name, kind) for names, kind in kinds for name in names.split()])


@dataclass(frozen=True, slots=True)
class RowTable:
    """A table that is made row by row.

    Attributes:
        schema: Its columns; keys of a row that are none of them are left out.
        rows: Its rows; a key that a row lacks, None and NaN are missing values.
    """

    schema: pa.Schema
    rows: Callable[[Evaluation], Iterable[Row]]

    def make(self, evaluation: Evaluation) -> pa.Table:
        """The Arrow table of an evaluation, with exactly the columns of the schema."""
        given = list(self.rows(evaluation))
        columns = [
            pa.array([row.get(field.name) for row in given], field.type, from_pandas=True)
            for field in self.schema
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)


@dataclass(frozen=True, slots=True)
class BlockTable:
    """A table that is made of blocks of rows.

    Attributes:
        schema: Its columns.
        blocks: Columns of each block, as arrays [N] or one value for all of its rows.
    """

    schema: pa.Schema
    blocks: Callable[[Evaluation], Iterable[Block]]

    def make(self, evaluation: Evaluation) -> pa.Table:
        """The Arrow table of an evaluation, with exactly the columns of the schema."""
        tables = [self._table_of(block) for block in self.blocks(evaluation)]
        return pa.concat_tables(tables).combine_chunks() if tables else self.schema.empty_table()

    def _table_of(self, block: Mapping[str, Any]) -> pa.Table:
        length = max(len(value) for value in block.values() if isinstance(value, np.ndarray))
        columns = [_column(block.get(field.name), field.type, length) for field in self.schema]
        return pa.Table.from_arrays(columns, schema=self.schema)


def _column(value: object, kind: pa.DataType, length: int) -> pa.Array:
    if isinstance(value, np.ndarray):
        return pa.array(value, kind, from_pandas=True)
    return pa.array([value] * length, kind, from_pandas=True)
