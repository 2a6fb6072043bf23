"""Tag clusters that no regression can learn, and leave them out if the study says so.

Run: topocal tag STUDY.yaml
Reads <output>/dataset; trains the first pass (models/NAME) and the tagger (tag/model) where they
are not up to date; writes <output>/tag/labels, <output>/tags with scores, decisions and rates and,
with dataset.drop_tagged, <output>/untagged, the dataset that all later jobs then read.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from distributed import Client

from jobs.farm.dask import open_farm
from jobs.ingest import ingested_folder, open_ingested
from jobs.launch import Run, run_job
from jobs.models import open_model
from jobs.study import Study, TagSection
from jobs.tags import VERSION, open_tags, tags_fingerprint, tags_folder, untagged_folder
from jobs.task import Task
from jobs.train import train_named, train_task
from pipeline.calibrators.estimates import OnnxFile
from pipeline.calibrators.registry import open_calibrator
from pipeline.evaluation.axes import resolve_axis
from pipeline.fold import map_parts, merge_in_order
from pipeline.formats.calibrated_set import LabelManifest, TagManifest, read_labels
from pipeline.formats.card import ModelCard
from pipeline.formats.errors import UserError
from pipeline.formats.families import GAUSSIAN_MIXTURE
from pipeline.formats.folders import replacing_folder
from pipeline.formats.manifest import MANIFEST, DatasetManifest, Part
from pipeline.formats.versions import fingerprint, versions_of
from pipeline.simulators.registry import ExactDensity, oracle_of
from pipeline.tagging.labels import check_label, describe_label, true_component
from pipeline.tagging.parts import (
    LabelPlan,
    Measured,
    SummaryPlan,
    TagPlan,
    label_part,
    ordinary_scores,
    tag_part,
)
from pipeline.tagging.position_map import PositionMap
from pipeline.tagging.rates import TagSummary, choose_threshold
from pipeline.tagging.selection import KeepPlan, keep_part, untagged_fingerprint, untagged_manifest

log = logging.getLogger(__name__)


def main(study: Study, run: Run) -> None:
    """Make the study's tags, and the dataset without tagged clusters if it is wanted."""
    tag = _section(study)
    manifest = open_ingested(study)
    check_label(tag.label, manifest)
    summary = _summary_plan(study, manifest)
    if study.first_pass is not None:
        train_named(study, run, study.first_pass)
    wanted = tags_fingerprint(study, manifest)
    if not run.keeps("tag", tags_folder(study) / MANIFEST, TagManifest, wanted):
        labels = _label(study, run, manifest)
        card = _train(study, run, manifest, labels)
        _tag(study, manifest, (labels, card, summary), wanted)
    tags = open_tags(study, manifest)
    _tell(tags)
    if study.dataset.drop_tagged:
        _keep_untagged(study, run, manifest, tags)


def _section(study: Study) -> TagSection:
    if study.tag is None:
        msg = "the study has no section tag; add one with at least tag.label"
        raise UserError(msg)
    return study.tag


def _label(study: Study, run: Run, manifest: DatasetManifest) -> Path:
    """The folder of the labels of all clusters."""
    tag, folder = _section(study), study.folder / "tag" / "labels"
    target = manifest.require_target()
    first_pass, identity = None, ""
    if study.first_pass is not None:
        place, card = open_model(study, study.first_pass, manifest)
        first_pass = open_calibrator(place, card, study.calibrate)
        identity = fingerprint(card=card.fingerprint, files=card.artefacts)
    wanted = fingerprint(
        stage="labels",
        version=VERSION,
        label=tag.label,
        functionals=study.calibrate.model_dump(mode="json", include={"central", "sigma", "margin"}),
        first_pass=identity,
        dataset=manifest.fingerprint,
    )
    if run.keeps("tag/labels", folder / MANIFEST, LabelManifest, wanted):
        return folder
    with replacing_folder(folder) as new, open_farm(study.dask) as client:
        plans = [
            LabelPlan(ingested_folder(study), part, new, tag.label, target, first_pass)
            for part in manifest.parts
        ]
        LabelManifest(
            fingerprint=wanted,
            dataset_fingerprint=manifest.fingerprint,
            parts=tuple(map_parts(client, label_part, plans, label="label")),
            versions=versions_of("numpy", "pyarrow", "onnxruntime"),
            rule=describe_label(tag.label, target),
        ).save(new / MANIFEST)
    return folder


def _tagger_folder(study: Study) -> Path:
    return study.folder / "tag" / "model"


def _train(study: Study, run: Run, manifest: DatasetManifest, labels: Path) -> ModelCard:
    """The tagger's card."""
    settings, folder = _section(study).model, _tagger_folder(study)
    wanted = fingerprint(
        stage="tagger",
        version=VERSION,
        settings=settings,
        seed=study.seed,
        labels=[part.sha256 for part in read_labels(labels).parts],
        dataset=manifest.fingerprint,
    )
    dataset = ingested_folder(study)
    task = Task(study, "tagger", settings, dataset, manifest, folder, wanted, labels)
    return train_task(task, run, "tag/model")


