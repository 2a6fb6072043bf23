"""The sections of a study that the data side reads: dataset and calibrate."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.formats.calibrated_set import calibrated_columns
from pipeline.formats.card import SEARCH_MARGIN
from pipeline.formats.columns import Column, Cut, Feature, Role, Target
from pipeline.formats.manifest import Split
from pipeline.formats.records import CountsFromItsFile, InputText, PathText, Record
from pipeline.root.layout import LAYOUT_SUFFIXES, Layout, LoadedLayout, read_layout
from pipeline.samples.topo_clusters import TOPO_CLUSTER_EXTRAS, TOPO_CLUSTER_FEATURES

STATISTICS_BLOCK = 65_536  # clusters; part of the definition of a dataset, hence no setting


# Of the columns that a study may have: what the paper cuts, and what is floored instead.
USUAL_MINIMA = {"cluster_ENG_CALIB_TOT": 0.3}  # GeV
USUAL_FLOORS = {"cluster_SECOND_TIME": 1e-3}  # ns^2


def _usual_features(value: object) -> object:
    usual = {feature.name: feature for feature in TOPO_CLUSTER_FEATURES}
    if not isinstance(value, list | tuple):
        return value
    unknown = [item for item in value if isinstance(item, str) and item not in usual]
    if unknown:
        msg = (
            f"{', '.join(unknown)}: a name alone must be one of {', '.join(usual)}; "
            "give others with name, unit and transform"
        )
        raise ValueError(msg)
    return [usual[item] if isinstance(item, str) else item for item in value]


def _extra_of(name: str, layout: Layout) -> Column:
    """A column of the layout; in the units of the flat tree, whatever those of the files are."""
    column = layout.columns.get(name)
    if column is None:
        return Column(name=name, role="reference")
    role: Role = column.role if column.role in {"truth", "label"} else "reference"
    usual = read_layout("cluster_tree").columns.get(name, column)
    return Column(name=name, unit=usual.unit, role=role)


def _logarithmic(features: Iterable[Feature]) -> dict[str, None]:
    """The features whose logarithm is taken, in order."""
    return {f.name: None for f in features if f.transform == "log10_standard"}


def _targets_of(given: Mapping[str, Any]) -> tuple[Target, ...]:
    """All targets among the fields that have been read so far."""
    target, targets = given.get("target"), given.get("targets") or ()
    return tuple(targets) or (() if target is None else (target,))


def _positive_columns(target: Target) -> tuple[str, ...]:
    """What a target's values need to be positive of: what is divided by, and logarithms."""
    if target.inverse == "none":
        return (target.denominator,) if target.transform == "log10" else ()
    numerator = (target.numerator,) if target.transform == "log10" else ()
    return (target.denominator, *numerator)


class SplitSettings(Record):
    """Fractions of the clusters by split, chosen by a hash of their identity and the seed.

    Attributes:
        train: Fraction of the training split.
        validation: Of the validation split.
        test: Of the test split; clusters without truth are all in it.
        seed: Another seed gives an independent split.
        unit: "event" puts all clusters of an event into one split. It needs the columns that
            name an event (role identity, level event in the layout), or vectors.
    """

    train: Annotated[float, Field(gt=0, lt=1)] = 0.600
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.034
    test: Annotated[float, Field(gt=0, lt=1)] = 0.366
    seed: int = 0
    unit: Literal["cluster", "event"] = "cluster"

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            msg = f"train + validation + test must be 1, they sum to {total:.12g}"
            raise ValueError(msg)
        return self


