"""Reduce the calibrated sets to binned metrics and headline figures, beside the truth.

Run: topocal evaluate STUDY.yaml
Reads <output>/dataset and <output>/calibrated/*; writes <output>/metrics/*.parquet,
summary.json and, last, manifest.json; of several targets each into <output>/metrics/TARGET.
"""

import functools
import json
import logging
import operator
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client

from jobs.calibrate import (
    ORACLE,
    CalibrationSource,
    calibrated_folder,
    find_sources,
    judged_views,
    open_set,
)
from jobs.farm.dask import open_farm
from jobs.ingest import dataset_folder, open_dataset
from jobs.launch import Run, run_job
from jobs.study import Study
from jobs.targets import place_of, stage_of, views_of
from pipeline.evaluation.baseline import BaselineHistogram
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.external import (
    chunks_of,
    complete,
    external_columns,
    identity_of,
    stage_chunk,
)
from pipeline.evaluation.plan import (
    EvaluationPlan,
    NeededColumns,
    check_names,
    needed_columns,
    plan_evaluation,
)
from pipeline.evaluation.rows import RESERVED_SETS
from pipeline.evaluation.settings import ExternalSet
from pipeline.evaluation.summary import summarise
from pipeline.evaluation.tables.make import make_tables
from pipeline.fold import MERGE_WIDTH, batched, fold, map_parts
from pipeline.formats.calibrated_set import CalibratedManifest
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.errors import UserError
from pipeline.formats.files import write_text
from pipeline.formats.folders import replacing_folder
from pipeline.formats.manifest import MANIFEST, DatasetManifest, Part, columns_of, read_part
from pipeline.formats.records import OutputRecord
from pipeline.formats.versions import fingerprint
from pipeline.numerics.arrays import Columns
from pipeline.numerics.compiled import tell_of_compiling
from pipeline.parquet import ROW_GROUP

log = logging.getLogger(__name__)


VERSION = 5  # raised when the same calibrated sets give other figures
SUMMARY = "summary.json"
EXTERNAL = "external"  # a folder for the time of the evaluation


