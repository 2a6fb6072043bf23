"""A tiny dataset with four features and a known density, and settings that train in seconds."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from statistics_fixture import statistics_of

from pipeline.formats.columns import Column, Feature, Target
from pipeline.formats.manifest import MANIFEST, DatasetManifest, Part, Split
from training.job import Resources, TrainingJob
from training.settings import (
    BnnSettings,
    DnnSettings,
    OptimizerSettings,
    RepulsiveEnsembleSettings,
)

FEATURES = (
    Feature(name="sum", unit="MeV", transform="log10_standard"),
    Feature(name="depth", unit="mm", transform="standard"),
    Feature(name="angle", transform="max_abs"),
    Feature(name="share", transform="none"),
)
TARGET = Target(
    name="gain",
    numerator="sum",
    denominator="true_sum",
    calibrated="corrected",
    calibrated_unit="MeV",
)
ROWS: dict[Split, int] = {"train": 2900, "validation": 700, "test": 100}


def tiny_settings(**changes: object) -> BnnSettings:
    """Two hidden layers of 16 and 12 units, two components, three weight sets."""
    values: dict[str, object] = {
        "hidden": (16, 12),
        "components": 2,
        "samples": 3,
        "epochs": 3,
        "batch_rows": 1100,
        "optimizer": OptimizerSettings(learning_rate=3e-3, milestones=(2,)),
    }
    return BnnSettings.model_validate(values | changes)


def tiny_ensemble(**changes: object) -> RepulsiveEnsembleSettings:
    """Five members of the same networks."""
    values = tiny_settings().model_dump(include=RepulsiveEnsembleSettings.model_fields.keys())
    values |= {"kind": "repulsive_ensemble", "members": 5}
    return RepulsiveEnsembleSettings.model_validate(values | changes)


def tiny_dnn(**changes: object) -> DnnSettings:
    """Two hidden layers of 16 and 12 units; the kernel leaks in the first two of three epochs."""
    values = tiny_settings().model_dump(include={"hidden", "batch_rows", "optimizer"})
    values |= {"stages": [{"epochs": 2, "leakiness": 0.05}, {"epochs": 1}], "width": 0.3}
    return DnnSettings.model_validate(values | changes)


def write_tiny_dataset(
    folder: Path,
    *,
    with_weights: bool = False,
    rows: dict[Split, int] | None = None,
    group_rows: int = 65_536,
) -> Path:
    """Write manifest and parts; log10 of the target has two components that follow the depth."""
    rng = np.random.default_rng(5)
    rows = ROWS if rows is None else rows
    parts, statistics = [], {}
    for split, count in rows.items():
        columns = _columns(rng, count, with_weights=with_weights)
        if split == "train":
            statistics = {name: statistics_of(values) for name, values in columns.items()}
        for index, chunk in enumerate(np.array_split(np.arange(count), 2)):
            part = {name: values[chunk] for name, values in columns.items()}
            parts.append(_write_part(folder, split, index, part, group_rows))
    columns_listed = [Column(name=item.name, unit=item.unit, role="feature") for item in FEATURES]
    columns_listed.append(Column(name=TARGET.name, role="target"))
    if with_weights:
        columns_listed.append(Column(name="event_weight", role="weight"))
    DatasetManifest(
        fingerprint="tiny",
        settings_fingerprint="settings",
        features=FEATURES,
        target=TARGET,
        columns=tuple(columns_listed),
        inputs=(),
        cut_flow=(),
        floors=(),
        split={},
        parts=tuple(parts),
        statistics=statistics,
        versions={},
    ).save(folder / MANIFEST)
    return folder


def _columns(rng: np.random.Generator, count: int, *, with_weights: bool) -> dict[str, np.ndarray]:
    depth = rng.normal(400.0, 120.0, count)
    is_low = rng.random(count) < 0.3
    shift = 0.1 * np.tanh((depth - 400.0) / 120.0)
    log_r = np.where(is_low, rng.normal(-0.4, 0.12, count), rng.normal(0.1, 0.05, count)) + shift
    columns = {
        "sum": 10 ** rng.normal(2.0, 0.6, count),
        "depth": depth,
        "angle": rng.uniform(-2.5, 2.5, count),
        "share": rng.random(count),
        TARGET.name: 10**log_r,
    }
    if with_weights:
        columns["event_weight"] = rng.uniform(0.2, 3.0, count)
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _write_part(
    folder: Path, split: Split, index: int, columns: dict[str, np.ndarray], group_rows: int
) -> Part:
    path = folder / f"split={split}" / f"part-{index:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group_rows)
    content = path.read_bytes()
    return Part(
        path=str(path.relative_to(folder)),
        split=split,
        index=index,
        rows=len(next(iter(columns.values()))),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def job_of(dataset, settings, *, name, seed, folder, fingerprint, labels=None, **resources):
    """A training of what `train` of a test has, on resources that are named alone."""
    return TrainingJob(
        dataset,
        settings,
        name=name,
        seed=seed,
        folder=folder,
        fingerprint=fingerprint,
        labels=labels,
        resources=Resources(**resources),
    )
