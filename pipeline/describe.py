"""What is in a dataset, and what a model's card says, as tables for a person at a terminal."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.formats.card import ModelCard, require_artefact
from pipeline.formats.columns import Target
from pipeline.formats.errors import UserError
from pipeline.formats.families import FAMILIES
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import SPLITS, DatasetManifest, Part
from pipeline.formats.transforms import ColumnStatistics


class TextTable(NamedTuple):
    """A table of texts with a heading, for a terminal."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def describe_model(card: ModelCard) -> list[TextTable]:
    """What a model was trained on, what goes in and comes out, how good it is, how to cite it."""
    return [
        _origin(card),
        _card_inputs(card),
        _selection(card),
        TextTable(
            "Outputs",
            ("name", "unit", "shape", "meaning"),
            [(item.name, item.unit, item.shape, item.description) for item in card.outputs],
        ),
        TextTable(
            "Validation scores",
            ("score", "value"),
            [(name, f"{value:.6g}") for name, value in (card.scores | card.checks).items()],
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
    ends = target.restored(np.array(card.target_ranges[target.name]))
    return [
        ("target", f"{target.name} = {target.definition}"),
        ("calibrated value", f"{target.calibrated} [{target.calibrated_unit}]"),
        (f"training range of {target.name}", f"{ends[0]:.4g} to {ends[1]:.4g}"),
    ]


def _prediction(card: ModelCard) -> str:
    if card.density == "categorical":
        return "the probability of a label, one value a cluster"
    if card.density in FAMILIES:
        family = card.density.replace("_", " ")
        return f"{family}: {card.num_networks} networks, {card.num_components} components each"
    if card.density == "quantiles":
        return f"quantiles: {', '.join(f'{level:g}' for level in card.quantile_levels)}"
    return "one value a cluster, without uncertainty"


def _card_inputs(card: ModelCard) -> TextTable:
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


MOST_INPUTS = 20  # that are listed one by one


def describe_dataset(manifest: DatasetManifest) -> list[TextTable]:
    """Splits, cut flow, columns with their statistics, inputs, and what is missing."""
    return [
        _splits(manifest),
        _cut_flow(manifest),
        _floors(manifest),
        _columns(manifest),
        _statistics(manifest),
        _inputs(manifest),
        _missing(manifest),
    ]


def verify_parts(folder: Path, manifest: DatasetManifest) -> int:
    """Recompute the checksum of every part; their bytes in all.

    Raises:
        UserError: Parts are missing or have other contents; all are named.
    """

    def problem(part: Part) -> str | None:
        try:
            return None if sha256_of(folder / part.path) == part.sha256 else "has other contents"
        except FileNotFoundError:
            return "is missing"

    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter to the others
        problems = list(pool.map(problem, manifest.parts))
    bad = [
        f"{part.path} {what}" for part, what in zip(manifest.parts, problems, strict=True) if what
    ]
    if bad:
        msg = (
            f"{folder}: {len(bad)} of {len(manifest.parts)} parts are not those that the manifest "
            f"lists: {', '.join(bad)}; run `topocal ingest` again with --redo"
        )
        raise UserError(msg)
    return sum(part.size for part in manifest.parts)


def _splits(manifest: DatasetManifest) -> TextTable:
    rows = []
    for split in SPLITS:
        parts = manifest.parts_of(split)
        size = sum(part.size for part in parts) / 2**20
        fraction = "-" if not manifest.every_target else f"{manifest.split[split]:g}"
        rows.append((
            split,
            f"{manifest.rows_of(split):,}",
            fraction,
            f"{len(parts)}",
            f"{size:,.1f}",
        ))
    unit, seed = manifest.split["unit"], manifest.split["seed"]
    title = (
        f"Split by {unit}, seed {seed}" if manifest.every_target else "No truth: all rows are test"
    )
    return TextTable(title, ("split", "rows", "asked", "parts", "MiB"), rows)


def _cut_flow(manifest: DatasetManifest) -> TextTable:
    rows = [
        (
            step.rule,
            f"{step.before:,}",
            f"{step.after:,}",
            f"{step.before - step.after:,}",
            f"{100 * step.after / step.before:.2f}" if step.before else "-",
        )
        for step in manifest.cut_flow
    ]
    return TextTable("Cut flow", ("cut", "before", "after", "removed", "kept [%]"), rows)


def _floors(manifest: DatasetManifest) -> TextTable:
    rows = [(floor.column, f"{floor.floor:g}", f"{floor.rows:,}") for floor in manifest.floors]
    return TextTable("Floors", ("column", "floor", "rows raised"), rows)


def _columns(manifest: DatasetManifest) -> TextTable:
    transforms = {feature.name: feature.transform for feature in manifest.features}
    rows = [
        (column.name, column.unit, column.role, transforms.get(column.name, "-"))
        for column in manifest.columns
    ]
    return TextTable("Columns", ("name", "unit", "role", "transform"), rows)


def _statistics(manifest: DatasetManifest) -> TextTable:
    rows = [(name, *_numbers(values)) for name, values in manifest.statistics.items()]
    header = ("column", "mean", "std", "min", "max", "mean of log10", "std of log10")
    first = next(iter(manifest.statistics.values()), None)
    title = "Statistics"
    if first is not None:
        title = (
            f"Statistics of {first.count:,} training rows, "
            f"sum of weights {first.sum_of_weights:,.10g}"
        )
    return TextTable(title, header, rows)


def _numbers(values: ColumnStatistics) -> Sequence[str]:
    numbers = (
        values.mean,
        values.std,
        values.minimum,
        values.maximum,
        values.log10_mean,
        values.log10_std,
    )
    return ["-" if number is None else f"{number:.6g}" for number in numbers]


def _inputs(manifest: DatasetManifest) -> TextTable:
    files = manifest.inputs
    rows = [
        (
            file.path,
            f"{file.entries:,}",
            f"{file.rows:,}",
            "-" if file.size is None else f"{file.size / 2**20:,.1f}",
            "known" if file.simulation is not None else "-",
        )
        for file in files[:MOST_INPUTS]
    ]
    if len(files) > MOST_INPUTS:
        rest = files[MOST_INPUTS:]
        entries, clusters = sum(f.entries for f in rest), sum(f.rows for f in rest)
        size = sum(f.size or 0 for f in rest) / 2**20
        rows.append((f"and {len(rest)} more", f"{entries:,}", f"{clusters:,}", f"{size:,.1f}", "-"))
    return TextTable("Inputs", ("file", "entries", "clusters", "MiB", "exact density"), rows)


def _missing(manifest: DatasetManifest) -> TextTable:
    rows = [
        (gap.path, "all" if gap.start is None else f"{gap.start:,} to {gap.stop:,}", gap.reason)
        for gap in manifest.missing
    ]
    return TextTable("Missing; run ingest again to fetch it", ("file", "clusters", "reason"), rows)
