"""Draw the figures and write the HTML report.

Run: topocal report STUDY.yaml
Reads <output>/metrics, the dataset's manifest, the models' cards and histories, and the tables of a
scaling study, which may be there alone; writes <output>/report/index.html and figures/*.svg, *.pdf,
*.csv, *.yaml (HEPData's structure). With several targets each has its report in
<output>/report/TARGET, to which index.html leads.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.calibrate import judged_views
from jobs.evaluate import MetricsManifest, metrics_folder, open_metrics
from jobs.ingest import open_dataset, open_ingested
from jobs.launch import Run, run_job
from jobs.models import model_names, open_model
from jobs.scaling import open_tables
from jobs.study import Study
from jobs.tags import tag_tables
from jobs.targets import place_of, stage_of, views_of
from pipeline.formats.card import ModelCard
from pipeline.formats.errors import requiring_extra
from pipeline.formats.folders import replacing_folder
from pipeline.formats.manifest import MANIFEST, DatasetManifest
from pipeline.formats.records import OutputRecord
from pipeline.formats.versions import fingerprint
from pipeline.lookup.tables import project_tables, read_tables

log = logging.getLogger(__name__)

VERSION = 3  # raised when the same metrics give another page
NO_METRICS = MetricsManifest(fingerprint="", tables={}, summary={})


class ReportManifest(OutputRecord):
    """The files of a finished report, by path with their size; written last."""

    sizes: dict[str, int]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return self.sizes


def report_folder(study: Study, manifest: DatasetManifest) -> Path:
    """Where the report of a study is, for the target of a view of the dataset."""
    return place_of(study.folder / "report", manifest)


def main(study: Study, run: Run) -> None:
    """Write the report of a study whose metrics are there, or whose scaling study is."""
    manifest = open_dataset(study)
    views = judged_views(study, manifest) or list(views_of(manifest))
    made = [_report_target(study, run, view) for view in views]
    if manifest.targets and any(made):
        write_overview = _import_writer("write_overview")
        write_overview(
            study.folder / "report",
            title=study.report.title or study.name,
            targets=[(view, open_metrics(study, view).summary) for view in views],
        )


def _report_target(study: Study, run: Run, manifest: DatasetManifest) -> bool:
    """Write the report of one target; whether it was not there already."""
    folder, stage = report_folder(study, manifest), stage_of("report", manifest)
    extras = open_tables(study, manifest)
    is_scaling_alone = bool(extras) and not (metrics_folder(study, manifest) / MANIFEST).exists()
    metrics = NO_METRICS if is_scaling_alone else open_metrics(study, manifest)
    names = [] if is_scaling_alone else model_names(study, manifest)
    models = {name: open_model(study, name, manifest) for name in names}
    cards = {name: card for name, (_, card) in models.items()}
    extras |= lookup_tables(models) | tag_tables(study, open_ingested(study))
    wanted = fingerprint(
        stage="report",
        version=VERSION,
        settings=study.report,
        study=study.name,
        metrics=metrics.fingerprint,
        models=cards,
        extras={name: table.to_pylist() for name, table in extras.items()},
    )
    if run.keeps(stage, folder / MANIFEST, ReportManifest, wanted):
        return False
    write_report, place = _import_writer("write_report"), metrics_folder(study, manifest)
    tables = extras | {name: pq.read_table(place / f"{name}.parquet") for name in metrics.tables}
    with replacing_folder(folder) as new:
        write_report(
            new,
            study_name=study.name,
            manifest=manifest,
            summary=metrics.summary,
            tables=tables,
            cards=cards,
            histories={name: _read_history(*model) for name, model in models.items()},
            settings=study.report,
            split=study.calibrate.split,
            records=read_records(study),
            study=study.model_dump(mode="json"),
            processes=os.cpu_count() or 1,
        )
        sizes = {
            str(path.relative_to(new)): path.stat().st_size
            for path in sorted(new.rglob("*"))
            if path.is_file()
        }
        ReportManifest(fingerprint=wanted, sizes=sizes).save(new / MANIFEST)
    run.counts["figures"] = sum(path.endswith(".svg") for path in sizes)
    log.info("%s: %s", stage, folder / "index.html")
    return True


def lookup_tables(models: Mapping[str, tuple[Path, ModelCard]]) -> dict[str, pa.Table]:
    """What the bins of look-up tables hold; nothing where there are none."""
    found = {
        name: read_tables(folder / card.artefacts["model"].path)
        for name, (folder, card) in models.items()
        if card.artefact == "tables"
    }
    return {"lookup": project_tables(found)} if found else {}


def read_records(study: Study) -> dict[str, dict[str, Any]]:
    """By job: what it recorded of its last run, in the order in which they ran."""
    paths = (study.folder / "records").glob("*.json")
    return {
        path.stem: json.loads(path.read_bytes())
        for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)
        if path.stem not in {"report", "run"}  # of the last time; a run's stages have their own
    }


def _import_writer(name: str) -> Any:  # noqa: ANN401 - imported late
    # A notebook's kernel names a backend that its commands inherit and cannot load.
    os.environ["MPLBACKEND"] = "agg"
    with requiring_extra("report", "the report"):
        from pipeline.report import write  # noqa: PLC0415 - other jobs draw nothing
    return getattr(write, name)


def _read_history(folder: Path, card: ModelCard) -> list[dict[str, Any]]:
    if "history" not in card.artefacts:
        return []
    path = folder / card.artefacts["history"].path
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(run_job("report", main, sys.argv[1:]))
