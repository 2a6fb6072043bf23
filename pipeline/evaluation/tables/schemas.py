"""Columns of the tables that an evaluation writes and a report reads.

In a table what is not known is missing, and never a number.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def _schema(text: str = "", whole: str = "", real: str = "") -> pa.Schema:
    """Columns by type, in this order: text, whole numbers, real numbers; all may be missing."""
    kinds = ((text, pa.string()), (whole, pa.int64()), (real, pa.float64()))
    return pa.schema([(name, kind) for names, kind in kinds for name in names.split()])


_HISTOGRAM = _schema("figure set population", "rows", "low high fraction fraction_error")
_MEDIAN = (
    "low high effective_rows median median_error median_bound left68 right68 width68 width68_error "
    "width68_bound "
)
_PROFILE = _MEDIAN + (
    "sigma_rel sigma_rel_error median_minus_reference mean mean_error mean_truncated "
    "mean_truncated_error"
)
_MEANS = "nll nll_error nll_excess nll_excess_error "
_COVERAGE = "coverage68 coverage68_error coverage95 coverage95_error "

# Roles of the calibrated sets in the table `sets`: one at most is the reference.
MODEL = "model"
REFERENCE = "reference"

SCHEMAS: dict[str, pa.Schema] = {
    "sets": _schema("set role scored_by", "rows rows_missing"),
    "axes": _schema("axis column unit scale", real="closure_from"),
    "spectrum": _schema(
        "axis class", "rows", "low high weight weight_error fraction fraction_error"
    ),
    "plane": _schema("axis set", "rows", "low high target_low target_high weight"),
    "delta_r": _schema("axis set", "rows rows_missing", _PROFILE),
    "delta_e": _schema("axis set", "rows rows_missing", _PROFILE),
    "pair_plane": _schema("figure set", "rows", "low high other_low other_high weight"),
    "pair_sigma": _HISTOGRAM,
    "pairs": _schema(
        "set population",
        "rows",
        "correlation_t_log correlation_sigma_rel sigma_median sigma_core_mean sigma_core_left "
        "sigma_core_right sigma_below sigma_inside sigma_above",
    ),
    "pull": _HISTOGRAM,
    "pull_fit": _schema(
        "figure set population",
        real="mean left right mean_error left_error right_error height low high",
    ),
    "pull_profile": _schema("axis set", "rows rows_missing", _MEDIAN),
    "sigma": _HISTOGRAM,
    "map": _schema("set", "rows", "low high r_low r_high weight"),
    "window": _schema("set axis", "rows", "low high weight fraction"),
    "slice": _schema(
        "axis set", "rows", "at slice_low slice_high low high fraction fraction_error"
    ),
    "selection": _schema(
        "set ranked_by",
        "rows",
        "kept threshold median sigma_rel sigma_rel_error tail_below tail_above",
    ),
    "scores": _schema(
        "set population",
        "rows rows_without_density rows_crps",
        _MEANS
        + "pit_ks "
        + _COVERAGE
        + "in_domain in_domain_error sigma_log10_ratio_median sigma_tot_median "
        "sigma_syst_median sigma_stat_median sigma_rel sharpness68 sharpness95 crps crps_error "
        "crps_excess crps_excess_error",
    ),
    "score_profile": _schema(
        "axis set",
        "rows",
        "low high "
        + _MEANS
        + _COVERAGE
        + "sharpness68 sharpness68_error crps crps_error crps_excess crps_excess_error pit_ks",
    ),
    "coverage": _schema("set population", "rows", "nominal coverage coverage_error"),
    "pit": _HISTOGRAM,
    "sigma_ratio": _HISTOGRAM,
}


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