class DatasetSettings(Record):
    """What `ingest` reads and keeps (selection: arXiv 2412.04370, Sec. 3.1).

    Attributes:
        inputs: ROOT files, root:// URLs, globs of either, or files that list them (@FILE or
            FILE.txt); empty: what `simulate` wrote.
        layout: What the files hold: the name of a shipped layout, the path of your own (.yaml),
            or the layout itself.
        features: The networks' inputs; a name alone is one of the 15 usual ones.
        target: The networks' target; null: the clusters have no truth, and can be calibrated but
            not trained on.
        targets: Several targets, instead of `target`; each model names those that it predicts.
        weight: Column with the rows' weights (generator weights, cross-sections of slices);
            negative ones are allowed.
        extras: Columns kept where all inputs have them; a name alone is one of the layout's.
        floors: By column, values below are raised to the floor and counted. The cell-time
            variance is exactly zero for many clusters with one timed cell; cutting them away
            would bias the sample. Not given: the usual floor of that variance.
        cuts: In order, after the cut on finite values. Not given: the deposited energy above
            0.3 GeV and, for the sake of logarithms, positive values of the numerators and
            denominators of targets and of each feature whose logarithm is taken and that has no
            floor.
        split: Fractions and seed.
        rows_per_part: Clusters that go into one part before cuts, in whole blocks of 65,536.
        drop_tagged: Train, calibrate and evaluate without the clusters that the study's tagger
            tags; `topocal tag` makes that dataset beside the ingested one.
        on_error: What happens when an input cannot be read: "fail" ends the job; "skip" lists it
            in the manifest, and running ingest again fetches it.
    """

    inputs: tuple[InputText, ...] = ()
    layout: Annotated[Layout, CountsFromItsFile(LAYOUT_SUFFIXES), LoadedLayout] = Field(
        default=cast("Layout", "cluster_tree"), validate_default=True
    )
    features: Annotated[
        tuple[Feature, ...], Field(min_length=1), BeforeValidator(_usual_features)
    ] = TOPO_CLUSTER_FEATURES
    target: Target | None = Target()
    # not written where there are none: datasets with one target stay up to date
    targets: Annotated[tuple[Target, ...], Field(min_length=2)] | tuple[()] = Field(
        default=(), exclude_if=lambda targets: not targets
    )
    weight: str | None = None
    extras: tuple[Column, ...] = TOPO_CLUSTER_EXTRAS
    floors: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default=cast("dict[str, float]", None), validate_default=True
    )
    cuts: tuple[Cut, ...] = Field(default=cast("tuple[Cut, ...]", None), validate_default=True)
    split: SplitSettings = SplitSettings()
    rows_per_part: Annotated[int, Field(gt=0)] = 2 * STATISTICS_BLOCK
    drop_tagged: bool = False
    on_error: Literal["fail", "skip"] = "fail"

    @model_validator(mode="before")
    @classmethod
    def _one_or_several_targets(cls, given: object) -> object:
        if not isinstance(given, dict) or not given.get("targets"):
            return given
        if given.get("target") is not None:
            msg = "target and targets are given; put all targets into targets"
            raise ValueError(msg)
        return given | {"target": None}

    @field_validator("extras", mode="before")
    @classmethod
    def _named_extras(cls, extras: object, info: ValidationInfo) -> object:
        layout = info.data.get("layout")
        if not isinstance(extras, list | tuple) or not isinstance(layout, Layout):
            return extras
        return [_extra_of(item, layout) if isinstance(item, str) else item for item in extras]

    @field_validator("floors", mode="before")
    @classmethod
    def _usual_floors(cls, floors: object, info: ValidationInfo) -> object:
        if floors is not None:
            return floors
        logs = _logarithmic(info.data.get("features", ()))
        return {name: floor for name, floor in USUAL_FLOORS.items() if name in logs}

    @field_validator("cuts", mode="before")
    @classmethod
    def _usual_cuts(cls, cuts: object, info: ValidationInfo) -> object:
        if cuts is not None:
            return cuts
        # A list has no value that a cut could be on: its logarithm needs a floor.
        single = [f for f in info.data.get("features", ()) if not f.is_ragged]
        positive = dict.fromkeys(_logarithmic(single), 0.0)
        ratios: dict[str, float] = {}
        for target in _targets_of(info.data):
            for name in _positive_columns(target):
                ratios.setdefault(name, USUAL_MINIMA.get(name, 0.0))
        positive = {**ratios, **{n: low for n, low in positive.items() if n not in ratios}}
        floors = info.data.get("floors") or {}
        return [Cut(column=n, above=low) for n, low in positive.items() if n not in floors]

    @property
    def every_target(self) -> tuple[Target, ...]:
        """All targets; none where the clusters have no truth."""
        return _targets_of({"target": self.target, "targets": self.targets})

    @model_validator(mode="after")
    def _logarithms_are_safe(self) -> Self:
        positive = {cut.column for cut in self.cuts if cut.above is not None and cut.above >= 0}
        ratio = {name for target in self.every_target for name in _positive_columns(target)}
        unsafe = sorted(_logarithmic(self.features).keys() - positive - self.floors.keys() - ratio)
        if unsafe:
            msg = f"log10 is taken of {', '.join(unsafe)}: give each a cut `above: 0` or a floor"
            raise ValueError(msg)
        if ratio - positive or ratio & self.floors.keys():
            names = ", ".join(sorted((ratio - positive) | (ratio & self.floors.keys())))
            msg = f"targets divide by {names} or take log10: each needs a cut `above: 0`, no floor"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _lists_are_features_alone(self) -> Self:
        lists = {feature.name for feature in self.features if feature.is_ragged}
        lists |= {column.name for column in self.extras if column.shape == "ragged"}
        single: dict[str, list[str | None]] = {
            "dataset.cuts": [cut.column for cut in self.cuts],
            "dataset.weight": [self.weight],
            "a target": [n for t in self.every_target for n in (t.numerator, t.denominator)],
        }
        for place, names in single.items():
            if wrong := sorted(lists & {name for name in names if name is not None}):
                msg = f"{place} needs one number a row, and {', '.join(wrong)} is a list"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        weights = [column.name for column in self.extras if column.role == "weight"]
        if weights:
            msg = f"extras: the column of the weights is named by dataset.weight ({weights[0]})"
            raise ValueError(msg)
        names = [f.name for f in self.features] + [c.name for c in self.extras]
        names += [target.name for target in self.every_target]
        made = [
            [column.name for column in calibrated_columns(target, has_truth=True)]
            for target in self.every_target
        ]
        twice = sorted({n for given in (names, *made) for n in given if given.count(n) > 1})
        if twice:
            msg = f"a column may be named once, got {', '.join(twice)} more than once"
            raise ValueError(msg)
        return self


