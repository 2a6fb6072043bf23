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

from jobs.ingest import dataset_folder, ingested_folder, open_dataset, open_ingested
from jobs.kinds import KINDS
from jobs.launch import Run, run_job
from jobs.study import Study
from jobs.task import Task
from pipeline.formats.calibrated_set import read_labels
from pipeline.formats.card import CARD, ModelCard, read_card
from pipeline.formats.errors import UserError
from pipeline.formats.families import FAMILIES
from pipeline.formats.folders import claim, refuse_foreign
from pipeline.formats.lock import holding
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import ModelSettings, Record
from pipeline.formats.versions import fingerprint
from training.ray.environment import sharing_ray

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
    if not manifest.targets:
        manifest.require_target()
    with sharing_ray():
        for name in study.models:
            train_named(study, run, name)


def train_named(study: Study, run: Run, name: str) -> None:
    """Train a model of the study if it is not up to date."""
    stage, settings = f"train/{name}", study.models[name]
    if stage in run.before:
        return  # `tag` needed it, in the same run
    dataset, manifest = rows_of_model(study, name)
    folder, wanted = model_folder(study, name), _fingerprint(study, settings, manifest)
    train_task(Task(study, name, settings, dataset, manifest, folder, wanted), run, stage)


def rows_of_model(study: Study, name: str) -> tuple[Path, DatasetManifest]:
    """The dataset that a model is trained on; all clusters for the one whose failures are tagged.

    Raises:
        UserError: It is not there, or was made with other settings.
    """
    is_first = name == study.first_pass
    manifest = open_ingested(study) if is_first else open_dataset(study)
    targets = manifest.select_targets(study.models[name].targets)
    if len(targets) == 1:
        manifest = manifest.for_target(targets[0])
    if study.models[name].only_log_ratio:
        manifest.require_log_ratio(study.models[name].kind)
    return ingested_folder(study) if is_first else dataset_folder(study), manifest


def train_task(task: Task, run: Run, stage: str) -> ModelCard:
    """Train a model if it is not up to date; its card.

    Raises:
        UserError: Its folder holds a training with other settings or data.
    """
    folder, name = task.folder, task.name
    if run.keeps(stage, folder / CARD, ModelCard, task.fingerprint):
        return read_card(folder)
    with holding(folder):
        if run.redo:  # from the beginning
            refuse_foreign(folder)
            shutil.rmtree(folder, ignore_errors=True)
        _begin(task, stage.partition("/")[0])
        card = KINDS[task.settings.kind].open_train()(task, task.settings)
    scores = ", ".join(f"{key} {value:.4f}" for key, value in card.scores.items())
    log.info("train: %s is finished (%s)", name, scores)
    epochs = {"epochs": card.settings["epochs"]} if "epochs" in card.settings else {}
    run.counts[name] = {"rows": task.manifest.rows_of("train"), **epochs}
    return card


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


def _begin(task: Task, job: str) -> None:
    """Claim a model's folder for one training.

    Raises:
        UserError: It holds a training with other settings or data, which would be lost.
    """
    folder, manifest = task.folder, task.manifest
    labels = {} if task.labels is None else {"labels": read_labels(task.labels).rule}
    record = TrainingRecord(
        version=VERSION,
        seed=task.study.seed,
        settings=task.settings.model_dump(mode="json"),
        dataset={
            "settings": manifest.settings_fingerprint,
            "inputs": [file.fingerprint for file in manifest.inputs],
            "training rows": manifest.rows_of("train"),
            "fingerprint": manifest.fingerprint,
            **labels,
        },
    )
    path = folder / RECORD
    if path.exists() and _holds_work(folder):
        before = TrainingRecord.load(path, made_by="train")
        differences = list(_differences(before.model_dump(), record.model_dump()))
        if differences:
            msg = (
                f"{folder}: holds a training with other settings or data ({'; '.join(differences)})"
                f"; choose another model name or output, or give it up with `topocal {job} --redo`"
            )
            raise UserError(msg)
    claim(folder)
    record.save(path)


def _holds_work(folder: Path) -> bool:
    """Whether a training came to its first epoch; before that there is nothing to lose."""
    return (folder / CARD).exists() or any(folder.glob("checkpoints/*.pt"))


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
    if name == study.first_pass:
        manifest = open_ingested(study)
    if card.fingerprint != _fingerprint(study, study.models[name], manifest):
        msg = f"{folder}: trained with other settings or on another dataset; "
        raise UserError(msg + "run `topocal train --redo`, or train under another name")
    card.require_files(folder, made_by="train")
    return card


def _fingerprint(study: Study, settings: ModelSettings, manifest: DatasetManifest) -> str:
    family = FAMILIES.get(getattr(settings, "family", ""))
    return fingerprint(
        stage="train",
        version=VERSION,
        settings=settings,
        seed=study.seed,
        dataset=manifest.fingerprint,
        **(family.identity if family is not None else {}),
    )


if __name__ == "__main__":
    sys.exit(run_job("train", main, sys.argv[1:]))
