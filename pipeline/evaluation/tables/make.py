"""The numbers behind every figure, as tables that can be drawn without evaluating again."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline.evaluation.accumulators import Key
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.rows import EVERYWHERE
from pipeline.evaluation.tables import histograms, profiles, scores
from pipeline.evaluation.tables.schemas import (
    MODEL,
    REFERENCE,
    SCHEMAS,
    Row,
    table_of_blocks,
    table_of_rows,
)


def make_tables(evaluation: Evaluation) -> dict[str, pa.Table]:
    """By name, in long form: one row for each bin, set and axis or population."""
    rows: dict[str, Iterable[Row]] = {
        "sets": _set_rows(evaluation),
        "axes": _axis_rows(evaluation),
        "delta_e": profiles.profile_rows(evaluation, "delta_e"),
        "delta_r": profiles.profile_rows(evaluation, "delta_r"),
        "pull_profile": profiles.pull_profile_rows(evaluation),
        "score_profile": profiles.score_profile_rows(evaluation),
        "slice": profiles.slice_rows(evaluation),
        "selection": profiles.selection_rows(evaluation),
        "scores": scores.score_rows(evaluation),
        "coverage": scores.coverage_rows(evaluation),
        "pairs": scores.pair_rows(evaluation),
        "pull_fit": histograms.fit_rows(evaluation),
    }
    blocks: dict[str, Iterable[histograms.Block]] = {
        "spectrum": histograms.spectrum_blocks(evaluation),
        "window": histograms.window_blocks(evaluation),
        "plane": histograms.plane_blocks(evaluation),
        "map": histograms.map_blocks(evaluation),
        "pair_plane": histograms.pair_plane_blocks(evaluation),
    }
    for name, figures, bins in (
        ("pull", ("t_log", "t_tot"), histograms.PULL_DISPLAY_BINS),
        ("pit", ("pit",), histograms.PIT_DISPLAY_BINS),
        ("sigma", ("sigma_tot", "sigma_syst", "sigma_stat"), histograms.SIGMA_DISPLAY_BINS),
        ("sigma_ratio", ("sigma_ratio",), histograms.RATIO_DISPLAY_BINS),
        ("pair_sigma", ("pair_sigma",), histograms.PAIR_DISPLAY_BINS),
    ):
        blocks[name] = histograms.histogram_blocks(evaluation, figures, bins)
    made = {name: table_of_rows(given, SCHEMAS[name]) for name, given in rows.items()}
    made |= {name: table_of_blocks(given, SCHEMAS[name]) for name, given in blocks.items()}
    return {name: made[name] for name in SCHEMAS}


def _set_rows(evaluation: Evaluation) -> Iterator[Row]:
    """The calibrated sets, and which of them the others are compared with."""
    for name in evaluation.sets:
        is_reference = name == evaluation.plan.settings.reference
        role = REFERENCE if is_reference else MODEL
        ratio = evaluation.histograms[Key("ratio_in", name, EVERYWHERE)]
        yield {
            "set": name,
            "role": role,
            "scored_by": scores.scored_by(evaluation, name),
            "rows": int(ratio.rows[0]),
            "rows_missing": int(ratio.outside[0]),
        }


def _axis_rows(evaluation: Evaluation) -> Iterator[Row]:
    for axis in evaluation.plan.axes_of("spectrum"):
        truth = axis == evaluation.plan.truth_axis
        yield {
            "axis": axis.name,
            "column": axis.column,
            "unit": axis.unit,
            "scale": axis.scale,
            "closure_from": evaluation.plan.settings.closure_from if truth else None,
        }
