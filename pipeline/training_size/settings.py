"""The section `scaling` of a study."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline.formats.records import Record

Size = PositiveInt | Literal["all"]
Sizes = Annotated[tuple[Size, ...], Field(min_length=1)]


class LadderSettings(Record):
    """One model, trained on subsets of growing size.

    Attributes:
        model: Its name in the study's `models`.
        budget: What stays the same from size to size. "epochs": passes over the subset, so that
            small ones see few updates and sigma_stat measures the optimiser as well; "steps":
            updates, as many for each size; the model's epochs and milestones then divide them.
        steps: Updates of each training, with the budget "steps".
        sizes: Training rows; those of the study's `scaling` if None.
        seeds: Trainings on the same rows that differ in their seed.
        samples: Trainings of each size on rows of their own, each with its own seed; 1: only the
            nested subset.
        singles: The ladder whose trainings are single networks of this one, to compare with;
            None: this ladder itself. An ensemble of 50 takes a ladder with one member each.
    """

    model: str
    budget: Literal["epochs", "steps"]
    steps: PositiveInt | None = None
    sizes: Sizes | None = None
    seeds: PositiveInt = 1
    samples: PositiveInt = 1
    singles: str | None = None

    @model_validator(mode="after")
    def _steps_belong_to_their_budget(self) -> Self:
        if (self.budget == "steps") != (self.steps is not None):
            msg = (
                "budget steps needs the number of updates in steps"
                if self.steps is None
                else "steps is given, but the budget is epochs, which the model has"
            )
            raise ValueError(msg)
        return self


class ScalingSettings(Record):
    """The scaling study: which models are trained on how many rows.

    Attributes:
        ladders: By name.
        sizes: Training rows; "all" is the whole split. None: from `smallest` to all.
        smallest: The first of the sizes that are made.
        per_decade: How many of them there are in a factor of ten.
        samples_from: Where further samples of a size come from: "training", slices of the training
            split that have no row in common; "simulation", freshly simulated ones.
        test_rows: Rows of the test split, chosen by hash, on which all is judged; None: all.
        validation_rows: The same of the validation split.
        large_rows: Trainings on more rows go through Ray Train and share `ray.workers`; others are
            one task each.
        negligible: Share of sigma_syst below which sigma_stat no longer matters.
    """

    ladders: Annotated[dict[str, LadderSettings], Field(min_length=1)]
    sizes: Sizes | None = None
    smallest: PositiveInt = 1000
    per_decade: PositiveInt = 2
    samples_from: Literal["training", "simulation"] = "training"
    test_rows: PositiveInt | None = 10_000
    validation_rows: PositiveInt | None = 4096
    large_rows: PositiveInt = 1_000_000
    negligible: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _ladders_fit(self) -> Self:
        for name, ladder in self.ladders.items():
            other = self.ladders.get(ladder.singles) if ladder.singles else ladder
            if other is None:
                msg = f"ladders.{name}.singles: no ladder {ladder.singles}"
                raise ValueError(msg)
            if (other.budget, other.steps) != (ladder.budget, ladder.steps):
                msg = f"ladders.{name}.singles: {ladder.singles} has another budget"
                raise ValueError(msg)
        return self

    def sizes_of(self, ladder: LadderSettings, num_rows: int) -> tuple[int, ...]:
        """The training rows of a ladder's steps, rising, given the rows of the training split."""
        wanted = ladder.sizes or self.sizes or self._made(num_rows)
        return tuple(sorted({num_rows if size == "all" else size for size in wanted}))

    def _made(self, num_rows: int) -> list[int]:
        """Sizes with equal steps of their logarithm; all rows take the place of the last."""
        sizes: list[int] = []
        while (size := round(self.smallest * 10 ** (len(sizes) / self.per_decade))) < num_rows:
            sizes.append(size)
        rise = 10 ** (0.5 / self.per_decade)
        return [*(size for size in sizes if size * rise < num_rows), num_rows]
