"""A model's card as tables for a person."""

from pathlib import Path

from pipeline.formats.card import ModelCard, require_artefact
from pipeline.formats.columns import Target
from pipeline.text_table import TextTable


def describe_model(card: ModelCard) -> list[TextTable]:
    """What a model was trained on, what goes in and comes out, how good it is, how to cite it."""
    return [
        _origin(card),
        _inputs(card),
        _selection(card),
        TextTable(
            "Outputs",
            ("name", "unit", "shape", "meaning"),
            [(item.name, item.unit, item.shape, item.description) for item in card.outputs],
        ),
        TextTable(
            "Validation scores",
            ("score", "value"),
            [(name, f"{value:.6g}") for name, value in card.scores.items()],
        ),
        TextTable(
            "Settings",
            ("setting", "value"),
            [(name, str(value)) for name, value in card.settings.items()],
        ),
    ]


def verify_artefacts(folder: Path, card: ModelCard) -> int:
    """Recompute the checksums of a model's files; their bytes in all.

    Raises:
        UserError: One is missing or is not the one that the card lists.
    """
    for item in card.artefacts.values():
        require_artefact(folder / item.path, item.sha256)
    return sum(item.size for item in card.artefacts.values())


def _origin(card: ModelCard) -> TextTable:
    rows = [
        *(row for target in card.targets for row in _target_rows(card, target)),
        ("predicts", _prediction(card)),
        ("dataset", card.data_fingerprint),
        ("model", card.fingerprint),
        ("commit", card.git_hash),
        ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
        ("cite", card.citation),
    ]
    return TextTable(f"{card.name} ({card.kind})", ("", "value"), rows)


def _target_rows(card: ModelCard, target: Target) -> list[tuple[str, str]]:
    low, high = card.target_ranges[target.name]
    return [
        ("target", f"{target.name} = {target.numerator} / {target.denominator}"),
        ("calibrated value", f"{target.calibrated} [{target.calibrated_unit}]"),
        (f"training range of {target.name}", f"{10**low:.4g} to {10**high:.4g}"),
    ]


def _prediction(card: ModelCard) -> str:
    if card.density == "categorical":
        return "the probability of a label, one value a cluster"
    if card.density == "gaussian_mixture":
        return f"densities: {card.num_networks} networks, {card.num_components} components each"
    if card.density == "quantiles":
        return f"quantiles: {', '.join(f'{level:g}' for level in card.quantile_levels)}"
    return "one value a cluster, without uncertainty"


def _inputs(card: ModelCard) -> TextTable:
    rows = []
    for bit, feature in enumerate(card.inputs):
        reach = card.input_ranges[feature.name]
        rows.append((
            str(bit),
            feature.name,
            feature.unit,
            feature.transform,
            f"{reach.minimum:.6g}",
            f"{reach.maximum:.6g}",
        ))
    header = ("column", "feature", "unit", "transform", "training min", "training max")
    return TextTable("Inputs, raw and in this order", header, rows)


def _selection(card: ModelCard) -> TextTable:
    rows = [(cut.rule, "cut: others get no calibration") for cut in card.cuts]
    rows += [(f"{name} >= {floor:g}", "floor: raised") for name, floor in card.floors.items()]
    return TextTable("Selection of the training clusters", ("rule", "what happens"), rows)
