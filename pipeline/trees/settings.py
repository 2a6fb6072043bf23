"""Settings of the boosted trees; no scikit-learn here, so that a study is checked without it."""

import math
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pipeline.formats.calibrated_set import QUANTILES
from pipeline.formats.records import ModelSettings, Record

Choices = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class SearchSettings(Record):
    """A random search of the trees' settings, with cross-validation.

    Attributes:
        rows: Training rows that it uses, about: chosen by a hash of their identity.
        candidates: Combinations that are tried, at most.
        folds: Parts of the rows, each left out once.
    """

    rows: PositiveInt = 50_000
    candidates: PositiveInt = 8
    folds: Annotated[int, Field(ge=2)] = 3


class BoostedTreesSettings(ModelSettings):
    """Histogram gradient boosting (scikit-learn) of quantiles of the transformed target.

    Where a setting has several values the search chooses one.

    Attributes:
        features: Inputs, a subset of the dataset's features; None means all of them.
        levels: Probability of each quantile, rising; 0.5 is the central value.
        rows: Training rows of the final fit, about, chosen as for the search.
        iterations: Trees of each quantile.
        learning_rate: What each tree's correction is multiplied with.
        leaves: Leaves of a tree, at most.
        min_leaf_rows: Rows in a leaf, at least.
        l2: Regularisation of the leaves' values.
        search: How the settings are searched.
    """

    kind: Literal["boosted_trees"] = "boosted_trees"
    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    levels: tuple[float, ...] = (0.16, 0.5, 0.84)
    rows: PositiveInt = 1_000_000
    iterations: Choices = (200,)
    learning_rate: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.05, 0.1, 0.2)
    leaves: Choices = (15, 31, 63)
    min_leaf_rows: Choices = (20, 100)
    l2: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (0.0, 10.0)
    search: SearchSettings = SearchSettings()

    @model_validator(mode="after")
    def _levels_have_columns(self) -> Self:
        known = sorted(QUANTILES.values())
        rising = all(low < high for low, high in pairwise(self.levels))
        if not rising or 0.5 not in self.levels or not set(self.levels) <= set(known):
            usable = ", ".join(map(str, known))
            msg = f"levels must rise, be among {usable} and have 0.5, got {list(self.levels)}"
            raise ValueError(msg)
        return self

    @property
    def choices(self) -> dict[str, tuple[float, ...]]:
        """By name: the values that the search chooses from."""
        names = ("iterations", "learning_rate", "leaves", "min_leaf_rows", "l2")
        return {name: getattr(self, name) for name in names}

    @property
    def num_combinations(self) -> int:
        """How many combinations there are; one needs no search."""
        return math.prod(len(values) for values in self.choices.values())
