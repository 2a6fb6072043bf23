"""The numbers behind every figure, as tables that can be drawn without evaluating again."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.evaluation.accumulators import RATIO_IN, Key
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.rows import EVERYWHERE
from pipeline.evaluation.tables.histograms import HISTOGRAM_TABLES
from pipeline.evaluation.tables.profiles import PROFILE_TABLES
from pipeline.evaluation.tables.schemas import BlockTable, Row, RowTable, schema
from pipeline.evaluation.tables.scores import SCORE_TABLES, scored_by

# Roles of the calibrated sets in the table `sets`: one at most is the reference.
MODEL = "model"
REFERENCE = "reference"


def make_tables(evaluation: Evaluation) -> dict[str, pa.Table]:
    """By name, in long form: one row for each bin, set and axis or population."""
    return {name: table.make(evaluation) for name, table in TABLES.items()}


def _set_rows(evaluation: Evaluation) -> Iterator[Row]:
    """The calibrated sets, and which of them the others are compared with."""
    for name in evaluation.sets:
        is_reference = name == evaluation.plan.settings.reference
        role = REFERENCE if is_reference else MODEL
        ratio = evaluation.histograms[Key(RATIO_IN, name, EVERYWHERE)]
        yield {
            "set": name,
            "role": role,
            "scored_by": scored_by(evaluation, name),
            "rows": int(ratio.rows[0]),
            "rows_missing": int(ratio.outside[0]),
        }


def _axis_rows(evaluation: Evaluation) -> Iterator[Row]:
    for axis in evaluation.plan.axes_of("spectra"):
        truth = axis == evaluation.plan.truth_axis
        yield {
            "axis": axis.name,
            "column": axis.column,
            "unit": axis.unit,
            "scale": axis.scale,
            "closure_from": evaluation.plan.settings.closure_from if truth else None,
        }


TABLES: dict[str, RowTable | BlockTable] = {
    "sets": RowTable(schema("set role scored_by", "rows rows_missing"), _set_rows),
    "axes": RowTable(schema("axis column unit scale", real="closure_from"), _axis_rows),
    **PROFILE_TABLES,
    **SCORE_TABLES,
    **HISTOGRAM_TABLES,
}
