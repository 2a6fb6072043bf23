"""The model that leaves the training: its networks as ONNX, all weights, and the card."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safetensors.torch import save_file

from pipeline.formats.card import CARD, ModelCard, artefact_of, trained_on
from pipeline.formats.columns import Feature, Target
from pipeline.formats.files import replacing
from pipeline.formats.manifest import DatasetManifest, read_manifest, select_features
from pipeline.formats.versions import git_hash, versions_of
from training.checkpoint import Checkpoint, newest_checkpoint
from training.data.training_data import open_split
from training.export.finished import Exported, Finished
from training.history import HISTORY
from training.job import TrainingJob
from training.kinds import kind_of

WEIGHTS = "weights.safetensors"
HEADER = "model"  # key of the JSON text in the header of the weights


def export_model(job: TrainingJob) -> ModelCard:
    """Write the model of a finished training into its folder, the card last.

    A model of several targets has one more folder for each, with a card and files of its own.

    Raises:
        RuntimeError: The training is not finished, or the file written disagrees with torch.
    """
    folder, settings = job.folder, job.settings
    checkpoint = newest_checkpoint(folder, job.fingerprint)
    if checkpoint is None or checkpoint.epoch != settings.epochs:
        msg = f"{folder}: no checkpoint after epoch {settings.epochs} with this fingerprint"
        raise RuntimeError(msg)
    manifest = read_manifest(job.dataset)
    targets = () if job.labels is not None else manifest.select_targets(settings.targets)
    if len(targets) > 1:
        return _export_several(job, manifest, checkpoint, targets)
    target = targets[0] if targets else manifest.require_target()
    finished = _finished(job, manifest.for_target(target), checkpoint)
    exported: Exported = kind_of(settings).open_export()(finished, settings)
    _save_weights(job, finished.features, exported)
    return _save_card(job, finished, exported, {**exported.files, "weights": WEIGHTS})


def _export_several(
    job: TrainingJob,
    manifest: DatasetManifest,
    checkpoint: Checkpoint,
    targets: Sequence[Target],
) -> ModelCard:
    """A folder for each target, then the card of the whole."""
    files: dict[str, str] = {"weights": WEIGHTS}
    scores: dict[str, float] = {}
    card: dict[str, Any] = {}
    for number, target in enumerate(targets):
        place = job.folder / target.name
        place.mkdir(exist_ok=True)
        finished = _finished(
            replace(job, folder=place), manifest.for_target(target), checkpoint, number
        )
        exported: Exported = kind_of(job.settings).open_export()(finished, job.settings)
        shutil.copyfile(job.folder / HISTORY, place / HISTORY)
        _save_card(job, finished, exported, exported.files)
        if number == 0:
            _save_weights(job, finished.features, exported)
        named = {**exported.files, "card": CARD}
        files |= {f"{target.name}/{role}": f"{target.name}/{path}" for role, path in named.items()}
        scores |= {f"{target.name}.{name}": value for name, value in exported.scores.items()}
        card = exported.card
    whole = replace(finished, folder=job.folder)
    shared = {name: card[name] for name in card if name not in {"checks", "outputs"}}
    described = Exported(files, {}, scores, {**shared, "outputs": ()})
    return _save_card(job, whole, described, files, targets)


def _finished(
    job: TrainingJob, manifest: DatasetManifest, checkpoint: Checkpoint, number: int = 0
) -> Finished:
    """The training as the export of one target, by its number among those of the model, sees it."""
    settings = job.settings
    features = select_features(manifest, settings.features, settings.tables)
    return Finished(
        folder=job.folder,
        dataset=job.dataset,
        manifest=manifest,
        features=features,
        checkpoint=checkpoint,
        seed=job.seed,
        validation=open_split(
            job.dataset,
            manifest,
            features,
            "validation",
            settings.memory_mib,
            labels=job.labels,
            targets=() if job.labels is not None else (manifest.require_target(),),
        ),
        number=number,
    )


def _save_weights(job: TrainingJob, features: Sequence[Feature], exported: Exported) -> None:
    with replacing(job.folder / WEIGHTS) as temporary:
        save_file(exported.weights, temporary, metadata=_header_of(job, features))


def _last_record(checkpoint: Checkpoint) -> dict[str, float]:
    last = checkpoint.history[-1]
    penalties = {f"{name}_per_row": last[name] for name in ("kl", "prior") if name in last}
    losses: dict[str, float] = {
        name: last[name] for name in ("train_nll", "train_loss") if name in last
    }
    return {**losses, **penalties}


def _header_of(job: TrainingJob, features: Sequence[Feature]) -> dict[str, str]:
    """One entry, because the order of several would differ from run to run."""
    content = {
        "git_hash": git_hash(),
        "settings": job.settings.model_dump(mode="json"),
        "features": [feature.name for feature in features],
        "fingerprint": job.fingerprint,
    }
    return {HEADER: json.dumps(content)}


def _save_card(
    job: TrainingJob,
    finished: Finished,
    exported: Exported,
    files: Mapping[str, str],
    targets: Sequence[Target] | None = None,
) -> ModelCard:
    """The card of one target, or of several, last of the files that it lists."""
    folder = finished.folder
    files = {**files, "history": HISTORY}
    described = targets or (finished.manifest.require_target(),)
    fields = trained_on(finished.manifest, finished.features, described) | exported.card
    card = ModelCard(
        name=job.name,
        kind=job.settings.kind,
        artefacts={role: artefact_of(folder, path) for role, path in files.items()},
        settings=job.settings.model_dump(mode="json"),
        scores={**exported.scores, **_last_record(finished.checkpoint)},
        fingerprint=job.fingerprint,
        versions=versions_of("torch", "ray", "onnx", "onnxscript", "onnxruntime", "safetensors"),
        **fields,
    )
    card.save(folder / CARD)
    return card
