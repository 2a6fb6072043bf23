"""The section `evaluate` of a study."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from pipeline.formats.columns import IDENTITY
from pipeline.formats.records import PathText, Record
from pipeline.statistics.binning import Spacing

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
        optional: Left out, instead of refused, where the dataset lacks the column.
    """

    bins: Annotated[int, Field(gt=0, le=1_000)] | None = None
    range: tuple[float, float] | None = None
    scale: Literal["log", "linear"] | None = None
    optional: bool = False

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
    """A population of rows: those that meet all conditions.

    Attributes:
        where: The conditions.
        optional: Left out, instead of refused, where the dataset lacks a column.
    """

    where: tuple[Condition, ...] = Field(min_length=1)
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _accept_one_condition(cls, given: Any) -> Any:  # noqa: ANN401 - before any validation
        """A region with one condition may be written without `where`."""
        if isinstance(given, dict) and "where" not in given:
            return {"where": [given]}
        return given


EXTERNAL_COLUMNS = (
    *("response", "energy", "sigma_tot", "sigma_syst", "sigma_stat", "sigma_tot_log10"),
    *("q025", "q16", "median", "q84", "q975", "log_density", "pit"),
)


class ExternalSet(Record):
    """Calibrated data that somebody else made.

    Attributes:
        files: Parquet or ROOT files; `*` may stand for anything.
        columns: By our name (`response` and `energy` stand for the target and the calibrated
            value; the others as in a calibrated set): the column of the files.
        identity: The column with our cluster_id.
        tree: Of ROOT files.
    """

    files: tuple[PathText, ...] = Field(min_length=1)
    columns: dict[str, str]
    identity: str = IDENTITY
    tree: str | None = None

    @field_validator("columns")
    @classmethod
    def _names_are_known(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(columns) - set(EXTERNAL_COLUMNS)):
            msg = f"unknown {', '.join(unknown)}; known are {', '.join(EXTERNAL_COLUMNS)}"
            raise ValueError(msg)
        if not {"response", "energy"} & set(columns):
            msg = "give the column of `response` or of `energy`, or both"
            raise ValueError(msg)
        return columns


class MapSettings(Record):
    """Where clusters are, in r and |z|; left out where the dataset lacks the columns.

    Attributes:
        distance: Column of the distance from the origin.
        rapidity: Column of the pseudorapidity.
        cell: Edge of a cell of the map, in the unit of the distance.
        r: Largest r that is shown.
        z: Largest |z|.
    """

    distance: str = "cluster_CENTER_MAG"
    rapidity: str = "clusterEta"
    cell: Annotated[float, Field(gt=0)] = 50.0
    r: Annotated[float, Field(gt=0)] = 4_500.0
    z: Annotated[float, Field(gt=0)] = 7_000.0


class BaselineSettings(Record):
    """The histogram of the transformed target in bins of the numerator, from training rows.

    Attributes:
        bins: Bins of the numerator, over the training rows' range.
        cells: Fine bins of the transformed target, over the training rows' range and the margin.
        margin: Added to that range at both ends.
    """

    bins: Annotated[int, Field(gt=0, le=1_000)] = 30
    cells: Annotated[int, Field(gt=0, le=10_000)] = 200
    margin: Annotated[float, Field(gt=0)] = 0.3


