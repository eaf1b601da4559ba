"""The files of a written shard, opened together: rows, and an index that has to fit them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shashin.errors import CorruptShard
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.format.rows_file import ROWS_FILE, SealedRows
from shashin.shards.kinds.protocol import SearchableIndex
from shashin.shards.kinds.registry import open_index


@dataclass(frozen=True)
class ShardFiles:
    """Memory-mapped rows and index of one shard: vector i of the index is that of row i."""

    rows: SealedRows
    index: SearchableIndex


def open_files(folder: Path, spec: IndexSpec, *, rows: int) -> ShardFiles:
    """Open what lies in ``folder``; ``rows`` is how many rows the manifest says there are.

    Raises:
        UnknownFormat: when a file has a format that this version does not read.
        CorruptShard: when a file is missing, is not what ``spec`` says, or holds another number of
            rows or vectors.
    """
    opened = ShardFiles(SealedRows(folder / ROWS_FILE), open_index(spec, folder))
    if not rows == len(opened.rows) == len(opened.index):
        raise CorruptShard(
            f"{folder} has {len(opened.rows)} rows and {len(opened.index)} vectors; its manifest "
            f"says {rows}: build the shard again"
        )
    return opened
