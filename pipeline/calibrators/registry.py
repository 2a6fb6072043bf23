"""A finished model's folder and card as something that calibrates rows."""

from pathlib import Path

from pipeline.calibrators.density import OnnxDensity, Summariser
from pipeline.calibrators.estimates import OnnxFile, PointModel, QuantileModel
from pipeline.calibrators.lookup_table import LookupTable
from pipeline.calibrators.protocol import Calibrator
from pipeline.formats.card import Artefact, ModelCard
from pipeline.settings import SummarySettings


def bulk_artefact(card: ModelCard) -> Artefact:
    """The file that bulk work reads: the networks alone, where the summaries are made here."""
    return card.artefacts["networks" if card.density == "gaussian_mixture" else "model"]


def open_calibrator(folder: Path, card: ModelCard, settings: SummarySettings) -> Calibrator:
    """A model ready for rows; its file is read by the process that calibrates.

    Raises:
        UserError: It predicts a label, which calibrates nothing.
    """
    file = bulk_artefact(card)
    path, inputs = folder / file.path, tuple(feature.name for feature in card.inputs)
    ranges = {n: (r.minimum, r.maximum) for n, r in card.input_ranges.items()}
    target = card.require_target()
    low, high = card.target_ranges[target.name]
    if card.log_variance_bounds is not None:
        return Summariser(
            density=OnnxDensity(path, file.sha256, inputs, card.log_variance_bounds),
            target=target,
            search_range=(low - settings.margin, high + settings.margin),
            ranges=ranges,
            settings=settings,
        )
    if card.artefact == "tables":
        return LookupTable(path, file.sha256, inputs, target, ranges)
    model = OnnxFile(path, file.sha256, inputs)
    if card.density == "quantiles":
        return QuantileModel(model, target, ranges, card.quantile_levels)
    return PointModel(model, target, ranges)