class FineSettings(Record):
    """Fine cells in which quantities are collected; they bound the error of every quantile.

    Attributes:
        ratio: Of calibrated over true values: a median is off by at most 1e-3 of itself. On axes
            other than the denominator's cells far from 1 are taken together: at 2 it is 4e-3.
        pull: Of pulls: at most 0.005.
        sigma: Of uncertainties, in units of the target.
        relative: Of ratios of two uncertainties.
        difference: Of relative differences of two sets.
        pit_cells: Of the probability integral transform: the KS distance is at most
            1 / pit_cells larger than given.
        plane_cells: Of the target in two-dimensional figures, over the training rows' range.
        score_group: Cells of pulls, and of the probability integral transform, that are taken
            together in the bins of axes.
        rank: Of the relative uncertainty by which clusters are dropped.
        pair_relative: Of the relative uncertainties of two sets in two dimensions.
        pair_pull: Of their pulls.
    """

    ratio: Spacing = Spacing(scale="log", low=1e-3, high=1e3, cells=14_000)
    pull: Spacing = Spacing(scale="linear", low=-20.0, high=20.0, cells=8_000)
    sigma: Spacing = Spacing(scale="log", low=1e-5, high=1e4, cells=1_800)
    relative: Spacing = Spacing(scale="log", low=1e-3, high=1e3, cells=14_000)
    difference: Spacing = Spacing(scale="linear", low=-1.0, high=3.0, cells=8_000)
    pit_cells: Annotated[int, Field(gt=0, le=60_000)] = 2_000
    plane_cells: Annotated[int, Field(gt=0, le=1_000)] = 120
    score_group: Annotated[int, Field(gt=0)] = 5
    rank: Spacing = Spacing(scale="log", low=1e-3, high=1e2, cells=250)
    pair_relative: Spacing = Spacing(scale="log", low=1e-2, high=10.0, cells=120)
    pair_pull: Spacing = Spacing(scale="linear", low=-5.0, high=5.0, cells=100)

    @field_validator(
        *("ratio", "sigma", "relative", "pull", "difference", "rank"),
        *("pair_relative", "pair_pull"),
    )
    @classmethod
    def _has_its_scale(cls, spacing: Spacing, info: ValidationInfo) -> Spacing:
        scale = "linear" if info.field_name in {"pull", "difference", "pair_pull"} else "log"
        if spacing.scale != scale:
            msg = f"these cells must be on a {scale} scale"
            raise ValueError(msg)
        return spacing


def _feature(column: str, **binning: Any) -> Axis:  # noqa: ANN401 - fields of an axis
    return Axis(column=column, optional=True, **binning)


_SHARE = {"bins": 102, "range": (-0.01, 1.01), "scale": "linear"}
_COUNT = {"bins": 48, "range": (-0.25, 95.75), "scale": "linear"}

# The binnings of the paper's figures; its energies have 54 bins from 0.01 to 3162 GeV, about ten a
# decade as well. An axis in bins of 1 per cent ends at 1.01, so that a value of exactly 1 is seen.
PAPER_AXES = {
    "denominator": Axis(of="denominator"),
    "numerator": Axis(of="numerator"),
    "y": _feature("clusterEta", bins=55, range=(-2.75, 2.75), scale="linear"),
    "zeta": _feature("cluster_SIGNIFICANCE", bins=57, range=(1.259e-3, 794.3), scale="log"),
    "t": _feature("cluster_time", bins=123, range=(-123.0, 123.0), scale="linear"),
    "Var_t": _feature("cluster_SECOND_TIME", bins=50, range=(-10.0, 199.0), scale="linear"),
    "lambda": _feature("cluster_CENTER_LAMBDA", bins=100, range=(0.0, 6000.0), scale="linear"),
    "c": _feature("cluster_CENTER_MAG", bins=100, range=(1200.0, 7800.0), scale="linear"),
    "f_emc": _feature("cluster_ENG_FRAC_EM", **_SHARE),
    "rho": _feature("cluster_FIRST_ENG_DENS", bins=60, range=(1e-9, 1e-3), scale="log"),
    "m_long": _feature("cluster_LONGITUDINAL", **_SHARE),
    "m_lat": _feature("cluster_LATERAL", **_SHARE),
    "ptD": _feature("cluster_PTD", **_SHARE),
    "f_iso": _feature("cluster_ISOLATION", **_SHARE),
    "N_PV": _feature("nPrimVtx", **_COUNT),
    "mu": _feature("avgMu", **_COUNT),
}


def _share_of_em(lower: float | None, upper: float | None) -> Region:
    share = Condition(column="cluster_ENG_CALIB_FRAC_EM", lower=lower, upper=upper)
    return Region(where=(share,), optional=True)


