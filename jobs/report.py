"""Draw the figures and write the HTML report.

Run: topocal report STUDY.yaml
Reads <output>/metrics, the dataset's manifest, the models' cards and histories; writes
<output>/report/index.html and figures/*.svg, *.pdf, *.csv.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.evaluate import metrics_folder, read_metrics
from jobs.ingest import dataset_folder
from jobs.launch import Run, run_job
from jobs.study import Study
from jobs.train import model_folder
from pipeline.formats.card import ModelCard, read_card
from pipeline.formats.errors import UserError
from pipeline.formats.files import clear_output
from pipeline.formats.fingerprint import fingerprint
from pipeline.formats.manifest import MANIFEST, read_manifest
from pipeline.formats.records import Record

log = logging.getLogger(__name__)

VERSION = 1  # raised when the same metrics give another page


class ReportManifest(Record):
    """What a finished report was made from."""

    fingerprint: str


def report_folder(study: Study) -> Path:
    """Where the report of a study is."""
    return study.folder / "report"


def main(study: Study, run: Run) -> None:
    """Write the report of a study whose metrics are there."""
    folder = report_folder(study)
    metrics = read_metrics(study)
    manifest = read_manifest(dataset_folder(study))
    cards = {name: read_card(model_folder(study, name)) for name in study.models}
    wanted = fingerprint(
        stage="report",
        version=VERSION,
        settings=study.report,
        study=study.name,
        metrics=metrics.fingerprint,
        models={name: card.fingerprint for name, card in cards.items()},
    )
    found = None
    if (folder / MANIFEST).exists():
        found = ReportManifest.load(folder / MANIFEST, made_by="report").fingerprint
    if run.keeps("report", folder, found, wanted):
        return
    write_report = _import_writer()
    clear_output(folder, MANIFEST)
    write_report(
        folder,
        study_name=study.name,
        manifest=manifest,
        summary=metrics.summary,
        tables={
            name: pq.read_table(metrics_folder(study) / f"{name}.parquet")
            for name in metrics.tables
        },
        cards=cards,
        histories={name: _read_history(study, name, card) for name, card in cards.items()},
        settings=study.report,
    )
    ReportManifest(fingerprint=wanted).save(folder / MANIFEST)
    log.info("report: %s", folder / "index.html")


def _import_writer() -> Any:  # noqa: ANN401 - imported late
    try:
        from pipeline.report.write import write_report  # noqa: PLC0415 - other jobs draw nothing
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; the report needs it: pip install 'topocal[report]'"
        raise UserError(msg) from None
    return write_report


def _read_history(study: Study, name: str, card: ModelCard) -> list[dict[str, Any]]:
    if "history" not in card.artefacts:
        return []
    path = model_folder(study, name) / card.artefacts["history"].path
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(run_job("report", main, sys.argv[1:]))
