"""Train the study's models and export each to ONNX with its card.

Run: topocal train STUDY.yaml
Reads <output>/dataset; writes <output>/models/NAME/ with model.onnx, weights.safetensors,
history.jsonl and, last, model.json. A run that was stopped goes on from its last epoch.
"""

import logging
import shutil
import sys
from pathlib import Path

from jobs.ingest import dataset_folder, open_dataset
from jobs.launch import Run, run_job
from jobs.signals import stop_requests
from jobs.study import Study
from pipeline.formats.card import CARD, ModelCard, read_card
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.files import claim
from pipeline.formats.fingerprint import fingerprint
from pipeline.formats.manifest import DatasetManifest
from training.settings import ModelSettings

log = logging.getLogger(__name__)

VERSION = 2  # raised when the same settings and data give another model


def model_folder(study: Study, name: str) -> Path:
    """Where a model of the study is."""
    return study.folder / "models" / name


def main(study: Study, run: Run) -> None:
    """Train every model of the study that is not up to date."""
    if not study.models:
        msg = "the study has no models; add a section models with at least one"
        raise UserError(msg)
    manifest = open_dataset(study)
    for name, settings in study.models.items():
        folder = model_folder(study, name)
        wanted = _fingerprint(study, settings, manifest)
        if run.keeps(f"train/{name}", folder / CARD, ModelCard, wanted):
            continue
        claim(folder)
        if run.redo:  # from the first epoch
            shutil.rmtree(folder)
            claim(folder)
        _train(study, name, settings, wanted)
        run.counts[name] = {"rows": manifest.rows_of("train"), "epochs": settings.epochs}


def open_model(study: Study, name: str, manifest: DatasetManifest) -> ModelCard:
    """The card of a model of the study.

    Raises:
        UserError: It is not trained, or not with the study's settings on this dataset.
    """
    folder = model_folder(study, name)
    card = read_card(folder)
    if card.fingerprint != _fingerprint(study, study.models[name], manifest):
        msg = f"{folder}: trained with other settings or on another dataset; "
        raise UserError(msg + "run `topocal train` again")
    card.require_files(folder, made_by="train")
    return card


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
            fuse=ray.fuse,
            tensorboard=ray.tensorboard,
            address=ray.address,
            in_process=ray.address == "none",
            should_stop=should_stop,
        )
        if should_stop():
            msg = f"stopped by a signal after model {name}; run again to continue"
            raise StoppedBySignal(msg)
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
