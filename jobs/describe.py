"""Show what is in a dataset or a model as tables, and check its files.

Run: topocal describe FOLDER [--verify]
FOLDER is a dataset, a study's output that holds one, or a model. Writes nothing.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.describe import (
    TextTable,
    describe_dataset,
    describe_model,
    verify_artefacts,
    verify_parts,
)
from pipeline.formats.card import CARD, read_card
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import MANIFEST, DatasetManifest, read_manifest

WIDE = 240  # columns of a log, where nothing may be cut off


def main(argv: Sequence[str]) -> int:
    """Describe the folder that the arguments name; 2 if it is not what it should be."""
    parser = argparse.ArgumentParser(prog="topocal describe")
    parser.add_argument("folder", type=Path, help="a dataset, a study's output, or a model")
    parser.add_argument("--verify", action="store_true", help="recompute every checksum")
    arguments = parser.parse_args(argv)
    try:
        _describe(arguments.folder, verify=arguments.verify)
    except UserError as error:
        sys.stderr.write(f"topocal describe: {error}\n")
        return 2
    return 0


def _describe(folder: Path, *, verify: bool) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    if (folder / CARD).exists():
        card = read_card(folder)
        _show(console, describe_model(card))
        if verify:
            size = verify_artefacts(folder, card)
            console.print(f"verified: {len(card.artefacts)} files, {size:,} bytes", markup=False)
        return
    if not (folder / MANIFEST).exists() and (folder / "dataset" / MANIFEST).exists():
        folder /= "dataset"
    manifest = read_manifest(folder)
    console.print(f"{folder}: {_sentence(manifest)}", markup=False, soft_wrap=True)
    _show(console, describe_dataset(manifest))
    if verify:
        size = verify_parts(folder, manifest)
        console.print(f"verified: {len(manifest.parts)} parts, {size:,} bytes", markup=False)


def _sentence(manifest: DatasetManifest) -> str:
    rows = sum(part.rows for part in manifest.parts)
    names = [target.name for target in manifest.every_target]
    what = f"target{'s' * (len(names) > 1)} {', '.join(names)}" if names else "no truth"
    gaps = f", {len(manifest.missing)} pieces are missing" if manifest.missing else ""
    return (
        f"{rows:,} clusters with {len(manifest.features)} features, {what}, "
        f"from {len(manifest.inputs)} files{gaps}; fingerprint {manifest.fingerprint}"
    )


def _show(console: Console, tables: Iterable[TextTable]) -> None:
    for text in tables:
        if not text.rows:
            continue
        table = Table(title=text.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for name, cells in zip(text.header, zip(*text.rows, strict=True), strict=True):
            is_number = all(cell[0] in "-.0123456789" for cell in cells)
            table.add_column(name, justify="right" if is_number else "left", overflow="fold")
        for row in text.rows:
            table.add_row(*row)
        console.print(table, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
