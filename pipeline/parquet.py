"""Parquet parts: written under a temporary name, described by their checksum."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.formats.files import replacing, sha256_of
from pipeline.formats.manifest import Part, Split

ROW_GROUP = 65_536


def part_path(split: Split, index: int) -> str:
    """The path of a part below its manifest's folder."""
    return f"split={split}/part-{index:05d}.parquet"


def write_part(folder: Path, split: Split, index: int, table: pa.Table) -> Part:
    """Write one part; equal rows give equal bytes."""
    path = folder / part_path(split, index)
    with replacing(path) as temporary:
        # Physical features hardly repeat: a dictionary costs time and saves nothing.
        pq.write_table(
            table, temporary, row_group_size=ROW_GROUP, compression="zstd", use_dictionary=False
        )
    return Part(
        path=part_path(split, index),
        split=split,
        index=index,
        rows=table.num_rows,
        size=path.stat().st_size,
        sha256=sha256_of(path),
    )
