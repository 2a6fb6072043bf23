"""The steps of a training of trees that workers do: rows of a search, one quantile, a score.

The trees for all quantiles of a model are one scikit-learn estimator, which a search can judge.

Shape letters: N rows, F features, Q quantiles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingRegressor

from pipeline.calibrators.estimates import OnnxFile
from pipeline.formats.files import sha256_of
from pipeline.formats.manifest import Part
from pipeline.numerics.arrays import FloatArray
from pipeline.trees.rows import RowsPlan

DEFAULTS = {"iterations": 200, "learning_rate": 0.1, "leaves": 31, "min_leaf_rows": 20, "l2": 0.0}


class QuantileTrees(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """One ensemble of trees for each quantile, with common settings.

    A search hands on rows and target only, and scores without weights: the last column of the rows
    is therefore the weight.
    """

    def __init__(  # noqa: PLR0913 - an estimator's settings are its arguments
        self,
        levels: Sequence[float] = (0.5,),
        *,
        iterations: int = 200,
        learning_rate: float = 0.1,
        leaves: int = 31,
        min_leaf_rows: int = 20,
        l2: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.levels = levels
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.leaves = leaves
        self.min_leaf_rows = min_leaf_rows
        self.l2 = l2
        self.seed = seed

    def fit(self, rows_NG: FloatArray, target_N: FloatArray) -> Self:
        """Grow the trees on features [N, F] with the weight as one more column."""
        x_NF, weight_N = rows_NG[:, :-1], rows_NG[:, -1]
        settings = {name: getattr(self, name) for name in DEFAULTS}
        self.trees_ = [
            grow(x_NF, target_N, weight_N, level=level, settings=settings, seed=self.seed)
            for level in self.levels
        ]
        return self

    def score(self, rows_NG: FloatArray, target_N: FloatArray) -> float:
        """Minus the weighted mean pinball loss over rows and quantiles: higher is better."""
        x_NF, weight_N = rows_NG[:, :-1], rows_NG[:, -1]
        predicted_NQ = np.stack([trees.predict(x_NF) for trees in self.trees_], axis=1)
        losses_Q = pinball_sums(predicted_NQ, target_N, weight_N, self.levels) / weight_N.sum()
        return -float(losses_Q.mean())


def grow(
    x_NF: NDArray[Any],
    target_N: FloatArray,
    weight_N: FloatArray,
    *,
    level: float,
    settings: Mapping[str, float],
    seed: int,
) -> HistGradientBoostingRegressor:
    """The trees of one quantile, a number of them that is fixed beforehand."""
    trees = HistGradientBoostingRegressor(
        loss="quantile",
        quantile=level,
        max_iter=int(settings["iterations"]),
        learning_rate=settings["learning_rate"],
        max_leaf_nodes=int(settings["leaves"]),
        min_samples_leaf=int(settings["min_leaf_rows"]),
        l2_regularization=settings["l2"],
        early_stopping=False,
        random_state=seed % 2**32,
    )
    return trees.fit(x_NF, target_N, sample_weight=weight_N)


def pinball_sums(
    predicted_NQ: NDArray[Any], target_N: FloatArray, weight_N: FloatArray, levels: Sequence[float]
) -> FloatArray:
    """Sums [Q] over rows of weight times pinball loss: level times a target above the quantile.

    (1 - level) times one below; smallest, on average, for the true quantile (Koenker 2005).
    """
    above_NQ = target_N[:, None] - predicted_NQ
    level_Q = np.asarray(levels)
    loss_NQ = np.maximum(level_Q * above_NQ, (level_Q - 1.0) * above_NQ)
    return np.asarray((weight_N[:, None] * loss_NQ).sum(axis=0))


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


def score_part(part: Part, *, plan: RowsPlan, model: Path, levels: Sequence[float]) -> FloatArray:
    """Pinball loss of each quantile, summed over a part's rows, then their weight; on a worker."""
    rows = plan.read(part)
    names = tuple(feature.name for feature in plan.features)
    file = OnnxFile(model, sha256_of(model), names)
    quantiles_NQ = file.run("quantiles", dict(zip(names, rows.x_NF.T, strict=True)))
    sums_Q = pinball_sums(np.sort(quantiles_NQ, axis=1), rows.target_N, rows.weight_N, levels)
    return np.append(sums_Q, rows.weight_N.sum())
