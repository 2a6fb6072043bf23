"""A small sample whose density is known: exactly, and slightly wrongly."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.special import ndtr, ndtri
from statistics_fixture import statistics_of

from pipeline.formats.columns import Column, Cut, Feature, Target
from pipeline.formats.manifest import (
    CutCount,
    DatasetManifest,
    FloorCount,
    InputFile,
    Part,
)

Table = dict[str, NDArray[Any]]

TOPO = Target()
OTHER = Target(
    name="light_yield", numerator="charge", denominator="true_charge", calibrated="photons"
)


def make_table(
    rows: int, *, seed: int = 1, target: Target = TOPO, weighted: bool = False, scale: float = 1.0
) -> Table:
    """Columns of a dataset's part: numerator log-uniform, log10 of the target Gaussian."""
    random = np.random.default_rng(seed)
    numerator = scale * 10 ** random.uniform(-0.5, 2.5, rows)
    fraction = random.uniform(0, 1, rows)
    mean, sigma = density(numerator / scale, fraction)
    ratio = 10 ** random.normal(mean, sigma)
    table = {
        "cluster_id": np.arange(rows, dtype=np.uint64) + 10_000_000 * seed,
        target.numerator: numerator,
        "fraction": fraction,
        target.denominator: numerator / ratio,
        target.name: ratio,
    }
    columns = {
        name: values if name == "cluster_id" else values.astype(np.float32)
        for name, values in table.items()
    }
    if weighted:
        columns["w"] = random.uniform(0.2, 2.0, rows).astype(np.float32)
    return columns


def add_places(table: Mapping[str, NDArray[Any]], *, seed: int = 3) -> Table:
    """The table with where each cluster is and which share of its energy is electromagnetic."""
    random, rows = np.random.default_rng(seed), len(table["cluster_id"])
    columns = {
        "clusterEta": random.uniform(-2.4, 2.4, rows),
        "cluster_CENTER_MAG": random.uniform(1500, 6000, rows),
        "cluster_ENG_CALIB_FRAC_EM": random.beta(0.3, 0.3, rows),
    }
    return {**table, **{name: values.astype(np.float32) for name, values in columns.items()}}


def density(
    numerator: NDArray[np.floating], fraction: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and width of log10 of the target given the features."""
    energy = np.log10(numerator)
    return 0.05 * energy - 0.12 * (1 - fraction), 0.03 + 0.08 * 10 ** (-0.4 * energy)


def make_calibrated(
    table: Mapping[str, NDArray[Any]],
    *,
    target: Target = TOPO,
    shift: float = 0.0,
    stretch: float = 1.0,
    scale: float = 1.0,
) -> Table:
    """All columns of a calibrated set; exact unless the density is shifted or stretched."""
    numerator = table[target.numerator].astype(np.float64) / scale
    mean, sigma = density(numerator, table["fraction"].astype(np.float64))
    exact = shift == 0.0 and stretch == 1.0
    # The width of a wrong density varies by 5%, differently for each, without any pattern.
    level = ((977.0 + 1e5 * shift) * table["fraction"].astype(np.float64)) % 1.0
    sway = 1.0 if exact else 1 + 0.05 * ndtri(np.clip(level, 0.001, 0.999))
    mean, sigma = mean + shift, sigma * stretch * sway
    pull = (np.log10(table[target.name].astype(np.float64)) - mean) / sigma
    central = 10**mean
    syst = sigma if exact else sigma * math.sqrt(0.96)
    stat = np.zeros_like(sigma) if exact else sigma * 0.2
    factor = central * math.log(10)
    columns = {
        target.name: central,
        target.calibrated: table[target.numerator] / central,
        "mode_linear": 10 ** (mean - math.log(10) * sigma**2),
        "mode_log10": central,
        "median": central,
        "mean": 10 ** (mean + math.log(10) * sigma**2 / 2),
        **{
            name: 10 ** (mean + ndtri(level) * sigma)
            for name, level in (("q025", 0.025), ("q16", 0.16), ("q84", 0.84), ("q975", 0.975))
        },
        "sigma_syst": factor * syst,
        "sigma_stat": factor * stat,
        "sigma_tot": factor * sigma,
        "sigma_syst_log10": syst,
        "sigma_stat_log10": stat,
        "sigma_tot_log10": sigma,
        "log_density": -(pull**2) / 2 - np.log(sigma) - 0.5 * math.log(2 * math.pi),
        "pit": ndtr(pull),
    }
    narrow = {name: values.astype(np.float32) for name, values in columns.items()}
    in_domain = np.arange(len(pull)) % 50 != 0
    return {"cluster_id": table["cluster_id"], **narrow, "in_domain": in_domain}


def make_manifest(
    table: Mapping[str, NDArray[Any]],
    *,
    target: Target = TOPO,
    simulated: bool = True,
    cut: float = 0.3,
) -> DatasetManifest:
    """The manifest of a dataset whose training rows are these."""
    rows = len(table[target.name])
    roles: dict[str, Any] = {
        "cluster_id": "identity",
        target.numerator: "feature",
        "fraction": "feature",
        target.denominator: "truth",
        target.name: "target",
        "w": "weight",
    }
    units = {target.numerator: "GeV", target.denominator: "GeV"}
    statistics = {
        name: statistics_of(table[name])
        for name in (target.numerator, target.denominator, "fraction", target.name)
    }
    parts = tuple(
        Part(path=f"split={split}/part-0.parquet", split=split, index=0, rows=n, size=9, sha256="")
        for split, n in (("train", rows), ("validation", rows // 20), ("test", rows // 2))
    )
    return DatasetManifest(
        fingerprint="f" * 32,
        settings_fingerprint="s" * 32,
        features=(
            Feature(name=target.numerator, unit="GeV", transform="log10_standard"),
            Feature(name="fraction", transform="standard"),
        ),
        target=target,
        columns=tuple(
            Column(name=name, unit=units.get(name, "1"), role=roles.get(name, "reference"))
            for name in table
        ),
        inputs=(
            InputFile(
                path="sample.root",
                size=1000,
                uuid="u",
                fingerprint="f",
                entries=2 * rows,
                rows=2 * rows,
                simulation={"seed": 1} if simulated else None,
            ),
        ),
        cut_flow=(
            CutCount(rule=f"{target.denominator} > {cut:g}", before=2 * rows, after=rows + 10),
            CutCount(rule=f"{target.numerator} > 0", before=rows + 10, after=rows),
        ),
        floors=(FloorCount(column="fraction", floor=1e-3, rows=12),),
        cuts=(Cut(column=target.denominator, above=cut),),
        split={"train": 0.6, "validation": 0.034, "test": 0.366, "seed": 0},
        parts=parts,
        statistics=statistics,
        versions={"python": "3.11"},
    )


def take(columns: Mapping[str, NDArray[Any]], rows: slice) -> Table:
    """Some rows of all columns."""
    return {name: values[rows] for name, values in columns.items()}


def plain(value):
    """An accumulator, or what it holds, as plain values that can be compared."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    names = () if isinstance(value, BaseModel) else getattr(value, "__slots__", ())
    return {name: plain(getattr(value, name)) for name in names} or value
