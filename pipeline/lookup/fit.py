"""Fitting a look-up table on a training split, its score, and the model that it becomes."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.fold import merge_in_order
from pipeline.formats.card import CARD, ModelCard, Output, artefact_of, trained_on
from pipeline.formats.columns import Target
from pipeline.formats.errors import UserError
from pipeline.formats.files import replacing, write_text
from pipeline.formats.manifest import (
    DatasetManifest,
    Part,
    Split,
    columns_of,
    read_part,
    select_features,
)
from pipeline.formats.versions import versions_of
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.sums import TableSums
from pipeline.lookup.tables import CLASS, WEIGHT, Tables, export_csv, write_tables
from pipeline.numerics.arrays import Columns

log = logging.getLogger(__name__)

# Sums in 140,000 bins travel between workers: they do so once for this many parts.
GROUP_PARTS = 8


@dataclass(frozen=True, slots=True)
class FitPlan:
    """All that a worker needs to sum or to score some parts.

    Attributes:
        dataset: Folder of the dataset.
        settings: Of the table.
        target: What is calibrated.
        weight: Column with the rows' weights; None for 1.
        log10_range: Of the target in the training split.
    """

    dataset: Path
    settings: LookupTableSettings
    target: Target
    weight: str | None
    log10_range: tuple[float, float]

    def read(self, part: Part, *, labelled: bool) -> Columns:
        """The columns of a part's rows that the sums, or without label the score, need."""
        wanted = [*self.settings.columns, self.target.numerator, self.target.denominator]
        wanted += [self.settings.em_label] if labelled else []
        wanted += [self.weight] if self.weight is not None else []
        table = read_part(self.dataset, part, list(dict.fromkeys(wanted)))
        return columns_of(table)


def plan_fit(dataset: Path, manifest: DatasetManifest, settings: LookupTableSettings) -> FitPlan:
    """The settings applied to a dataset.

    Raises:
        UserError: It lacks a column, or has no truth.
    """
    target = manifest.require_target()
    select_features(manifest, settings.columns)
    if settings.em_label not in {column.name for column in manifest.columns}:
        msg = (
            f"em_label: the dataset has no column {settings.em_label}, the truth that tells which "
            "clusters are electromagnetic; list it in dataset.extras if the inputs have it (xAOD: "
            "ENG_CALIB_FRAC_EM), or name another label, or use a finished table in calibrate.models"
        )
        raise UserError(msg)
    weight = next((column.name for column in manifest.columns if column.role == "weight"), None)
    return FitPlan(dataset, settings, target, weight, manifest.target_range())


def group_parts(manifest: DatasetManifest, split: Split) -> list[tuple[Part, ...]]:
    """The parts of a split, in groups that one task sums; of equal size but for the last one."""
    parts = manifest.parts_of(split)
    return [parts[first : first + GROUP_PARTS] for first in range(0, len(parts), GROUP_PARTS)]


def sum_group(parts: Sequence[Part], *, plan: FitPlan) -> TableSums:
    """The sums over some parts; runs on a worker."""
    sums = [
        TableSums.of(
            plan.read(part, labelled=True),
            plan.settings,
            plan.target,
            weight=plan.weight,
            log10_range=plan.log10_range,
        )
        for part in parts
    ]
    return merge_in_order(sums, TableSums.__add__)


def score_group(parts: Sequence[Part], *, plan: FitPlan, tables: Tables) -> tuple[float, float]:
    """Sum of weights, and of weighted |log10(predicted / true target)|; runs on a worker."""
    total, error = 0.0, 0.0
    for part in parts:
        rows = plan.read(part, labelled=False)
        numerator = rows[plan.target.numerator].astype(np.float64)
        distance = np.log10(tables.factors(rows) * numerator / rows[plan.target.denominator])
        weights = np.ones(len(distance)) if plan.weight is None else rows[plan.weight]
        total += float(weights.sum(dtype=np.float64))
        error += float((weights * np.abs(distance)).sum())
    return total, error


TABLES = "tables.parquet"


def write_model(  # noqa: PLR0913 - what a card is made of
    tables: Tables,
    manifest: DatasetManifest,
    settings: LookupTableSettings,
    *,
    name: str,
    folder: Path,
    fingerprint: str,
    scores: dict[str, float],
) -> ModelCard:
    """Write the tables, the same as text, and last the card, which is returned."""
    with replacing(folder / TABLES) as temporary:
        write_tables(tables, temporary)
    named = {CLASS: tables.em_probability, WEIGHT: tables.weight}
    files = {"model": TABLES}
    for role, table in named.items():
        files[f"{role}_csv"] = f"{role}.csv"
        write_text(folder / f"{role}.csv", export_csv(table))
    target = manifest.require_target()
    card = ModelCard(
        name=name,
        kind=settings.kind,
        artefact="tables",
        artefacts={role: artefact_of(folder, path) for role, path in files.items()},
        density="point",
        outputs=(
            Output(
                name=CLASS,
                unit="1",
                shape=" x ".join(map(str, tables.em_probability.shape)),
                description=f"share of rows with {settings.em_label} >= {settings.em_from:g}",
            ),
            Output(
                name=WEIGHT,
                unit="1",
                shape=" x ".join(map(str, tables.weight.shape)),
                description=f"{settings.statistic} of {target.denominator} / {target.numerator} "
                "of the other rows",
            ),
        ),
        settings=settings.model_dump(mode="json"),
        scores=scores | _sparse_shares(name, tables),
        versions=versions_of("numba", "pyarrow"),
        fingerprint=fingerprint,
        **trained_on(manifest, select_features(manifest, settings.columns), (target,)),
    )
    card.save(folder / CARD)
    return card


def _sparse_shares(model: str, tables: Tables) -> dict[str, float]:
    """By table: the share of the training rows whose bin has too few of them; all of it is told."""
    shares = {}
    for name, table in ((CLASS, tables.em_probability), (WEIGHT, tables.weight)):
        found = table.rows_by_level()
        for level, (bins, rows) in found.items():
            log.info("%s: table %s: %s: %d bins, %d rows", model, name, level, bins, rows)
        entries = table.filled.entries.sum()
        own = found.get("own entries", (0, 0))[1]
        shares[f"sparse_rows_{name}"] = float(1 - own / entries)
    return shares
