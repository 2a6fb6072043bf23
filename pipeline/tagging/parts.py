"""What workers do with one part of a dataset: label it, score it, keep what is not tagged.

Shape letters: N rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.calibrators.calibrate import SLAB, calibrate_rows
from pipeline.calibrators.estimates import OnnxFile
from pipeline.calibrators.protocol import Calibrator
from pipeline.evaluation.axes import ResolvedAxis
from pipeline.formats.calibrated_set import LABEL, SCORE, TAGGED
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.manifest import Part, columns_of, read_part
from pipeline.numerics.arrays import Columns, Float32Array, FloatArray
from pipeline.parquet import write_part
from pipeline.simulators.registry import ExactDensity
from pipeline.tagging.labels import label_probability, label_rows
from pipeline.tagging.position_map import PositionMap
from pipeline.tagging.rates import TagRows, TagSummary
from pipeline.tagging.settings import LabelColumn, LabelSettings

PREDICTED = "predicted"  # column of what a first pass predicts, beside the labels


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """All that a worker needs to label one part.

    Attributes:
        dataset: Its folder.
        part: Of the dataset.
        folder: Where the labels are written.
        label: Their definition.
        target: What the dataset predicts.
        first_pass: The regression of the definition; None if it needs none.
    """

    dataset: Path
    part: Part
    folder: Path
    label: LabelSettings
    target: Target
    first_pass: Calibrator | None


def label_part(plan: LabelPlan) -> Part:
    """Write the labels of one part, and what the first pass predicts; runs on a worker."""
    named = plan.label.column if isinstance(plan.label, LabelColumn) else plan.target.name
    wanted = [IDENTITY, named]
    if plan.first_pass is not None:
        wanted += [plan.target.numerator, *plan.first_pass.inputs]
    table = read_part(plan.dataset, plan.part, list(dict.fromkeys(wanted)))
    rows = _arrays(table)
    predicted = None if plan.first_pass is None else _predict(plan.first_pass, rows)
    label = label_rows(plan.label, rows, plan.target, predicted)
    columns = {IDENTITY: table[IDENTITY], LABEL: label.astype(np.float32)}
    if predicted is not None:
        columns[PREDICTED] = predicted
    return write_part(plan.folder, plan.part.split, plan.part.index, pa.table(columns))


def _predict(model: Calibrator, rows: Columns) -> FloatArray:
    return calibrate_rows(model, rows)[model.target.name].astype(np.float64)


@dataclass(frozen=True, slots=True)
class SummaryPlan:
    """What is measured of tagged rows.

    Attributes:
        label: The definition of the label.
        component: The label that a simulated sample knows; None if it knows none.
        exact: The exact density of a simulated sample; None without.
        axes: For rates.
        position: Columns of x, y and z; None where the dataset lacks them.
        cell_mm: Width of a fine bin of the position.
    """

    label: LabelSettings
    component: LabelColumn | None
    exact: ExactDensity | None
    axes: tuple[ResolvedAxis, ...]
    position: tuple[str, str, str] | None
    cell_mm: float


@dataclass(frozen=True, slots=True)
class TagPlan:
    """All that a worker needs to score one part.

    Attributes:
        dataset: Its folder.
        part: Of the dataset.
        labels: Folder and part of its labels.
        model: The tagger.
        target: What the dataset predicts.
        weight: Column of the rows' weights; None for 1.
        folder: Where the tags are written.
        threshold: Of the score.
        summary: What is measured; None for nothing.
    """

    dataset: Path
    part: Part
    labels: tuple[Path, Part]
    model: OnnxFile
    target: Target
    weight: str | None
    folder: Path
    threshold: float = 1.0
    summary: SummaryPlan | None = None


Measured = tuple[TagSummary, PositionMap | None]


def ordinary_scores(plan: TagPlan) -> tuple[Float32Array, FloatArray]:
    """Scores and weights of a part's rows without the label; runs on a worker."""
    rows = _read_rows(plan, ())
    ordinary_N = rows[LABEL] == 0
    return _score(plan.model, rows)[ordinary_N], _weights(plan, rows)[ordinary_N]