def _tag(
    study: Study,
    manifest: DatasetManifest,
    given: tuple[Path, ModelCard, SummaryPlan],
    wanted: str,
) -> None:
    tag, folder = _section(study), tags_folder(study)
    labels, card, summary = given
    file, inputs = card.artefacts["model"], tuple(feature.name for feature in card.inputs)
    model = OnnxFile(_tagger_folder(study) / file.path, file.sha256, inputs)
    record = read_labels(labels)
    with replacing_folder(folder) as new, open_farm(study.dask) as client:

        def plan(part: Part, threshold: float = 1.0) -> TagPlan:
            return TagPlan(
                dataset=ingested_folder(study),
                part=part,
                labels=(labels, record.by_path[part.path]),
                model=model,
                target=manifest.require_target(),
                weight=next((c.name for c in manifest.columns if c.role == "weight"), None),
                folder=new,
                threshold=threshold,
                summary=summary if part.split == "test" else None,
            )

        validation = [plan(part) for part in manifest.parts_of("validation")]
        threshold = _working_point(client, study, validation)
        plans = [plan(part, threshold) for part in manifest.parts]
        done = map_parts(client, tag_part, plans, label="tag")
        figures, tables = _write_tables(new, [found for _, found in done if found is not None])
        TagManifest(
            fingerprint=wanted,
            dataset_fingerprint=manifest.fingerprint,
            parts=tuple(part for part, _ in done),
            versions=versions_of("numpy", "pyarrow", "onnxruntime"),
            rule=record.rule,
            threshold=threshold,
            figures=figures,
            tables=tables,
            settings=tag.model_dump(mode="json"),
        ).save(new / MANIFEST)


def _working_point(client: Client, study: Study, plans: Sequence[TagPlan]) -> float:
    pieces = map_parts(client, ordinary_scores, plans, label="working point")
    if not pieces:
        msg = "tag: the validation split has no clusters; give it a larger fraction"
        raise UserError(msg)
    score_N, weight_N = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return choose_threshold(score_N, weight_N, _section(study).ordinary_loss)


def _summary_plan(study: Study, manifest: DatasetManifest) -> SummaryPlan:
    tag, oracle = _section(study), oracle_of(manifest)
    known = {column.name for column in manifest.columns}
    axes = {
        name: axis
        for name, axis in tag.axes.items()
        if "axes" in tag.model_fields_set or axis.column is None or axis.column in known
    }
    return SummaryPlan(
        label=tag.label,
        component=true_component(manifest),
        exact=_with_known_cdf(oracle),
        axes=tuple(
            resolve_axis(f"tag.axes.{name}", name, axis, manifest) for name, axis in axes.items()
        ),
        position=tag.position if known.issuperset(tag.position) else None,
        cell_mm=tag.cell_mm,
    )


def _with_known_cdf(oracle: ExactDensity | str) -> ExactDensity | None:
    """The exact density if there is one of a family whose distribution function labels know."""
    if isinstance(oracle, str) or oracle.family != GAUSSIAN_MIXTURE.name:
        return None
    return oracle


def _write_tables(
    folder: Path, measured: Sequence[Measured]
) -> tuple[dict[str, float], dict[str, int]]:
    """The headline figures, and the tables' sizes by name."""
    if not measured:
        return {}, {}
    summary = merge_in_order([each for each, _ in measured], TagSummary.__add__)
    tables = {"rates": summary.rate_table(), "roc": summary.roc_table()}
    places = [place for _, place in measured if place is not None]
    if places:
        tables["position"] = merge_in_order(places, PositionMap.__add__).table()
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    sizes = {name: (folder / f"{name}.parquet").stat().st_size for name in tables}
    return summary.figures(), sizes


def _tell(tags: TagManifest) -> None:
    log.info("tag: label: %s; tagged above a score of %.4f", tags.rule, tags.threshold)
    for name, value in tags.figures.items():
        log.info("tag: %-32s %8.4f", name, value)


def _keep_untagged(study: Study, run: Run, manifest: DatasetManifest, tags: TagManifest) -> None:
    folder, wanted = untagged_folder(study), untagged_fingerprint(manifest, tags)
    if run.keeps("tag/untagged", folder / MANIFEST, DatasetManifest, wanted):
        return
    with replacing_folder(folder) as new, open_farm(study.dask) as client:
        beside = tags.by_path
        plans = [
            KeepPlan(
                dataset=ingested_folder(study),
                part=part,
                tags=(tags_folder(study), beside[part.path]),
                folder=new,
                settings=study.dataset,
            )
            for part in manifest.parts
        ]
        kept = map_parts(client, keep_part, plans, label="untagged")
        record = untagged_manifest(manifest, tags, kept, study.dataset)
        record.save(new / MANIFEST)
    last = record.cut_flow[-1]
    run.counts["untagged"] = {"before": last.before, "after": last.after}
    log.info("tag: %d of %d clusters are left", last.after, last.before)


if __name__ == "__main__":
    sys.exit(run_job("tag", main, sys.argv[1:]))
