"""A dataset without its tagged rows, with statistics of the training rows that are left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.fold import merge_in_order
from pipeline.formats.calibrated_set import TAGGED, TagManifest
from pipeline.formats.columns import IDENTITY
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import CutCount, DatasetManifest, Part, columns_of, read_part
from pipeline.formats.versions import fingerprint
from pipeline.ingest.clean import moments_of
from pipeline.ingest.dataset import statistics_of
from pipeline.ingest.moments import SignedMoments, merge_tables
from pipeline.parquet import write_part
from pipeline.settings import STATISTICS_BLOCK, DatasetSettings
from pipeline.tagging.parts import require_same_rows


@dataclass(frozen=True, slots=True)
class KeepPlan:
    """All that a worker needs to write what is kept of one part.

    Attributes:
        dataset: Its folder.
        part: Of the dataset.
        tags: Folder and part of its tags.
        folder: Where the kept rows are written.
        settings: The study's section dataset.
    """

    dataset: Path
    part: Part
    tags: tuple[Path, Part]
    folder: Path
    settings: DatasetSettings


@dataclass(frozen=True, slots=True)
class KeptPart:
    """What is left of a part: its file if there are rows, and the moments of training rows."""

    part: Part | None
    moments: tuple[dict[str, SignedMoments], ...]


def keep_part(plan: KeepPlan) -> KeptPart:
    """Write the rows of one part that are not tagged; runs on a worker."""
    table, tags = read_part(plan.dataset, plan.part), read_part(*plan.tags)
    require_same_rows(plan.part, table[IDENTITY].to_numpy(), tags[IDENTITY].to_numpy())
    kept = table.filter(pa.array(~tags[TAGGED].to_numpy(zero_copy_only=False)))
    if not kept.num_rows:
        return KeptPart(None, ())
    moments: list[dict[str, SignedMoments]] = []
    if plan.part.split == "train":
        for first in range(0, kept.num_rows, STATISTICS_BLOCK):
            block = kept.slice(first, STATISTICS_BLOCK)
            columns = columns_of(block)
            moments.append(moments_of(plan.settings, columns))
    part = write_part(plan.folder, plan.part.split, plan.part.index, kept)
    return KeptPart(part, tuple(moments))


def untagged_fingerprint(dataset: DatasetManifest, tags: TagManifest) -> str:
    """The fingerprint of a dataset without its tagged rows: of the tags themselves."""
    contents = [part.sha256 for part in tags.parts]
    return fingerprint(stage="untagged", dataset=dataset.fingerprint, tags=contents)


def untagged_manifest(
    dataset: DatasetManifest, tags: TagManifest, kept: Sequence[KeptPart], settings: DatasetSettings
) -> DatasetManifest:
    """The manifest of what is left, in the order of the dataset's parts.

    Raises:
        UserError: No training rows are left.
    """
    blocks = [moments for each in kept for moments in each.moments]
    if not blocks:
        msg = "tag: all training clusters are tagged; lower tag.ordinary_loss"
        raise UserError(msg)
    parts = tuple(each.part for each in kept if each.part is not None)
    before, after = (sum(part.rows for part in these) for these in (dataset.parts, parts))
    merged = merge_in_order(blocks, merge_tables)
    return dataset.model_copy(
        update={
            "fingerprint": untagged_fingerprint(dataset, tags),
            "cut_flow": (
                *dataset.cut_flow,
                CutCount(rule="not tagged", before=before, after=after),
            ),
            "parts": parts,
            "statistics": statistics_of(settings, merged),
        }
    )
