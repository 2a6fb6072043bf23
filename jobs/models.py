"""The models that a study calibrates with: its own, and finished ones that it names by folder."""

from pathlib import Path

from jobs.study import Study
from jobs.targets import label_of
from jobs.train import model_folder, open_trained
from pipeline.formats.card import ModelCard, read_card
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest


def model_names(study: Study, manifest: DatasetManifest) -> list[str]:
    """The names of the models that predict the target of a view of the dataset, each once."""
    label = label_of(manifest)
    own = [n for n, model in study.models.items() if not label or label in (model.targets or ())]
    found = [name for name in study.calibrate.models if _predicts(study, name, label)]
    return list(dict.fromkeys([*own, *found]))


def _predicts(study: Study, name: str, label: str) -> bool:
    """Whether a finished model predicts a target, if it is one of several."""
    targets = read_card(Path(study.calibrate.models[name])).targets if label else ()
    return not label or label in {target.name for target in targets}


def open_model(study: Study, name: str, manifest: DatasetManifest) -> tuple[Path, ModelCard]:
    """The folder and card of a model.

    Raises:
        UserError: It is missing; a model of the study was trained with other settings or on
            another dataset; a finished one wants columns that the dataset lacks.
    """
    given = study.calibrate.models.get(name)
    if given is None:
        if manifest.target is None:
            msg = (
                f"models.{name}: the dataset has no truth to train on; name the folder of a "
                f"finished model in calibrate.models.{name}"
            )
            raise UserError(msg)
        return of_target(model_folder(study, name), open_trained(study, name, manifest), manifest)
    folder, card = of_target(Path(given), read_card(Path(given)), manifest)
    card.require_files(folder, made_by="train")
    _refuse_misfit(folder, card, manifest)
    return folder, card


def of_target(folder: Path, card: ModelCard, manifest: DatasetManifest) -> tuple[Path, ModelCard]:
    """A model, or of one with several targets what predicts the one of a view of the dataset."""
    if len(card.targets) < 2 or manifest.target is None:
        return folder, card
    return folder / manifest.target.name, read_card(folder / manifest.target.name)


def _refuse_misfit(folder: Path, card: ModelCard, manifest: DatasetManifest) -> None:
    target = card.require_target()
    units = {column.name: column.unit for column in manifest.columns}
    wanted = {feature.name: feature.unit for feature in card.inputs}
    wanted |= {target.numerator: target.calibrated_unit}
    missing = [name for name in wanted if name not in units]
    if missing:
        msg = (
            f"{folder}: the model needs {', '.join(missing)}, which the dataset lacks; add them "
            "to dataset.features, or use a model that was trained without them"
        )
        raise UserError(msg)
    other = [name for name in wanted if wanted[name] != units[name]]
    if other:
        name = other[0]
        msg = f"{folder}: the model has {name} in {wanted[name]}, the dataset in {units[name]}"
        raise UserError(msg)
    if manifest.target not in {None, target}:
        msg = f"{folder}: the model predicts {target.name}, not the dataset's target"
        raise UserError(msg)
