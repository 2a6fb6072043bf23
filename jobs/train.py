"""Train the study's models and write each with its card.

Run: topocal train STUDY.yaml
Reads <output>/dataset; writes <output>/models/NAME/ with the model (networks: model.onnx,
weights.safetensors, history.jsonl) and, last, model.json. A training of networks that was stopped
goes on from its last epoch.
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.ingest import dataset_folder, open_dataset
from jobs.launch import Run, run_job
from jobs.study import AnyModelSettings, Study
from jobs.task import Task
from jobs.trainers import train_kind
from pipeline.formats.card import CARD, ModelCard, read_card
from pipeline.formats.errors import UserError
from pipeline.formats.fingerprint import fingerprint
from pipeline.formats.folders import claim, refuse_foreign
from pipeline.formats.lock import holding
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import Record

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
            if run.redo:  # from the beginning
                refuse_foreign(folder)
                shutil.rmtree(folder, ignore_errors=True)
            _begin(study, settings, manifest, folder)
            dataset = dataset_folder(study)
            card = train_kind(Task(study, name, settings, dataset, manifest, folder, wanted))
        scores = ", ".join(f"{key} {value:.4f}" for key, value in card.scores.items())
        log.info("train: %s is finished (%s)", name, scores)
        epochs = {"epochs": card.settings["epochs"]} if "epochs" in card.settings else {}
        run.counts[name] = {"rows": manifest.rows_of("train"), **epochs}


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


def _begin(
    study: Study, settings: AnyModelSettings, manifest: DatasetManifest, folder: Path
) -> None:
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


def _fingerprint(study: Study, settings: AnyModelSettings, manifest: DatasetManifest) -> str:
    return fingerprint(
        stage="train",
        version=VERSION,
        settings=settings,
        seed=study.seed,
        dataset=manifest.fingerprint,
    )


if __name__ == "__main__":
    sys.exit(run_job("train", main, sys.argv[1:]))
