"""Parquet parts: written under a temporary name, described by their checksum."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.formats.files import replacing
from pipeline.formats.manifest import Part, Split

ROW_GROUP = 65_536


def part_path(split: Split, index: int) -> str:
    """The path of a part below its manifest's folder."""
    return f"split={split}/part-{index:05d}.parquet"


def write_part(folder: Path, split: Split, index: int, table: pa.Table) -> Part:
    """Write one part; equal rows give equal bytes. Its manifest's writer flushes it to the disk."""
    sink = pa.BufferOutputStream()
    # Physical numbers hardly repeat: a dictionary costs time and saves nothing. Their bytes, apart
    # by significance, compress with LZ4 as well as they would with Zstandard in one, and are read
    # two to three times as fast.
    floating = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP,
        compression="lz4",
        use_dictionary=False,
        use_byte_stream_split=floating,
    )
    content = sink.getvalue()
    with replacing(folder / part_path(split, index), flush=False) as temporary:
        temporary.write_bytes(content)
    return Part(
        path=part_path(split, index),
        split=split,
        index=index,
        rows=table.num_rows,
        size=content.size,
        sha256=hashlib.sha256(content).hexdigest(),
    )
