"""Columns beside a dataset: labels and tags, one part for each part of every split, row by row."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline.formats.manifest import MANIFEST, Part
from pipeline.formats.records import OutputRecord

LABEL, SCORE, TAGGED = "label", "score", "is_tagged"


class AlignedManifest(OutputRecord):
    """What lies beside a dataset; written last.

    Attributes:
        dataset_fingerprint: The dataset whose rows it follows.
        parts: With the paths, indices and row counts of the dataset's parts.
        versions: Software.
    """

    format_version: Literal[1] = 1
    dataset_fingerprint: str
    parts: tuple[Part, ...]
    versions: dict[str, str]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {part.path: part.size for part in self.parts}

    @cached_property
    def by_path(self) -> dict[str, Part]:
        """The parts by the paths that the dataset's have as well."""
        return {part.path: part for part in self.parts}


class LabelManifest(AlignedManifest):
    """Labels: `cluster_id` and `label`, 1 for what a tagger shall find, else 0.

    Attributes:
        rule: The definition of the label, for a reader.
    """

    rule: str


class TagManifest(AlignedManifest):
    """Tags: `cluster_id`, `score` (the tagger's probability of the label) and `is_tagged`.

    Attributes:
        rule: The definition of the label, for a reader.
        threshold: Of the score; rows above it are tagged.
        figures: Headline figures by name.
        tables: Other files by name: their size.
        settings: The study's section tag.
    """

    rule: str
    threshold: float
    figures: dict[str, float]
    tables: dict[str, int]
    settings: dict[str, Any]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        tables = {f"{name}.parquet": size for name, size in self.tables.items()}
        return {**super().files, **tables}


def read_labels(folder: Path) -> LabelManifest:
    """The manifest of the labels in a folder."""
    return LabelManifest.load(folder / MANIFEST, made_by="tag")
