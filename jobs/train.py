"""Train the study's models and export each to ONNX with its card.

Run: topocal train STUDY.yaml
Reads <output>/dataset; writes <output>/models/NAME/ with model.onnx, weights.safetensors,
history.jsonl and, last, model.json. A run that was stopped goes on from its last epoch.
"""

import logging
import sys
from pathlib import Path

from jobs.ingest import dataset_folder
from jobs.launch import Run, run_job
from jobs.signals import stop_requests
from jobs.study import ModelSettings, Study
from pipeline.formats.card import CARD, read_card
from pipeline.formats.errors import UserError
from pipeline.formats.files import clear_output
from pipeline.formats.fingerprint import fingerprint
from pipeline.formats.manifest import DatasetManifest, read_manifest

log = logging.getLogger(__name__)

VERSION = 1  # raised when the same settings and data give another model


def model_folder(study: Study, name: str) -> Path:
    """Where a model of the study is."""
    return study.folder / "models" / name


def main(study: Study, run: Run) -> None:
    """Train every model of the study that is not up to date."""
    if not study.models:
        msg = "the study has no models; add a section models with at least one"
        raise UserError(msg)
    dataset = dataset_folder(study)
    manifest = read_manifest(dataset)
    for name, settings in study.models.items():
        folder = model_folder(study, name)
        wanted = _fingerprint(study, settings, manifest)
        found = read_card(folder).fingerprint if (folder / CARD).exists() else None
        if run.keeps(f"train/{name}", folder, found, wanted):
            continue
        if run.redo:
            clear_output(folder, CARD)
        _train(study, name, settings, wanted)
        run.counts[name] = {"rows": manifest.rows_of("train"), "epochs": settings.epochs}


def _train(study: Study, name: str, settings: ModelSettings, wanted: str) -> None:
    try:
        from training.train import train_model  # noqa: PLC0415 - other jobs need no torch
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; training needs it: pip install 'topocal[train]'"
        raise UserError(msg) from None
    ray = study.ray
    with stop_requests() as should_stop:
        card = train_model(
            dataset_folder(study),
            settings,
            name=name,
            seed=study.seed,
            folder=model_folder(study, name),
            fingerprint=wanted,
            num_workers=ray.workers,
            threads_per_worker=ray.threads,
            use_gpu=ray.gpu,
            address=ray.address,
            in_process=ray.address == "none",
            should_stop=should_stop,
        )
    scores = ", ".join(f"{key} {value:.4f}" for key, value in card.scores.items())
    log.info("train: %s is exported (%s)", name, scores)


def _fingerprint(study: Study, settings: ModelSettings, manifest: DatasetManifest) -> str:
    return fingerprint(
        stage="train",
        version=VERSION,
        settings=settings,
        seed=study.seed,
        dataset=manifest.fingerprint,
    )


if __name__ == "__main__":
    sys.exit(run_job("train", main, sys.argv[1:]))