class MetricsManifest(OutputRecord):
    """The tables of an evaluation, by name with their size; written last."""

    tables: dict[str, int]
    summary: dict[str, float]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each table, by its path."""
        return {f"{name}.parquet": size for name, size in self.tables.items()}


@dataclass(frozen=True, slots=True)
class AlignedPart:
    """One part of the dataset and the parts of the calibrated sets that belong to its rows."""

    dataset: Path
    part: Part
    calibrated: dict[str, "SetPart"]
    number: int = 0
    external: dict[str, "ExternalPart"] = field(default_factory=dict)


class SetPart(NamedTuple):
    """One part of a calibrated set, and the columns that the set has."""

    folder: Path
    part: Part
    columns: tuple[str, ...]


class ExternalPart(NamedTuple):
    """The staged chunks of an external set."""

    given: ExternalSet
    folders: tuple[Path, ...]


def metrics_folder(study: Study, manifest: DatasetManifest) -> Path:
    """Where the metrics of a study are, for the target of a view of the dataset."""
    return place_of(study.folder / "metrics", manifest)


def open_metrics(study: Study, manifest: DatasetManifest) -> MetricsManifest:
    """The manifest of the study's evaluation.

    Raises:
        UserError: It is missing, incomplete or of other calibrated sets or settings.
    """
    folder = metrics_folder(study, manifest)
    metrics = MetricsManifest.load(folder / MANIFEST, made_by="evaluate")
    sets = _open_sets(study, manifest, find_sources(study, manifest))
    if metrics.fingerprint != _fingerprint(study, manifest, sets):
        msg = f"{folder}: made from other calibrated sets or settings; run `topocal evaluate` again"
        raise UserError(msg)
    metrics.require_files(folder, made_by="evaluate")
    return metrics


def main(study: Study, run: Run) -> None:
    """Evaluate every calibrated set of the study, of each target in one pass over the test rows."""
    manifest = open_dataset(study)
    for view in judged_views(study, manifest) or views_of(manifest):
        _evaluate_target(study, run, view)


def _evaluate_target(study: Study, run: Run, manifest: DatasetManifest) -> None:
    folder, stage = metrics_folder(study, manifest), stage_of("evaluate", manifest)
    manifest.require_target()
    sources = find_sources(study, manifest)
    sets = _open_sets(study, manifest, sources)
    check_names(study.evaluate, sets, RESERVED_SETS)
    wanted = _fingerprint(study, manifest, sets)
    if run.keeps(stage, folder / MANIFEST, MetricsManifest, wanted):
        _tell(stage, MetricsManifest.load(folder / MANIFEST, made_by="evaluate").summary)
        return
    tell_of_compiling("evaluate", "evaluation", "statistics")
    with replacing_folder(folder) as new:
        with open_farm(study.dask) as client:
            external = _stage(client, study, manifest, new / EXTERNAL)
            parts = align_parts(study, manifest, sets, external)
            evaluation = _evaluate(client, study, manifest, parts, _partial(sources))
        shutil.rmtree(new / EXTERNAL, ignore_errors=True)
        summary = summarise(evaluation)
        for name, table in make_tables(evaluation).items():
            pq.write_table(table, new / f"{name}.parquet")
        sizes = {path.stem: path.stat().st_size for path in sorted(new.glob("*.parquet"))}
        write_text(new / SUMMARY, json.dumps(summary, indent=1) + "\n")
        done = MetricsManifest(fingerprint=wanted, tables=sizes, summary=summary)
        done.save(new / MANIFEST)
    run.counts["rows"] = manifest.rows_of(study.calibrate.split)
    _tell(stage, summary)


def _tell(stage: str, summary: dict[str, float]) -> None:
    """Log the headline figures as a table: a line for each figure, a column for each set."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in summary.items():
        name, _, figure = key.partition(".")
        rows.setdefault(figure, {})[name] = value
    names = list(dict.fromkeys(key.partition(".")[0] for key in summary))
    width = max(map(len, rows), default=0)
    log.info("%s: %s", stage, " ".join([f"{'':<{width}}", *(f"{name:>10}" for name in names)]))
    for figure, values in rows.items():
        cells = [f"{values[name]:>10.4f}" if name in values else f"{'-':>10}" for name in names]
        log.info("%s: %s", stage, " ".join([f"{figure:<{width}}", *cells]))


def _open_sets(
    study: Study, manifest: DatasetManifest, sources: Sequence[CalibrationSource]
) -> dict[str, CalibratedManifest]:
    if not sources and not study.evaluate.external:
        msg = "the study has no models and its dataset no exact density: there is nothing to judge"
        raise UserError(msg)
    return {source.name: open_set(study, manifest, source) for source in sources}


def _fingerprint(
    study: Study, manifest: DatasetManifest, sets: dict[str, CalibratedManifest]
) -> str:
    return fingerprint(
        stage="evaluate",
        version=VERSION,
        settings=study.evaluate,
        dataset=manifest.fingerprint,
        calibrated={name: calibrated.fingerprint for name, calibrated in sets.items()},
        external={name: identity_of(name, e) for name, e in study.evaluate.external.items()},
    )


def _stage(
    client: Client, study: Study, manifest: DatasetManifest, folder: Path
) -> dict[str, ExternalPart]:
    """The rows of the external sets, sorted by the dataset's parts."""
    parts, external = manifest.parts_of(study.calibrate.split), {}
    rows = manifest.rows_of(study.calibrate.split)
    for name, given in study.evaluate.external.items():
        chunks = chunks_of(name, given, folder)
        stage = functools.partial(stage_chunk, dataset=dataset_folder(study), parts=parts)
        staged = map_parts(client, stage, chunks, label=f"join {name}", unit="chunks")
        found = sum(each.found for each in staged)
        log.info(
            "evaluate: %s has %d of the %d clusters, and %d others",
            *(name, found, rows, sum(each.rows for each in staged) - found),
        )
        if not found:
            msg = f"evaluate.external.{name}: none of its clusters is in the dataset's split"
            raise UserError(msg)
        external[name] = ExternalPart(given, tuple(chunk.folder for chunk in chunks))
    return external


