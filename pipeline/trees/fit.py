"""The steps of a training of trees that workers do: rows of a search, one quantile, a score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrators.estimates import OnnxFile
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import Part
from pipeline.trees.estimator import grow, pinball_sums
from pipeline.trees.rows import RowsPlan


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One quantile that is to be fitted.

    Attributes:
        plan: Which rows.
        parts: Of the training split.
        share: Of their rows.
        level: Probability.
        settings: Of the trees, as the search chose them.
        seed: Of the model.
    """

    plan: RowsPlan
    parts: tuple[Part, ...]
    share: float
    level: float
    settings: Mapping[str, float]
    seed: int


def fit_level(job: LevelPlan) -> tuple[Any, int]:
    """The trees of one quantile, and on how many rows they were grown; runs on a worker."""
    rows = job.plan.gather(job.parts, job.share)
    trees = grow(*rows, level=job.level, settings=job.settings, seed=job.seed)
    return trees, len(rows.target_N)


def score_part(
    part: Part, *, plan: RowsPlan, model: Path, levels: Sequence[float]
) -> NDArray[np.float64]:
    """Pinball loss of each quantile, summed over a part's rows, then their weight; on a worker."""
    rows = plan.read(part)
    names = tuple(feature.name for feature in plan.features)
    file = OnnxFile(model, sha256_of(model), names)
    quantiles_NQ = file.run("quantiles", dict(zip(names, rows.x_NF.T, strict=True)))
    sums_Q = pinball_sums(np.sort(quantiles_NQ, axis=1), rows.target_N, rows.weight_N, levels)
    return np.append(sums_Q, rows.weight_N.sum())
