"""The section `evaluate` of a study."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from pipeline.evaluation.spacing import Spacing
from pipeline.formats.records import Record

Quantity = Literal["numerator", "denominator", "target"]

ORACLE = "oracle"  # the calibrated set of the exact density


class Column(Record):
    """A column by its name, or by its place in the target's definition.

    Attributes:
        column: Name of a column of the dataset.
        of: Instead of a name: the target or one of the two columns whose ratio it is.
    """

    column: str | None = None
    of: Quantity | None = None

    @model_validator(mode="after")
    def _names_one_column(self) -> Self:
        if (self.column is None) == (self.of is None):
            msg = "give either `column` (a name) or `of` (numerator, denominator or target)"
            raise ValueError(msg)
        return self


class Axis(Column):
    """Bins of a column in which figures are drawn.

    Attributes:
        bins: Number of bins; None for ten a decade (log) or fifty (linear).
        range: Lower and upper end; None to follow the training rows' smallest and largest value.
        scale: None to show a feature as its transform does, and other columns on a log scale if
            their range is positive and spans more than a factor 30.
    """

    bins: Annotated[int, Field(gt=0)] | None = None
    range: tuple[float, float] | None = None
    scale: Literal["log", "linear"] | None = None

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.range is not None and self.range[0] >= self.range[1]:
            msg = f"the range must rise, got {list(self.range)}"
            raise ValueError(msg)
        return self


class Condition(Column):
    """Rows with `from <= value < to`; either end may be left out.

    Attributes:
        lower: Written `from` in a study.
        upper: Written `to`.
        absolute: Compare the absolute value.
    """

    lower: float | None = Field(default=None, alias="from")
    upper: float | None = Field(default=None, alias="to")
    absolute: bool = False

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.lower is None and self.upper is None:
            msg = "a condition needs `from` or `to`"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ends_are_ordered(self) -> Self:
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            msg = f"`from` must be below `to`, got {self.lower:g} and {self.upper:g}"
            raise ValueError(msg)
        return self


class Region(Record):
    """A population of rows: those that meet all conditions."""

    where: tuple[Condition, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _accept_one_condition(cls, given: Any) -> Any:  # noqa: ANN401 - before any validation
        """A region with one condition may be written without `where`."""
        if isinstance(given, dict) and "where" not in given:
            return {"where": [given]}
        return given


class BaselineSettings(Record):
    """The histogram of log10 of the target in bins of the numerator, fitted on training rows.

    Attributes:
        bins: Bins of the numerator, over the training rows' range.
        cells: Cells of log10 of the target, over the training rows' range and the margin.
        margin: Added to that range at both ends, in log10.
    """

    bins: Annotated[int, Field(gt=0)] = 30
    cells: Annotated[int, Field(gt=0)] = 200
    margin: Annotated[float, Field(gt=0)] = 0.3


class FineSettings(Record):
    """Fine cells in which quantities are collected; they bound the error of every quantile.

    Attributes:
        ratio: Of calibrated over true values: a median is off by at most 1e-3 of itself.
        pull: Of pulls: at most 0.005.
        sigma: Of uncertainties, in units of the target.
        relative: Of ratios of two uncertainties.
        difference: Of relative differences of two sets.
        pit_cells: Of the probability integral transform: the KS distance is at most
            1 / pit_cells larger than given.
        plane_cells: Of the target in two-dimensional figures, over the training rows' range.
    """

    ratio: Spacing = Spacing(scale="log", low=1e-3, high=1e3, cells=14_000)
    pull: Spacing = Spacing(scale="linear", low=-20.0, high=20.0, cells=8_000)
    sigma: Spacing = Spacing(scale="log", low=1e-5, high=1e4, cells=1_800)
    relative: Spacing = Spacing(scale="log", low=1e-3, high=1e3, cells=14_000)
    difference: Spacing = Spacing(scale="linear", low=-1.0, high=3.0, cells=8_000)
    pit_cells: Annotated[int, Field(gt=0)] = 2_000
    plane_cells: Annotated[int, Field(gt=0)] = 120

    @field_validator("ratio", "sigma", "relative", "pull", "difference")
    @classmethod
    def _has_its_scale(cls, spacing: Spacing, info: ValidationInfo) -> Spacing:
        scale = "linear" if info.field_name in {"pull", "difference"} else "log"
        if spacing.scale != scale:
            msg = f"these cells must be on a {scale} scale"
            raise ValueError(msg)
        return spacing


class EvaluateSettings(Record):
    """What is measured of the calibrated sets of a study.

    Attributes:
        axes: By name: what figures are drawn against. Closure and resolution are defined on an
            axis of the denominator: where none is given, the default one, `denominator`, is added.
        regions: By name: populations with headline figures of their own.
        reference: The set that others are compared with; the exact density where there is one.
        pairs: Two sets to compare row by row, for example [re, bnn].
        min_rows_per_bin: Bins and regions with fewer rows get no estimates.
        closure_from: Closure counts bins whose lower edge is at least this, in units of the
            denominator.
        closure_min_rows: Closure counts bins with at least this many rows.
        truncate: Range of Delta in which truncated means are taken.
        baseline: The histogram that a network must beat; None for none.
        fine: Fine cells of the quantities.
    """

    axes: dict[str, Axis] = Field(
        default={"denominator": Axis(of="denominator"), "numerator": Axis(of="numerator")}
    )
    regions: dict[str, Region] = Field(default={})
    reference: str = ORACLE
    pairs: tuple[tuple[str, str], ...] = ()
    min_rows_per_bin: Annotated[int, Field(gt=0)] = 100
    closure_from: float = 0.5
    closure_min_rows: Annotated[int, Field(gt=0)] = 500
    truncate: tuple[float, float] = (-1.05, 6.95)
    baseline: BaselineSettings | None = BaselineSettings()
    fine: FineSettings = FineSettings()

    @model_validator(mode="after")
    def _all_is_no_region(self) -> Self:
        if "all" in self.regions:
            msg = "regions.all: the name stands for all rows, give the region another one"
            raise ValueError(msg)
        return self

    @field_validator("axes", "regions")
    @classmethod
    def _names_fit_in_file_names(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                msg = f"a name has letters, digits, - and _ only, since files carry it: {name!r}"
                raise ValueError(msg)
        return named

    @field_validator("truncate")
    @classmethod
    def _truncation_is_ordered(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] >= ends[1]:
            msg = f"the range must rise, got {list(ends)}"
            raise ValueError(msg)
        return ends
