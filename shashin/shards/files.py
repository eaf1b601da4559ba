"""Opens the files of a written shard: its rows and the matching index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shashin.errors import CorruptShard
from shashin.shards.format.index_spec import IndexSpec
from shashin.shards.format.manifest import ROWS_FILE
from shashin.shards.format.rows_file import SealedRows
from shashin.shards.kinds.protocol import SearchableIndex
from shashin.shards.kinds.registry import open_index


@dataclass(frozen=True)
class ShardFiles:
    """Memory-mapped rows and index of one shard: vector i of the index belongs to row i."""

    rows: SealedRows
    index: SearchableIndex


def open_files(folder: Path, spec: IndexSpec, *, rows: int) -> ShardFiles:
    """Open the files in ``folder``; ``rows`` is the number of rows in the manifest.

    Raises:
        UnknownFormat: when a file has a format that this version does not support.
        CorruptShard: when a file is missing, does not match ``spec``, or has a different number of
            rows or vectors.
    """
    opened = ShardFiles(SealedRows(folder / ROWS_FILE), _open_index(folder, spec))
    if not rows == len(opened.rows) == len(opened.index):
        raise CorruptShard(
            f"{folder} has {len(opened.rows)} rows and {len(opened.index)} vectors; its manifest "
            f"says {rows}: rebuild the shard"
        )
    return opened


def _open_index(folder: Path, spec: IndexSpec) -> SearchableIndex:
    try:
        return open_index(spec, folder)
    except CorruptShard as error:
        raise CorruptShard(f"{error.message}: rebuild the shard") from error
