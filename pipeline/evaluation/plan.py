"""What an evaluation does on one dataset: settings with every name and range resolved."""

import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pipeline.evaluation.accumulators import AxisGroup
from pipeline.evaluation.axes import (
    ResolvedAxis,
    ResolvedCondition,
    even_spacing,
    has_column,
    refuse_truth,
    resolve_axis,
    resolve_condition,
    slightly_above,
)
from pipeline.evaluation.settings import ORACLE, Axis, EvaluateSettings, MapSettings, Region
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import Record
from pipeline.statistics.binning import Spacing

SECTION = "evaluate"
MOST_BINS = 60_000  # of all axes, numbered in 16 bits
TRUTH_AXIS = "denominator"  # the name of the axis of closure where the settings give none

# Columns of a calibrated set that are used where the set has them; a set with a density has all.
DENSITY_COLUMNS = (
    *("q025", "q16", "median", "q84", "q975", "sigma_syst", "sigma_stat", "sigma_tot"),
    *("sigma_tot_log10", "in_domain", "log_density", "pit", "crps"),
)


class PlannedMap(Record):
    """Columns and fine bins of the map of clusters, in r and |z|."""

    distance: str
    rapidity: str
    r: Spacing
    z: Spacing


class EvaluationPlan(Record):
    """Everything besides the rows that an evaluation depends on; equal plans can be merged.

    Attributes:
        settings: As given.
        target: What the calibrated sets predict.
        weight: Column with the rows' weights; None for 1.
        axes: Resolved; one at least is of the denominator.
        spectra: Further axes, of spectra only.
        classes: By name: conditions on rows that spectra show apart.
        map: Of all clusters; None for none.
        regions: By name: conditions.
        plane: Fine bins of the target in two-dimensional figures.
        baseline_bins: Numerator bins of the baseline.
        baseline_fine_bins: Its fine bins, of the transformed target.
        partial: Sets whose models see fewer features than the exact density is of: an excess over
            it says nothing about them.
    """

    settings: EvaluateSettings
    target: Target
    weight: str | None
    axes: tuple[ResolvedAxis, ...]
    spectra: tuple[ResolvedAxis, ...]
    regions: dict[str, tuple[ResolvedCondition, ...]]
    classes: dict[str, tuple[ResolvedCondition, ...]]
    map: PlannedMap | None
    plane: Spacing
    baseline_bins: Spacing | None
    baseline_fine_bins: Spacing | None
    partial: tuple[str, ...] = ()

    @property
    def truth_axis(self) -> ResolvedAxis:
        """The first axis of the denominator, on which closure and resolution are defined."""
        return next(axis for axis in self.axes if axis.column == self.target.denominator)

    def axes_of(self, group: AxisGroup) -> tuple[ResolvedAxis, ...]:
        """The axes in whose bins the figures of a group are."""
        return self._axes[group]

    def bins_of(self, group: AxisGroup) -> dict[str, slice]:
        """By axis: the numbers of its bins among those of all axes of a group."""
        return self._bins[group]

    @functools.cached_property
    def _axes(self) -> dict[AxisGroup, tuple[ResolvedAxis, ...]]:
        scored = {*self.settings.scored, self.truth_axis.name}
        return {
            "profiles": self.axes,
            "spectra": (*self.axes, *self.spectra),
            "planes": self.plane_axes,
            "scores": tuple(axis for axis in self.axes if axis.name in scored),
        }

    @functools.cached_property
    def _bins(self) -> dict[AxisGroup, dict[str, slice]]:
        return {group: _numbered(axes) for group, axes in self._axes.items()}

    @property
    def plane_axes(self) -> tuple[ResolvedAxis, ...]:
        """The axes against which the target is shown in two dimensions."""
        return tuple(axis for axis in self.axes if axis.name in self.settings.planes)