class SummarySettings(Record):
    """How a density becomes numbers.

    Attributes:
        central: The functional that becomes the calibrated value (mode of the density of the
            target, of log10 of the target, median or mean).
        sigma: Linear sigmas as moments of the density, or linearised from those of log10
            (arXiv 2412.04370, footnote 13).
        margin: Modes are searched and moments integrated within the training range of the
            transformed target (log10 of it, usually) plus this on both sides.
    """

    central: Literal["mode_linear", "mode_log10", "median", "mean"] = "mode_linear"
    sigma: Literal["moments", "linearised"] = "moments"
    margin: Annotated[float, Field(ge=0)] = SEARCH_MARGIN


class CalibrateSettings(SummarySettings):
    """What is calibrated, and how.

    Attributes:
        split: The split that is calibrated.
        crps_rows: Rows, about, whose continuous ranked probability score is computed: all that
            a density has there, so it takes longer than the other columns.
        models: Finished models by name: the folder of each. They need not be trained on this
            dataset; a name of the study's own models replaces that one.
        scales: References that the input brings along, by name: the column of weights that the
            target's numerator is multiplied with. Those whose column the dataset lacks are left
            out. Usual: LCW after its hadronic step; clusterECalib is no such reference, since it
            may hold the later steps as well.
    """

    split: Split = "test"
    crps_rows: Annotated[int, Field(ge=0)] = 200_000
    models: dict[str, PathText] = Field(default={})
    scales: dict[str, str] = Field(default={"lcw": "cluster_HAD_WEIGHT"})
