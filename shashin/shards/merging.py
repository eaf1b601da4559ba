"""Merges shards into one, from their stored vectors: what is hidden, and repeats, are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard
from shashin.model_space import ModelSpace
from shashin.offsets.ranges import merge_ranges
from shashin.shards.files import open_files
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.rows_file import MergedRows
from shashin.shards.kinds.protocol import IndexKind
from shashin.shards.writer import MadeFrom, Origin, write_shard

REASON = "merged"
"""Why a merged shard ends where it does."""

_BLOCK = 8_192
"""Vectors copied at a time."""


@dataclass(frozen=True)
class Parent:
    """A shard to merge, with its verified files."""

    manifest: Manifest
    folder: Path
    hidden: npt.NDArray[np.uint32]
    """Numbers of its hidden rows."""


@dataclass(frozen=True)
class MergedBucket:
    """Where a merged shard belongs."""

    tier: str
    start: int
    """Unix seconds."""
    seconds: int
    build: str
    """Name of the IndexBuild."""


def merge_shards(
    parents: Sequence[Parent],
    kind: IndexKind,
    folder: Path,
    bucket: MergedBucket,
    *,
    on_progress: Callable[[int, int], None],
) -> Manifest:
    """Write a shard with the visible rows of others to ``folder``; returns its manifest.

    The same parents give the same rows in the same order. ``on_progress`` is called with the rows
    copied and their total, in whatever thread this runs.

    Raises:
        CorruptShard: when a parent's files do not match its manifest, or parents have different models.
        OSError: when a file cannot be written.
    """
    ordered = sorted(parents, key=lambda parent: parent.manifest.source_ranges)
    space = _only_space(ordered)
    opened = [open_files(p.folder, p.manifest.index_spec, rows=p.manifest.rows) for p in ordered]
    keep = [_visible(parent) for parent in ordered]
    rows = MergedRows([files.rows for files in opened], keep)
    index = kind.builder(space.dimensions)
    for files, kept in zip(opened, rows.kept, strict=True):
        for start in range(0, len(kept), _BLOCK):
            index.add(files.index.vectors(kept[start : start + _BLOCK]))
            on_progress(len(index), len(rows))
    sources = tuple(merge_ranges(r for p in ordered for r in p.manifest.source_ranges))
    return write_shard(
        folder,
        Origin(bucket.tier, bucket.start, bucket.seconds, sources, REASON),
        space,
        index,
        rows.write,
        MadeFrom(
            tuple(parent.manifest.shard_id for parent in ordered),
            sum(parent.manifest.rows for parent in ordered) - len(rows),
            1 + max(parent.manifest.rewrites for parent in ordered),
            bucket.build,
        ),
    )


def _only_space(parents: Sequence[Parent]) -> ModelSpace:
    spaces = {ModelSpace(p.manifest.model_id, p.manifest.dimensions) for p in parents}
    if len(spaces) != 1:
        raise CorruptShard(
            f"shards of {' and '.join(sorted(map(str, spaces))) or 'no model'} cannot be merged: "
            "expected one model and one number of dimensions"
        )
    return spaces.pop()


def _visible(parent: Parent) -> npt.NDArray[np.bool_]:
    visible = np.ones(parent.manifest.rows, dtype=np.bool_)
    visible[parent.hidden] = False
    return visible