def tag_part(plan: TagPlan) -> tuple[Part, Measured | None]:
    """Write the scores and tags of one part, and measure them; runs on a worker."""
    summary = plan.summary
    rows = _read_rows(plan, _measured_columns(summary))
    score_N = _score(plan.model, rows)
    tagged_N = score_N > np.float32(plan.threshold)
    written = pa.table({IDENTITY: rows[IDENTITY], SCORE: score_N, TAGGED: tagged_N})
    part = write_part(plan.folder, plan.part.split, plan.part.index, written)
    return part, None if summary is None else _measure(plan, summary, rows, score_N)


def _measured_columns(summary: SummaryPlan | None) -> tuple[str, ...]:
    if summary is None:
        return ()
    names = [axis.column for axis in summary.axes]
    names += [] if summary.exact is None else list(summary.exact.columns)
    names += [] if summary.component is None else [summary.component.column]
    return tuple(dict.fromkeys([*names, *(summary.position or ())]))


def _measure(plan: TagPlan, summary: SummaryPlan, rows: Columns, score_N: Float32Array) -> Measured:
    weight = None if plan.weight is None else rows[plan.weight].astype(np.float64)
    tagged_N = score_N > np.float32(plan.threshold)
    truths = {LABEL: rows[LABEL] > 0}
    if summary.component is not None:
        truths["component"] = label_rows(summary.component, rows, plan.target, None)
    exact = _exact_probabilities(summary, rows)
    measured = TagRows(
        bins={
            axis.name: np.searchsorted(axis.edges, rows[axis.column], side="right")
            for axis in summary.axes
        },
        weight=weight,
        is_tagged=tagged_N,
        truths=truths,
        scores={"tagger": score_N, **exact},
        shares=exact,
    )
    place = None
    if summary.position is not None:
        names, width = summary.position, summary.cell_mm
        place = PositionMap.of(rows, names, tagged_N, weight, width=width)
    return TagSummary.of(measured, summary.axes), place


def _exact_probabilities(summary: SummaryPlan, rows: Columns) -> dict[str, FloatArray]:
    """By name: the exact probabilities of the label, and of the component that is its cause."""
    if summary.exact is None:
        return {}
    mixtures = summary.exact.of_rows(rows)
    wanted = {"exact_label": summary.label, "exact_component": summary.component}
    predicted = rows.get(PREDICTED)
    found = {
        name: label_probability(label, mixtures, predicted)
        for name, label in wanted.items()
        if label is not None
    }
    return {name: values for name, values in found.items() if values is not None}


def _read_rows(plan: TagPlan, others: tuple[str, ...]) -> Columns:
    """Columns of the dataset and the labels of a part; their rows are the same clusters."""
    wanted = [IDENTITY, *plan.model.inputs, *others]
    wanted += [] if plan.weight is None else [plan.weight]
    rows = _arrays(read_part(plan.dataset, plan.part, list(dict.fromkeys(wanted))))
    labels = _arrays(read_part(*plan.labels))
    require_same_rows(plan.part, rows[IDENTITY], labels.pop(IDENTITY))
    return rows | labels


def require_same_rows(part: Part, here: NDArray[np.uint64], beside: NDArray[np.uint64]) -> None:
    """Check that what lies beside a part belongs to its rows.

    Raises:
        RuntimeError: It does not.
    """
    if not np.array_equal(here, beside):
        msg = f"{part.path}: what lies beside it belongs to other rows"
        raise RuntimeError(msg)


def _score(model: OnnxFile, rows: Columns) -> Float32Array:
    num_rows = len(rows[IDENTITY])
    slabs = [
        model.run(SCORE, {name: rows[name][first : first + SLAB] for name in model.inputs})
        for first in range(0, num_rows, SLAB)
    ]
    return np.concatenate(slabs)


def _weights(plan: TagPlan, rows: Columns) -> FloatArray:
    if plan.weight is None:
        return np.ones(len(rows[IDENTITY]))
    return np.asarray(rows[plan.weight], np.float64)


def _arrays(table: pa.Table) -> Columns:
    return columns_of(table)