def _numbered(axes: Sequence[ResolvedAxis]) -> dict[str, slice]:
    ends = [0, *itertools.accumulate(axis.num_bins for axis in axes)]
    steps = itertools.pairwise(ends)
    return {axis.name: slice(*step) for axis, step in zip(axes, steps, strict=True)}


class NeededColumns(NamedTuple):
    """Columns to read: of a dataset's parts, and of a calibrated set's as far as it has them."""

    dataset: tuple[str, ...]
    calibrated: tuple[str, ...]


def plan_evaluation(
    settings: EvaluateSettings, manifest: DatasetManifest, partial: Iterable[str] = ()
) -> EvaluationPlan:
    """The settings applied to one dataset; all that can be wrong with them is found here.

    Args:
        settings: The section.
        manifest: Of the dataset.
        partial: See EvaluationPlan.

    Raises:
        UserError: The dataset has no truth or no usable range of its target; the settings name
            a column that it lacks, or an axis or the baseline needs a range that is not known.
    """
    target = manifest.require_target()
    fine_bins = settings.fine.plane_cells
    bins, log_fine_bins = _baseline_spacings(settings, manifest)
    plan = EvaluationPlan(
        settings=settings,
        target=target,
        weight=next((c.name for c in manifest.columns if c.role == "weight"), None),
        axes=_resolve_axes(settings, target, manifest),
        spectra=_resolve(f"{SECTION}.spectra", settings.spectra, manifest),
        regions=_resolve_populations(settings, manifest),
        classes=_resolve_regions("classes", settings.classes, manifest),
        map=_plan_map(settings.map, manifest),
        plane=_plane_spacing(manifest, fine_bins),
        baseline_bins=bins,
        baseline_fine_bins=log_fine_bins,
        partial=tuple(sorted(partial)),
    )
    num_bins = sum(axis.num_bins for axis in plan.axes_of("spectra"))  # the others are among them
    if num_bins > MOST_BINS:
        msg = f"{SECTION}: the axes have {num_bins} bins together, at most {MOST_BINS} are possible"
        raise UserError(msg)
    return plan


def check_names(
    settings: EvaluateSettings, names: Collection[str], reserved: Collection[str] = ()
) -> None:
    """A check that the sets which the settings name are there.

    The default reference may be missing: a sample of real data has no exact density.

    Args:
        settings: Of the evaluation.
        names: Of the calibrated sets of the study.
        reserved: Names that stand for something else.

    Raises:
        UserError: The reference or a pair names another set, or an external set has a name that
            is taken; all problems together.
    """
    taken = [name for name in settings.external if name in {*names, *reserved}]
    names = (*names, *settings.external)
    paired = dict.fromkeys(name for pair in settings.pairs for name in pair)
    absent = [name for name in paired if name not in names]
    known = f"the study has {', '.join(names) or 'none'}"
    problems = [f"evaluate.external.{name}: the name is taken, give another one" for name in taken]
    if settings.reference not in {*names, ORACLE}:
        problems.append(
            f"evaluate.reference: no calibrated set is called {settings.reference}, {known}; "
            "give one of them, or leave the key out to compare with the exact density"
        )
    if absent:
        problems.append(
            f"evaluate.pairs: no calibrated set is called {' or '.join(absent)}, {known}; "
            "give pairs of these only"
        )
    if problems:
        raise UserError("\n".join(problems))


def _plane_spacing(manifest: DatasetManifest, fine_bins: int) -> Spacing:
    """Fine bins of the target, even in the space of its density."""
    low, high = manifest.target_range()
    if manifest.require_target().transform == "identity":
        return Spacing(scale="linear", low=low, high=slightly_above(high), cells=fine_bins)
    return Spacing(scale="log", low=10**low, high=slightly_above(10**high), cells=fine_bins)


