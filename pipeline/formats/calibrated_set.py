"""The manifest of a calibrated set: one part for each part of a dataset's split, row by row.

Labels and tags are columns beside a dataset in the same form, a part for each part of every split.
"""

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.formats.columns import Target
from pipeline.formats.manifest import MANIFEST, Part, Split
from pipeline.formats.records import OutputRecord, Record

# Columns of quantiles of the target, by name: the probability.
QUANTILES = {"q025": 0.025, "q16": 0.16, "median": 0.5, "q84": 0.84, "q975": 0.975}


class Functionals(NamedTuple):
    """What the central value and the sigmas of a set are.

    Attributes:
        central: The functional in the column of the target's name; "point" for an estimate that
            is no functional of a known density.
        sigma: How the linear sigmas were computed; None without sigmas.
        search_range: log10 range in which modes were searched and moments integrated; None without.
    """

    central: str
    sigma: str | None = None
    search_range: tuple[float, float] | None = None


class CalibratedColumn(Record):
    """One column of a calibrated set."""

    name: str
    unit: str
    description: str


class CalibratedManifest(OutputRecord):
    """All that a reader of a calibrated set may rely on; it is written last.

    Attributes:
        fingerprint: Of everything that the set follows from.
        dataset_fingerprint: The dataset whose split was calibrated.
        name: Of the model; "oracle" for the exact density.
        kind: Of the model; "oracle" for the exact density.
        split: The calibrated split.
        target: What was predicted.
        central: The functional in the column of the target's name.
        sigma: How the linear sigmas were computed; None for a set without.
        search_range: log10 range in which modes were searched and moments integrated; None for a
            set without density.
        columns: Columns besides `cluster_id`; a set without density lacks some of them.
        parts: In the order of the dataset's parts of that split, with equal row counts.
        rows_at_bound: Rows whose mode met a bound of the search range, by mode.
        rows_out_of_domain: Rows with a feature outside the model's training range.
    """

    format_version: Literal[1] = 1
    dataset_fingerprint: str
    name: str
    kind: str
    split: Split
    target: Target
    central: str
    sigma: str | None
    search_range: tuple[float, float] | None
    columns: tuple[CalibratedColumn, ...]
    parts: tuple[Part, ...]
    rows_at_bound: dict[str, int]
    rows_out_of_domain: int
    versions: dict[str, str]

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {part.path: part.size for part in self.parts}


def calibrated_columns(target: Target, has_truth: bool) -> tuple[CalibratedColumn, ...]:
    """Names, units and meanings of the columns of a calibrated set, besides `cluster_id`."""
    name, unit, log = target.name, target.unit, target.transform
    is_log = log == "log10"
    calibrated = f"{target.numerator} / {name}" if target.inverse == "divide" else name
    sigmas = [
        (f"sigma_syst_{log}", "1", f"systematic uncertainty of {log} {name}"),
        (f"sigma_stat_{log}", "1", f"statistical uncertainty of {log} {name}"),
        (f"sigma_tot_{log}", "1", f"total uncertainty of {log} {name}"),
    ]
    mode = (f"mode_{log}", unit, f"{name} at the most probable {log} {name}")
    rows = [
        (name, unit, f"calibrated {name}, the functional named in the manifest"),
        (target.calibrated, target.calibrated_unit, calibrated),
        ("sigma_syst", unit, f"systematic uncertainty of {name} (Eq. 41)"),
        ("sigma_stat", unit, f"statistical uncertainty of {name} (Eq. 42)"),
        ("sigma_tot", unit, f"total uncertainty of {name} (Eq. 40)"),
        *(sigmas if is_log else ()),
        ("mode_linear", unit, f"most probable {name}"),
        *((mode,) if is_log else ()),
        ("median", unit, f"median of {name}"),
        ("mean", unit, f"mean of {name} within the search range"),
        ("q025", unit, f"2.5 % quantile of {name}"),
        ("q16", unit, f"16 % quantile of {name}"),
        ("q84", unit, f"84 % quantile of {name}"),
        ("q975", unit, f"97.5 % quantile of {name}"),
        ("in_domain", "1", "every feature lies within its training range"),
    ]
    if has_truth:
        rows += [
            ("log_density", "1", f"natural log of the density of {target.space} at the true value"),
            ("pit", "1", f"probability of a {name} below the true value"),
            (
                "crps",
                "1" if is_log else unit,
                f"continuous ranked probability score of {target.space}; NaN if not drawn",
            ),
        ]
    return tuple(CalibratedColumn(name=n, unit=u, description=d) for n, u, d in rows)


def describe_columns(target: Target, names: Collection[str]) -> tuple[CalibratedColumn, ...]:
    """Those of the columns of a calibrated set that have these names."""
    return tuple(c for c in calibrated_columns(target, has_truth=True) if c.name in names)


def read_calibrated(folder: Path) -> CalibratedManifest:
    """The manifest of the calibrated set in a folder."""
    return CalibratedManifest.load(folder / MANIFEST, made_by="calibrate")


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
