"""A dataset of several targets, as the stages that know one target see it.

Calibrated sets, metrics and reports are made for each target, in a folder of its name; with one
target they are where they are in every study.
"""

from pathlib import Path

from pipeline.formats.manifest import DatasetManifest


def views_of(manifest: DatasetManifest) -> tuple[DatasetManifest, ...]:
    """The dataset as each of its targets sees it; itself where there is one target or none."""
    return tuple(manifest.for_target(target) for target in manifest.targets) or (manifest,)


def place_of(folder: Path, manifest: DatasetManifest) -> Path:
    """Where a stage puts what it makes of one target."""
    return folder / label_of(manifest) if label_of(manifest) else folder


def stage_of(stage: str, manifest: DatasetManifest) -> str:
    """What a stage is called in messages and records."""
    return f"{stage}/{label_of(manifest)}" if label_of(manifest) else stage


def label_of(manifest: DatasetManifest) -> str:
    """The name of a view's target where there are several; else nothing."""
    return manifest.target.name if manifest.targets and manifest.target is not None else ""