def _evaluate(
    client: Client,
    study: Study,
    manifest: DatasetManifest,
    aligned: Sequence[AlignedPart],
    partial: Iterable[str],
) -> Evaluation:
    dataset = dataset_folder(study)
    plan = plan_evaluation(study.evaluate, manifest, partial)
    needed = needed_columns(study.evaluate, manifest)
    baseline = None
    if study.evaluate.baseline is not None:
        summarise = functools.partial(_fill_baseline, dataset=dataset, plan=plan, needed=needed)
        parts = manifest.parts_of("train")
        baseline = fold(client, summarise, parts, operator.add, label="baseline")
    evaluate = functools.partial(evaluate_parts, plan=plan, needed=needed, baseline=baseline)
    groups = batched(aligned, MERGE_WIDTH)
    merged: Evaluation = fold(
        client, evaluate, groups, operator.add, label="evaluate", unit="groups of parts"
    )
    return merged


def align_parts(
    study: Study,
    manifest: DatasetManifest,
    sets: dict[str, CalibratedManifest],
    external: dict[str, ExternalPart] | None = None,
) -> list[AlignedPart]:
    """The parts of the study's split, each with the parts of the calibrated sets."""
    by_index = {
        name: {part.index: part for part in calibrated.parts} for name, calibrated in sets.items()
    }
    return [
        AlignedPart(
            dataset=dataset_folder(study),
            part=part,
            calibrated={
                name: SetPart(
                    calibrated_folder(study, name, manifest),
                    by_index[name][part.index],
                    (IDENTITY, *(column.name for column in sets[name].columns)),
                )
                for name in sets
            },
            number=number,
            external=external or {},
        )
        for number, part in enumerate(manifest.parts_of(study.calibrate.split))
    ]


def _fill_baseline(
    part: Part, *, dataset: Path, plan: EvaluationPlan, needed: NeededColumns
) -> BaselineHistogram:
    table = read_part(dataset, part, needed.dataset)
    columns = columns_of(table)
    return BaselineHistogram.of(columns, plan)


def evaluate_parts(
    aligned: Sequence[AlignedPart],
    *,
    plan: EvaluationPlan,
    needed: NeededColumns,
    baseline: BaselineHistogram | None,
) -> Evaluation:
    """The evaluation of some parts in order, one of them in memory; runs on a worker."""
    slabs = (slab for part in aligned for slab in _slabs(part, needed, plan.target))
    return Evaluation.of_parts(slabs, plan, baseline=baseline)


def _slabs(
    aligned: AlignedPart, needed: NeededColumns, target: Target
) -> Iterator[tuple[Columns, dict[str, Columns]]]:
    """The rows of a part, row group by row group: these are views of what is read."""
    table = read_part(aligned.dataset, aligned.part, needed.dataset)
    sets = {
        name: read_part(folder, part, [n for n in needed.calibrated if n in columns])
        for name, (folder, part, columns) in aligned.calibrated.items()
    }
    place = aligned.number, aligned.part
    for name, (given, folders) in aligned.external.items():
        columns = external_columns(name, given, target, folders, place)
        columns = complete(columns, table[target.numerator].to_numpy(), target)
        sets[name] = pa.table(columns)
    rows = max(each.num_rows for each in (table, *sets.values()))
    for start in range(0, rows, ROW_GROUP):
        yield _slab(table, start), {name: _slab(each, start) for name, each in sets.items()}


def _slab(table: pa.Table, start: int) -> Columns:
    some = table.slice(start, ROW_GROUP)
    return columns_of(some)


def _partial(sources: Sequence[CalibrationSource]) -> list[str]:
    """Models that see less than what the exact density depends on."""
    seen = {source.name: set(source.calibrator.inputs) for source in sources}
    return [name for name in seen if not seen.get(ORACLE, set()) <= seen[name]]


if __name__ == "__main__":
    sys.exit(run_job("evaluate", main, sys.argv[1:]))
