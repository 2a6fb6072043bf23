"""A fitted look-up table as a model: its files and its card."""

import logging
from pathlib import Path

from pipeline.formats.card import CARD, ModelCard, Output, artefact_of, trained_on
from pipeline.formats.files import replacing, write_text
from pipeline.formats.manifest import DatasetManifest, select_features
from pipeline.formats.versions import versions_of
from pipeline.lookup.settings import LookupTableSettings
from pipeline.lookup.tables import CLASS, WEIGHT, Tables, export_csv, write_tables

log = logging.getLogger(__name__)

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
    target = manifest.target
    assert target is not None  # noqa: S101 - the sums were of it
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
        **trained_on(manifest, select_features(manifest, settings.columns)),
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
