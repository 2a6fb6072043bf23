"""The kinds of models that can calibrate rows, by what their cards say, one line each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.calibrators.density import OnnxDensity, Summariser
from pipeline.calibrators.estimates import OnnxFile, PointModel, QuantileModel
from pipeline.calibrators.lookup_table import LookupTable
from pipeline.calibrators.protocol import Calibrator, Ranges
from pipeline.formats.card import Artefact, ModelCard
from pipeline.formats.columns import Target
from pipeline.formats.errors import UserError
from pipeline.formats.families import FAMILIES
from pipeline.formats.model_inputs import split_features
from pipeline.settings import SummarySettings


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A card and what every calibrator takes from it.

    Attributes:
        card: Of the model.
        path: Of the file that calibrates in bulk.
        sha256: Of that file.
        inputs: Its columns, in order.
        ranges: By input: the training range.
        target: What it predicts.
        settings: Which functionals of a density become the central value and the sigmas.
    """

    card: ModelCard
    path: Path
    sha256: str
    inputs: tuple[str, ...]
    ranges: Ranges
    target: Target
    settings: SummarySettings

    @property
    def file(self) -> OnnxFile:
        """The file, if it is ONNX; each process reads it once."""
        return OnnxFile(self.path, self.sha256, self.inputs)


def _open_density(model: OpenedModel) -> Summariser:
    low, high = model.card.target_ranges[model.target.name]
    margin, bounds = model.settings.margin, model.card.log_variance_bounds
    if bounds is None:
        msg = f"{model.path.parent}: its card has no log_variance_bounds; train it again"
        raise UserError(msg)
    features, tables = split_features(model.card.inputs)
    family = model.card.density
    return Summariser(
        density=OnnxDensity(model.path, model.sha256, features, bounds, family, tables),
        target=model.target,
        search_range=(low - margin, high + margin),
        ranges=model.ranges,
        settings=model.settings,
    )


def _open_quantiles(model: OpenedModel) -> QuantileModel:
    return QuantileModel(model.file, model.target, model.ranges, model.card.quantile_levels)


def _open_point(model: OpenedModel) -> PointModel:
    return PointModel(model.file, model.target, model.ranges)


def _open_tables(model: OpenedModel) -> LookupTable:
    return LookupTable(model.path, model.sha256, model.inputs, model.target, model.ranges)


@dataclass(frozen=True, slots=True)
class CalibratorKind:
    """How models of one artefact and density calibrate.

    Attributes:
        open: Makes the calibrator.
        role: Of the artefact that it reads: "networks" are parameters of densities; what follows
            is computed here, faster and with more digits than in the model's own graph.
    """

    open: Callable[[OpenedModel], Calibrator]
    role: str = "model"


FAMILY = "family"  # of densities: any of those in `families`

# By the card's artefact and density. A density that is not here calibrates nothing.
CALIBRATORS = {
    ("onnx", FAMILY): CalibratorKind(_open_density, "networks"),
    ("onnx", "quantiles"): CalibratorKind(_open_quantiles),
    ("onnx", "point"): CalibratorKind(_open_point),
    ("tables", "point"): CalibratorKind(_open_tables),
}


def bulk_artefact(card: ModelCard) -> Artefact:
    """The file that bulk work reads."""
    kind = _kind_of(card)
    return card.artefacts["model" if kind is None else kind.role]


def _kind_of(card: ModelCard) -> CalibratorKind | None:
    density = FAMILY if card.density in FAMILIES else card.density
    return CALIBRATORS.get((card.artefact, density))


def open_calibrator(folder: Path, card: ModelCard, settings: SummarySettings) -> Calibrator:
    """A model ready for rows; its file is read by the process that calibrates.

    Args:
        folder: Of the model.
        card: Of the model.
        settings: Of the study's section `calibrate`.

    Raises:
        UserError: It predicts a label, which calibrates nothing.
    """
    target, file = card.require_target(), bulk_artefact(card)
    model = OpenedModel(
        card=card,
        path=folder / file.path,
        sha256=file.sha256,
        inputs=tuple(feature.name for feature in card.inputs),
        ranges={name: (each.minimum, each.maximum) for name, each in card.input_ranges.items()},
        target=target,
        settings=settings,
    )
    kind = _kind_of(card)
    if kind is None:
        known = [*FAMILIES, *(density for _, density in CALIBRATORS if density != FAMILY)]
        msg = (
            f"{folder}: its card names the density {card.density}, and this installation knows "
            f"{', '.join(dict.fromkeys(known))}; install the package that it was trained with"
        )
        raise UserError(msg)
    return kind.open(model)
