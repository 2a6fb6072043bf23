"""What a dataset's manifest says: settings, cut flow, statistics, and what is missing."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from pipeline.fold import merge_in_order
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import (
    SPLITS,
    CutCount,
    DatasetManifest,
    FloorCount,
    InputFile,
    MissingRows,
)
from pipeline.formats.transforms import ColumnStatistics
from pipeline.formats.versions import fingerprint
from pipeline.ingest.moments import SignedMoments, merge_tables
from pipeline.ingest.plan import ROWS, PartPlan, settings_fingerprint, statistics_columns
from pipeline.ingest.resume import BlockRecord, Receipt
from pipeline.numerics.arrays import IntArray
from pipeline.settings import DatasetSettings


def dataset_fingerprint(
    settings: DatasetSettings, files: Sequence[InputFile], missing: Sequence[MissingRows]
) -> str:
    """The fingerprint of a dataset; a file that was moved is the same file."""
    inputs = [file.model_dump(mode="json", exclude={"path"}) for file in files]
    gaps = [gap.model_dump(mode="json", exclude={"reason"}) for gap in missing]
    return fingerprint(settings=settings_fingerprint(settings), inputs=inputs, missing=gaps)


def build_manifest(
    plans: Sequence[PartPlan],
    receipts: Sequence[Receipt],
    *,
    files: Sequence[InputFile],
    unopened: Sequence[MissingRows],
    versions: dict[str, str],
) -> DatasetManifest:
    """The manifest of a dataset whose parts are written.

    Args:
        plans: Of its parts, in order.
        receipts: Of its parts, in order.
        files: The inputs.
        unopened: Inputs that were skipped because they could not be opened.
        versions: Software.

    Raises:
        UserError: No training rows are left, or their weights allow no statistics.
    """
    settings = plans[0].settings
    missing = [*unopened, *_missing_blocks(plans, receipts)]
    total = _sum_up(settings, receipts)
    rules = ["finite values", *(cut.rule for cut in settings.cuts)]
    cut_flow = tuple(
        CutCount(rule=rule, before=int(total.counts[step]), after=int(total.counts[step + 1]))
        for step, rule in enumerate(rules)
    )
    parts = [part for receipt in receipts for part in receipt.parts]
    if not (total.moments[ROWS].count if settings.every_target else len(parts)):
        raise _explain_empty(settings, cut_flow, missing)
    return DatasetManifest(
        fingerprint=dataset_fingerprint(settings, files, missing),
        settings_fingerprint=settings_fingerprint(settings),
        features=settings.features,
        target=settings.target,
        targets=settings.targets,
        columns=plans[0].columns,
        inputs=tuple(files),
        missing=tuple(missing),
        cut_flow=cut_flow,
        floors=tuple(
            FloorCount(column=name, floor=floor, rows=int(rows))
            for (name, floor), rows in zip(settings.floors.items(), total.floored, strict=True)
        ),
        cuts=settings.cuts,
        split=settings.split.model_dump(),
        # By split, then index: the order in which readers go through a split.
        parts=tuple(sorted(parts, key=lambda part: (SPLITS.index(part.split), part.index))),
        statistics=statistics_of(settings, total.moments),
        versions=versions,
    )


@dataclass(frozen=True, slots=True)
class _Total:
    counts: IntArray
    floored: IntArray
    moments: dict[str, SignedMoments]


def _sum_up(settings: DatasetSettings, receipts: Sequence[Receipt]) -> _Total:
    """The sums over all blocks, in the order of the blocks and always by the same tree."""
    blocks = [b for receipt in receipts for b in receipt.blocks if b.failure is None]
    columns = statistics_columns(settings)
    counts_of = {table: len(names) + len(logs) for table, (names, logs) in columns.items()}
    moments = [
        {table: block.moments(table, count) for table, count in counts_of.items()}
        for block in blocks or [BlockRecord(key="")]
    ]
    counts = np.zeros(2 + len(settings.cuts), np.int64)
    floored = np.zeros(len(settings.floors), np.int64)
    return _Total(
        counts=reduce(operator.add, (np.array(b.counts, np.int64) for b in blocks), counts),
        floored=reduce(operator.add, (np.array(b.floored, np.int64) for b in blocks), floored),
        moments=merge_in_order(moments, merge_tables),
    )


def _missing_blocks(plans: Sequence[PartPlan], receipts: Sequence[Receipt]) -> list[MissingRows]:
    return [
        MissingRows(
            path=plan.sources[block.file].file.path,
            start=block.start,
            stop=block.stop,
            reason=record.failure,
        )
        for plan, receipt in zip(plans, receipts, strict=True)
        for block, record in zip(plan.blocks, receipt.blocks, strict=True)
        if record.failure is not None
    ]


def statistics_of(
    settings: DatasetSettings, tables: Mapping[str, SignedMoments]
) -> dict[str, ColumnStatistics]:
    """What a manifest says of the training rows, from their moments; see `clean.moments_of`.

    Raises:
        UserError: Their weights allow no statistics.
    """
    found: dict[str, ColumnStatistics] = {}
    for table, (names, logs) in statistics_columns(settings).items():
        found |= _statistics_of_table(settings, tables[table], names, logs)
    return found


def _statistics_of_table(
    settings: DatasetSettings, moments: SignedMoments, names: Sequence[str], logs: Sequence[str]
) -> dict[str, ColumnStatistics]:
    if moments.count == 0:  # all rows are test rows without truth, or all lists are empty
        return {}
    columns = [*names, *(f"log10 of {name}" for name in logs)]
    if not moments.sum_of_weights > 0.0:
        raise _explain_weights(settings, f"they sum to {moments.sum_of_weights:.6g}")
    mean, std = moments.mean.tolist(), moments.std.tolist()
    negative = [column for column, value in zip(columns, std, strict=True) if not value >= 0.0]
    if negative:
        raise _explain_weights(settings, f"the variance of {negative[0]} is negative with them")
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


def _explain_weights(settings: DatasetSettings, reason: str) -> UserError:
    return UserError(
        f"dataset.weight: the weights {settings.weight} of the training clusters allow no "
        f"statistics: {reason}; use more clusters, or weights with fewer negative ones"
    )


def _explain_empty(
    settings: DatasetSettings, cut_flow: Sequence[CutCount], missing: Sequence[MissingRows]
) -> UserError:
    kind = "training clusters" if settings.every_target else "clusters"
    steps = ", ".join(f"{step.after} after {step.rule}" for step in cut_flow)
    skipped = [f"; {len(missing)} pieces were skipped, the first: {m.reason}" for m in missing[:1]]
    return UserError(
        f"no {kind} are left: {cut_flow[0].before} entries, {steps}; "
        f"loosen dataset.cuts or name other inputs{''.join(skipped)}"
    )
