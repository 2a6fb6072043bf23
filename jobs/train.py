"""Train the study's models and export each to ONNX with its card.

Run: topocal train STUDY.yaml
Reads <output>/dataset; writes <output>/models/NAME/ with model.onnx, weights.safetensors,
history.jsonl and, last, model.json. A run that was stopped goes on from its last epoch.
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.ingest import dataset_folder, open_dataset
from jobs.launch import Run, run_job
from jobs.signals import stop_requests
from jobs.study import Study
from pipeline.formats.card import CARD, ModelCard, read_card
from pipeline.formats.errors import StoppedBySignal, UserError
from pipeline.formats.fingerprint import fingerprint
from pipeline.formats.folders import claim, refuse_foreign
from pipeline.formats.lock import holding
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import Record
from training.settings import ModelSettings

log = logging.getLogger(__name__)

RECORD = "training.json"
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
    manifest.log10_target_range()  # refuses a dataset without truth
    for name, settings in study.models.items():
        folder = model_folder(study, name)
        wanted = _fingerprint(study, settings, manifest)
        if run.keeps(f"train/{name}", folder / CARD, ModelCard, wanted):
            continue
        with holding(folder):
            if run.redo:  # from the first epoch
                refuse_foreign(folder)
                shutil.rmtree(folder, ignore_errors=True)
            _begin(study, settings, manifest, folder)
            _train(study, name, settings, wanted)
        run.counts[name] = {"rows": manifest.rows_of("train"), "epochs": settings.epochs}


class TrainingRecord(Record):
    """What a model's folder is for; written before the first epoch.

    Attributes:
        version: Of the job.
        seed: Of the study.
        settings: Of the model.
        dataset: What identifies the training data.
    """

    version: int
    seed: int
    settings: dict[str, Any]
    dataset: dict[str, Any]


def _begin(study: Study, settings: ModelSettings, manifest: DatasetManifest, folder: Path) -> None:
    """Claim a model's folder for one training.

    Raises:
        UserError: It holds a training with other settings or data, which would be lost.
    """
    record = TrainingRecord(
        version=VERSION,
        seed=study.seed,
        settings=settings.model_dump(mode="json"),
        dataset={
            "settings": manifest.settings_fingerprint,
            "inputs": [file.fingerprint for file in manifest.inputs],
            "training rows": manifest.rows_of("train"),
            "fingerprint": manifest.fingerprint,
        },
    )
    path = folder / RECORD
    if path.exists():
        before = TrainingRecord.load(path, made_by="train")
        differences = list(_differences(before.model_dump(), record.model_dump()))
        if differences:
            msg = (
                f"{folder}: holds a training with other settings or data ({'; '.join(differences)})"
                "; choose another model name or output, or give it up with `topocal train --redo`"
            )
            raise UserError(msg)
    claim(folder)
    record.save(path)


def _differences(before: Any, now: Any, prefix: str = "") -> Iterator[str]:  # noqa: ANN401 - JSON
    """What has changed, as `key.path: before -> now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _differences(before.get(key), now.get(key), f"{prefix}{key}.")
    elif before != now:
        told = [
            f"{len(v)} of them" if isinstance(v, list | tuple) else str(v) for v in (before, now)
        ]
        same = " (others)" if told[0] == told[1] else ""
        yield f"{prefix.rstrip('.')}: {told[0]} -> {told[1]}{same}"


def open_trained(study: Study, name: str, manifest: DatasetManifest) -> ModelCard:
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
    with needing_torch():
        from training.train import train_model  # noqa: PLC0415 - other jobs need no torch
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


@contextmanager
def needing_torch() -> Iterator[None]:
    """Around the import of what only the extra `train` installs.

    Raises:
        UserError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed; training needs it: pip install 'topocal[train]'"
        raise UserError(msg) from None


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