def _resolve_axes(
    settings: EvaluateSettings, target: Target, manifest: DatasetManifest
) -> tuple[ResolvedAxis, ...]:
    """The axes of the settings, and that of the denominator if it is not among them."""
    axes = list(_resolve(f"{SECTION}.axes", settings.axes, manifest))
    if not any(axis.column == target.denominator for axis in axes):
        taken = next((axis.column for axis in axes if axis.name == TRUTH_AXIS), None)
        if taken is not None:
            msg = (
                f"evaluate.axes.{TRUTH_AXIS}: the name is kept for {target.denominator}, on which "
                f"closure is defined, got an axis of {taken}; give this axis another name"
            )
            raise UserError(msg)
        where = f"{SECTION}.axes.{TRUTH_AXIS}"
        axes.append(resolve_axis(where, TRUTH_AXIS, Axis(of="denominator"), manifest))
    return tuple(axes)


def _resolve(
    section: str, axes: Mapping[str, Axis], manifest: DatasetManifest
) -> tuple[ResolvedAxis, ...]:
    return tuple(
        resolve_axis(f"{section}.{name}", name, axis, manifest)
        for name, axis in axes.items()
        if not axis.optional or has_column(axis, manifest)
    )


def _resolve_populations(
    settings: EvaluateSettings, manifest: DatasetManifest
) -> dict[str, tuple[ResolvedCondition, ...]]:
    """The regions, which no truth may select; classes, of which only spectra are shown, may be."""
    regions = _resolve_regions("regions", settings.regions, manifest)
    for name, conditions in regions.items():
        for condition in conditions:
            refuse_truth(f"{SECTION}.regions.{name}", condition, manifest)
    return regions


def _resolve_regions(
    section: str, regions: Mapping[str, Region], manifest: DatasetManifest
) -> dict[str, tuple[ResolvedCondition, ...]]:
    return {
        name: tuple(
            resolve_condition(f"{SECTION}.{section}.{name}", c, manifest) for c in region.where
        )
        for name, region in regions.items()
        if not region.optional or all(has_column(c, manifest) for c in region.where)
    }


def _plan_map(given: MapSettings | None, manifest: DatasetManifest) -> PlannedMap | None:
    known = {column.name for column in manifest.columns}
    if given is None or not {given.distance, given.rapidity} <= known:
        return None
    fine_bins = [max(1, round(end / given.cell)) for end in (given.r, given.z)]
    r, z = (Spacing(scale="linear", low=0.0, high=n * given.cell, cells=n) for n in fine_bins)
    return PlannedMap(distance=given.distance, rapidity=given.rapidity, r=r, z=z)


def _baseline_spacings(
    settings: EvaluateSettings, manifest: DatasetManifest
) -> tuple[Spacing | None, Spacing | None]:
    """Bins of the numerator and fine bins of log10 of the target; None without a baseline."""
    if settings.baseline is None or manifest.target is None:
        return None, None
    low, high = manifest.target_range()
    margin, fine_bins = settings.baseline.margin, settings.baseline.cells
    return (
        even_spacing(manifest.target.numerator, settings.baseline.bins, manifest),
        Spacing(scale="linear", low=low - margin, high=high + margin, cells=fine_bins),
    )


def needed_columns(settings: EvaluateSettings, manifest: DatasetManifest) -> NeededColumns:
    """Columns that an evaluation reads: in the dataset's order, and of each calibrated set.

    A set without a density (a table, a point estimate) lacks some of the second; read those
    that its manifest lists.
    """
    plan = plan_evaluation(settings, manifest)
    target = plan.target
    names = {IDENTITY, target.name, target.numerator, target.denominator}
    names |= {axis.column for axis in (*plan.axes, *plan.spectra)}
    chosen = (*plan.regions.values(), *plan.classes.values())
    names |= {c.column for conditions in chosen for c in conditions}
    if plan.map is not None:
        names |= {plan.map.distance, plan.map.rapidity}
    if plan.weight is not None:
        names.add(plan.weight)
    known = [column.name for column in manifest.columns]
    return NeededColumns(
        dataset=tuple(name for name in known if name in names),
        calibrated=(IDENTITY, target.name, target.calibrated, *DENSITY_COLUMNS),
    )
