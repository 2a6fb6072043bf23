"""What a dataset's manifest says: settings, cut flow, statistics."""

from collections.abc import Sequence

from pipeline.formats.errors import UserError
from pipeline.formats.fingerprint import fingerprint as fingerprint_of
from pipeline.formats.manifest import SPLITS, CutCount, DatasetManifest, FloorCount, Part
from pipeline.formats.scaling import ColumnStatistics
from pipeline.ingest import BlockSummary, PartPlan, statistics_columns
from pipeline.moments import Moments
from pipeline.settings import DatasetSettings


def settings_fingerprint(settings: DatasetSettings) -> str:
    """The fingerprint of all settings but the inputs, whose place is not their identity."""
    return fingerprint_of(settings=settings.model_dump(mode="json", exclude={"inputs"}))


def build_manifest(
    plan: PartPlan,
    total: BlockSummary,
    parts: Sequence[Part],
    *,
    fingerprint: str,
    versions: dict[str, str],
) -> DatasetManifest:
    """The manifest of a dataset whose parts are written.

    Args:
        plan: Any of the plans; for the settings, files and columns that they share.
        total: The merged summary of all blocks.
        parts: All parts written.
        fingerprint: Of settings and inputs.
        versions: Software.

    Raises:
        UserError: No training rows are left.
    """
    settings = plan.settings
    rules = ["finite values", *(cut.rule for cut in settings.cuts)]
    cut_flow = tuple(
        CutCount(rule=rule, before=int(total.counts[step]), after=int(total.counts[step + 1]))
        for step, rule in enumerate(rules)
    )
    if total.moments.count == 0:
        raise _explain_empty(cut_flow)
    return DatasetManifest(
        fingerprint=fingerprint,
        settings_fingerprint=settings_fingerprint(settings),
        features=settings.features,
        target=settings.target,
        columns=plan.columns,
        inputs=plan.files,
        cut_flow=cut_flow,
        floors=tuple(
            FloorCount(column=name, floor=floor, rows=int(rows))
            for (name, floor), rows in zip(settings.floors.items(), total.floored, strict=True)
        ),
        truth_cuts=tuple(
            (cut.column, cut.above, cut.below)
            for cut in settings.cuts
            if cut.column not in {feature.name for feature in settings.features}
        ),
        split=settings.split.model_dump(),
        # By split, then index: the order in which readers go through a split.
        parts=tuple(sorted(parts, key=lambda part: (SPLITS.index(part.split), part.index))),
        statistics=_statistics(settings, total.moments),
        versions=versions,
    )


def _statistics(settings: DatasetSettings, moments: Moments) -> dict[str, ColumnStatistics]:
    names, logs = statistics_columns(settings)
    mean, std = moments.mean.tolist(), moments.std.tolist()
    low, high = moments.minimum.tolist(), moments.maximum.tolist()
    log_at = {name: len(names) + number for number, name in enumerate(logs)}
    return {
        name: ColumnStatistics(
            count=moments.count,
            sum_of_weights=moments.sum_of_weights,
            mean=mean[at],
            std=std[at],
            minimum=low[at],
            maximum=high[at],
            max_abs=max(abs(low[at]), abs(high[at])),
            log10_mean=mean[log_at[name]] if name in log_at else None,
            log10_std=std[log_at[name]] if name in log_at else None,
        )
        for at, name in enumerate(names)
    }


def _explain_empty(cut_flow: Sequence[CutCount]) -> UserError:
    steps = ", ".join(f"{step.after} after {step.rule}" for step in cut_flow)
    return UserError(
        f"no training clusters are left: {cut_flow[0].before} entries, {steps}; "
        "loosen dataset.cuts or name other inputs"
    )
