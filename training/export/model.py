"""The model that leaves the training: its networks as ONNX, all weights, and the card."""

import json
from collections.abc import Sequence

from safetensors.torch import save_file

from pipeline.formats.card import CARD, ModelCard, artefact_of, trained_on
from pipeline.formats.columns import Feature
from pipeline.formats.files import replacing
from pipeline.formats.manifest import read_manifest, select_features
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

    Raises:
        RuntimeError: The training is not finished, or the file written disagrees with torch.
    """
    folder, settings = job.folder, job.settings
    checkpoint = newest_checkpoint(folder, job.fingerprint)
    if checkpoint is None or checkpoint.epoch != settings.epochs:
        msg = f"{folder}: no checkpoint after epoch {settings.epochs} with this fingerprint"
        raise RuntimeError(msg)
    manifest = read_manifest(job.dataset)
    features = select_features(manifest, settings.features)
    finished = Finished(
        folder=folder,
        dataset=job.dataset,
        manifest=manifest,
        features=features,
        checkpoint=checkpoint,
        seed=job.seed,
        validation=open_split(
            job.dataset, manifest, features, "validation", settings.memory_mib, job.labels
        ),
    )
    exported: Exported = kind_of(settings).open_export()(finished, settings)
    with replacing(folder / WEIGHTS) as temporary:
        metadata = _header_of(job, features)
        save_file(exported.weights, temporary, metadata=metadata)
    card = _card_of(job, finished, exported)
    card.save(folder / CARD)
    return card


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


def _card_of(job: TrainingJob, finished: Finished, exported: Exported) -> ModelCard:
    files = {**exported.files, "weights": WEIGHTS, "history": HISTORY}
    fields = trained_on(finished.manifest, finished.features) | exported.card
    return ModelCard(
        name=job.name,
        kind=job.settings.kind,
        artefacts={role: artefact_of(finished.folder, path) for role, path in files.items()},
        settings=job.settings.model_dump(mode="json"),
        scores={**exported.scores, **_last_record(finished.checkpoint)},
        fingerprint=job.fingerprint,
        versions=versions_of("torch", "ray", "onnx", "onnxscript", "onnxruntime", "safetensors"),
        **fields,
    )