TRUTH_CLASSES = {
    "EM": _share_of_em(0.9, None),
    "hadronic": _share_of_em(None, 0.1),
    "composite": _share_of_em(0.1, 0.9),
}


class EvaluateSettings(Record):
    """What is measured of the calibrated sets of a study.

    Attributes:
        axes: By name: what figures are drawn against. Closure and resolution are defined on an
            axis of the denominator: where none is given, the default one, `denominator`, is added.
        spectra: By name: further axes, of spectra only.
        classes: By name: rows that spectra show apart, for example by the truth.
        planes: Axes against which the target is shown in two dimensions.
        scored: Axes in whose bins scores and pulls are taken, besides the denominator's.
        regions: By name: populations with headline figures of their own.
        reference: The set that others are compared with; the exact density where there is one.
        pairs: Two sets to compare row by row, for example [re, bnn].
        external: By name: calibrated data from elsewhere, beside the study's own.
        min_rows_per_bin: Bins and regions with fewer rows get no estimates.
        closure_from: Closure counts bins whose lower edge is at least this, in units of the
            denominator.
        closure_min_rows: Closure counts bins with at least this many rows.
        truncate: Range of Delta in which truncated means are taken.
        slices: Values of the denominator at which the distribution of Delta_E is kept.
        sigma_window: Total uncertainties of clusters that are looked at apart; None for none.
        map: Where clusters are, all and those in the window; None for no map.
        coverage_levels: Contents of the central intervals whose coverage is counted.
        tail: |Delta_E| from which a cluster counts as tail.
        baseline: The histogram that a network must beat; None for none.
        fine: Fine cells of the quantities.
    """

    axes: dict[str, Axis] = Field(default=PAPER_AXES)
    spectra: dict[str, Axis] = Field(default={"response": Axis(of="target", bins=75)})
    classes: dict[str, Region] = Field(default=TRUTH_CLASSES, max_length=8)
    planes: tuple[str, ...] = ("denominator", "numerator", "f_emc", "c")
    scored: tuple[str, ...] = ("denominator", "numerator", "y", "mu")
    regions: dict[str, Region] = Field(default={})
    reference: str = ORACLE
    pairs: tuple[tuple[str, str], ...] = ()
    external: dict[str, ExternalSet] = Field(default={})
    min_rows_per_bin: Annotated[int, Field(gt=0)] = 100
    closure_from: float = 0.5
    closure_min_rows: Annotated[int, Field(gt=0)] = 500
    truncate: tuple[float, float] = (-1.05, 6.95)
    slices: tuple[float, ...] = (0.3, 2.5, 430.0)
    sigma_window: tuple[float, float] | None = (8.5, 12.0)
    map: MapSettings | None = MapSettings()
    coverage_levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (
        *(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.7, 0.8, 0.9, 0.95, 0.99),
    )
    tail: Annotated[float, Field(gt=0)] = 0.5
    baseline: BaselineSettings | None = BaselineSettings()
    fine: FineSettings = FineSettings()

    @model_validator(mode="after")
    def _all_is_no_region(self) -> Self:
        for section in ("regions", "classes"):
            if "all" in getattr(self, section):
                msg = f"{section}.all: the name stands for all rows, give these another one"
                raise ValueError(msg)
        both = sorted({*self.axes} & {*self.spectra})
        if both:
            msg = f"axes and spectra both have {', '.join(both)}; an axis has spectra anyway"
            raise ValueError(msg)
        return self

    @field_validator("axes", "spectra", "classes", "regions", "external")
    @classmethod
    def _names_fit_in_file_names(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                msg = f"a name has letters, digits, - and _ only, since files carry it: {name!r}"
                raise ValueError(msg)
        return named

    @field_validator("truncate", "sigma_window")
    @classmethod
    def _range_is_ordered(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and ends[0] >= ends[1]:
            msg = f"the range must rise, got {list(ends)}"
            raise ValueError(msg)
        return ends
