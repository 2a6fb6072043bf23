"""One block of clusters: identified, cut, floored and put into the order of the splits.

Cuts and floors are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.formats.columns import IDENTITY, Cut
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import SPLITS, Split, columns_of
from pipeline.formats.ragged import Ragged, as_ragged, every_element, table_of
from pipeline.ingest.identity import Ids, chain, ids_from_columns, ids_from_file, uniform_of
from pipeline.ingest.moments import SignedMoments
from pipeline.ingest.plan import PartPlan, finite_columns, statistics_columns
from pipeline.numerics.arrays import BoolArray, Columns, Float32Array, IntArray
from pipeline.root.inspect import RootSource
from pipeline.root.read import RootBlock
from pipeline.settings import DatasetSettings


def select(
    arrays: Columns, cuts: Sequence[Cut], finite: Sequence[str]
) -> tuple[BoolArray, IntArray]:
    """Which rows are kept, and how many are left at each step of the cut flow.

    Args:
        arrays: Columns of equal length N.
        cuts: In order.
        finite: Columns that must be finite; the first step.

    Returns:
        keep [N], and counts [2 + cuts]: all rows, finite rows, rows after each cut.
    """
    num_rows = len(next(iter(arrays.values())))
    keep = np.ones(num_rows, dtype=bool)
    for name in finite:
        keep &= every_element(arrays[name], np.isfinite)
    counts = [num_rows, int(keep.sum())]
    for cut in cuts:
        keep &= cut.keeps(arrays[cut.column])
        counts.append(int(keep.sum()))
    return keep, np.array(counts, dtype=np.int64)


def raise_to_floor(values: Float32Array, floor: float) -> tuple[Float32Array, int]:
    """The values with those below the floor raised to it, and how many were."""
    if (lists := as_ragged(values)) is not None:
        raised, count = raise_to_floor(lists.values, floor)
        return cast("Float32Array", Ragged(raised, lists.offsets)), count
    is_below = values < np.float32(floor)
    return np.where(is_below, np.float32(floor), values), int(is_below.sum())


@dataclass(frozen=True, slots=True)
class CleanBlock:
    """The rows of a block that are kept, and what was counted on the way.

    Attributes:
        columns: As the parts have them; training rows first, then validation, then test.
        rows: By split.
        counts: Clusters in all, finite ones, and after each cut.
        floored: Rows, or elements of lists, raised to each floor.
        moments: Of the training rows, by table.
    """

    columns: Columns
    rows: dict[Split, int]
    counts: IntArray
    floored: IntArray
    moments: dict[str, SignedMoments]

    def of(self, split: Split) -> Columns:
        """The columns of the rows that belong to one split."""
        before = sum(self.rows[earlier] for earlier in SPLITS[: SPLITS.index(split)])
        rows = slice(before, before + self.rows[split])
        return {name: values[rows] for name, values in self.columns.items()}


def clean_block(plan: PartPlan, source: RootSource, rows: RootBlock) -> CleanBlock:
    """Select, identify and split the clusters of one block."""
    settings = plan.settings
    # float32 first: what is cut, floored and divided is what is written.
    needed = finite_columns(settings)
    names = dict.fromkeys([*needed, *(column.name for column in plan.columns)])
    with np.errstate(over="ignore"):  # becomes inf, which the first cut counts
        single = {
            n: rows.columns[n].astype(np.float32, copy=False) for n in names if n in rows.columns
        }
    keep_N, counts = select(single, settings.cuts, needed)
    kept_K = np.flatnonzero(keep_N)
    event_K, ids_K = identify(source, settings.layout.rows == "vectors", rows, kept_K)
    split_K = _splits(plan, event_K if settings.split.unit == "event" else ids_K)
    by_split_K = np.argsort(split_K, kind="stable")
    order_K = kept_K[by_split_K]
    # Arrow gathers rows twice as fast as NumPy.
    taken = table_of(single).take(pa.array(order_K))
    columns: Columns = columns_of(taken)
    _refuse_unequal(settings, source, columns)
    floored = np.zeros(len(settings.floors), dtype=np.int64)
    for number, (name, floor) in enumerate(settings.floors.items()):
        columns[name], floored[number] = raise_to_floor(columns[name], floor)
    for target in settings.every_target:
        columns[target.name] = target.value_of(columns).astype(np.float32)
    columns[IDENTITY] = ids_K[by_split_K]
    per_split = np.bincount(split_K, minlength=len(SPLITS))
    num_train = int(per_split[0])
    return CleanBlock(
        columns={column.name: columns[column.name] for column in plan.columns},
        rows={split: int(per_split[number]) for number, split in enumerate(SPLITS)},
        counts=counts,
        floored=floored,
        moments=moments_of(settings, {n: values[:num_train] for n, values in columns.items()}),
    )


def identify(
    source: RootSource, is_vectors: bool, rows: RootBlock, kept_K: NDArray[np.intp]
) -> tuple[Ids, Ids]:
    """Identities of the events and of the clusters, [K] each, of one file's own columns.

    Where the file has no columns that name them, its own identity and the place in it do.
    """
    events = [rows.columns[n][kept_K] for n in source.event_identity]
    places = [rows.columns[n][kept_K] for n in source.cluster_identity]
    if not places:
        places = [rows.index[kept_K]]
    if not events or not (is_vectors or source.cluster_identity):
        by_entry_K = ids_from_file(source.file.uuid, rows.entry[kept_K])
        by_event_K = ids_from_columns(events) if events else by_entry_K
        return by_event_K, chain(by_entry_K, [rows.index[kept_K]])
    by_event_K = ids_from_columns(events)
    return by_event_K, chain(by_event_K, places)


def _splits(plan: PartPlan, ids_K: Ids) -> NDArray[np.uint8]:
    """The number of the split of each cluster [K]; all are test clusters without truth."""
    split = plan.settings.split
    if not plan.settings.every_target:
        return np.full(len(ids_K), SPLITS.index("test"), np.uint8)
    edges = np.cumsum([split.train, split.validation])
    return np.searchsorted(edges, uniform_of(ids_K, split.seed), side="right").astype(np.uint8)


def moments_of(settings: DatasetSettings, rows: Columns) -> dict[str, SignedMoments]:
    """By table: moments of the columns of which statistics are kept, then of their logarithms.

    An element of a list has the weight of its row.
    """
    weight = settings.weight
    weights_N = None if weight is None else rows[weight].astype(np.float64)
    found = {}
    for table, (names, logs) in statistics_columns(settings).items():
        columns, weights = {}, weights_N
        for name in names:
            lists = as_ragged(rows[name])
            columns[name] = (rows[name] if lists is None else lists.values).astype(np.float64)
            if lists is not None and weights_N is not None:
                weights = np.repeat(weights_N, lists.counts)
        numbers = [*columns.values(), *(np.log10(columns[name]) for name in logs)]
        found[table] = SignedMoments.of(numbers, weights)
    return found


def _refuse_unequal(settings: DatasetSettings, source: RootSource, columns: Columns) -> None:
    """Make sure that the lists of one table have equally many elements in each row.

    Raises:
        UserError: They have not.
    """
    first: dict[str, tuple[str, IntArray]] = {}
    for feature in settings.features:
        if (lists := as_ragged(columns[feature.name])) is None:
            continue
        name, offsets = first.setdefault(feature.table_name, (feature.name, lists.offsets))
        if not np.array_equal(offsets, lists.offsets):
            msg = (
                f"{source.file.path}: lists of {name} and {feature.name}, both of table "
                f"{feature.table_name}, differ in length; name another table for one of them"
            )
            raise UserError(msg)


def refuse_unknown_events(source: RootSource, *, is_vectors: bool) -> None:
    """Refuse a file whose clusters cannot be given to events.

    Raises:
        UserError: Its entries are clusters and no column names their event.
    """
    if not is_vectors and not source.event_identity:
        msg = (
            f"{source.file.path}: dataset.split.unit is event, but no column names the event of a "
            "cluster; give the layout columns of role identity and level event"
        )
        raise UserError(msg)
