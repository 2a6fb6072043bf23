"""What an evaluation does on one dataset: settings with every name and range resolved."""

from typing import NamedTuple

from pipeline.evaluation.axes import (
    ResolvedAxis,
    ResolvedCondition,
    even_spacing,
    resolve_axis,
    resolve_condition,
    slightly_above,
)
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.spacing import Spacing
from pipeline.formats.columns import IDENTITY, Target
from pipeline.formats.manifest import DatasetManifest
from pipeline.formats.records import Record

# Columns of a calibrated set that are used where the set has them; a set with a density has all.
DENSITY_COLUMNS = (
    *("q025", "q16", "q84", "q975", "sigma_syst", "sigma_stat", "sigma_tot"),
    *("sigma_tot_log10", "in_domain", "log_density", "pit"),
)


class EvaluationPlan(Record):
    """Everything besides the rows that an evaluation depends on; equal plans can be merged.

    Attributes:
        settings: As given.
        target: What the calibrated sets predict.
        weight: Column with the rows' weights; None for 1.
        axes: Resolved.
        regions: By name: conditions.
        plane: Cells of the target in two-dimensional figures.
        baseline_bins: Numerator bins of the baseline.
        baseline_cells: Its cells, in log10 of the target.
    """

    settings: EvaluateSettings
    target: Target
    weight: str | None
    axes: tuple[ResolvedAxis, ...]
    regions: dict[str, tuple[ResolvedCondition, ...]]
    plane: Spacing
    baseline_bins: Spacing | None
    baseline_cells: Spacing | None

    @property
    def truth_axis(self) -> ResolvedAxis | None:
        """The axis of the denominator, on which closure is defined; None if there is none."""
        return next((axis for axis in self.axes if axis.column == self.target.denominator), None)


class NeededColumns(NamedTuple):
    """Columns to read: of a dataset's parts, and of a calibrated set's as far as it has them."""

    dataset: tuple[str, ...]
    calibrated: tuple[str, ...]


def plan_evaluation(settings: EvaluateSettings, manifest: DatasetManifest) -> EvaluationPlan:
    """The settings applied to one dataset.

    Raises:
        UserError: The dataset has no truth, or the settings name a column that it lacks.
    """
    low, high = manifest.log10_target_range()
    target = manifest.target
    assert target is not None  # noqa: S101 - log10_target_range has refused that
    cells = settings.fine.plane_cells
    bins, log_cells = _baseline_spacings(settings, manifest)
    return EvaluationPlan(
        settings=settings,
        target=target,
        weight=next((c.name for c in manifest.columns if c.role == "weight"), None),
        axes=tuple(resolve_axis(n, a, manifest) for n, a in settings.axes.items()),
        regions={
            name: tuple(resolve_condition(name, c, manifest) for c in region.where)
            for name, region in settings.regions.items()
        },
        plane=Spacing(scale="log", low=10**low, high=slightly_above(10**high), cells=cells),
        baseline_bins=bins,
        baseline_cells=log_cells,
    )


def _baseline_spacings(
    settings: EvaluateSettings, manifest: DatasetManifest
) -> tuple[Spacing | None, Spacing | None]:
    """Bins of the numerator and cells of log10 of the target; None without a baseline."""
    if settings.baseline is None or manifest.target is None:
        return None, None
    low, high = manifest.log10_target_range()
    margin, cells = settings.baseline.margin, settings.baseline.cells
    return (
        even_spacing(manifest.target.numerator, settings.baseline.bins, manifest),
        Spacing(scale="linear", low=low - margin, high=high + margin, cells=cells),
    )


def needed_columns(settings: EvaluateSettings, manifest: DatasetManifest) -> NeededColumns:
    """Columns that an evaluation reads: in the dataset's order, and of each calibrated set.

    A set without a density (a table, a point estimate) lacks some of the second; read those
    that its manifest lists.
    """
    plan = plan_evaluation(settings, manifest)
    target = plan.target
    names = {IDENTITY, target.name, target.numerator, target.denominator}
    names |= {axis.column for axis in plan.axes}
    names |= {c.column for conditions in plan.regions.values() for c in conditions}
    if plan.weight is not None:
        names.add(plan.weight)
    known = [column.name for column in manifest.columns]
    return NeededColumns(
        dataset=tuple(name for name in known if name in names),
        calibrated=(IDENTITY, target.name, target.calibrated, *DENSITY_COLUMNS),
    )
