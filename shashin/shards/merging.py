"""Merges shards into one, from their stored vectors or from those of another model.

What is hidden, and repeats, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard
from shashin.model_space import ModelSpace
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.runtime.failpoints import failpoint
from shashin.shards.files import open_files
from shashin.shards.format.manifest import ROWS_FILE, Manifest
from shashin.shards.format.rows_file import MergedRows, SealedRows
from shashin.shards.kinds.protocol import IndexKind
from shashin.shards.writer import MadeFrom, Origin, write_shard

MERGED, REINDEXED = "merged", "reindexed"
"""Why a built shard ends where it does."""

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
class EmbeddedParent:
    """A shard to index again, with the vectors that another model has for its photos."""

    manifest: Manifest
    folder: Path
    """Only its rows are read."""
    numbers: npt.NDArray[np.uint32]
    """(n,) numbers of the rows that have a vector, ascending; the others are left out."""
    vectors: npt.NDArray[np.float16]
    """(n, dimensions), of unit length."""

    def vectors_of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the vectors of rows that have one."""
        return self.vectors[np.searchsorted(self.numbers, numbers)].astype(np.float32)


@dataclass(frozen=True)
class _Input:
    """What of a parent is written, and from where its vectors come."""

    manifest: Manifest
    rows: SealedRows
    keep: npt.NDArray[np.bool_]
    vectors: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class MergedBucket:
    """Where a merged shard belongs."""

    tier: str
    start: int
    """Unix seconds."""
    seconds: int
    build: str
    """Name of the IndexBuild."""

    def origin(self, sources: Iterable[OffsetRange], reason: str) -> Origin:
        """Return the origin of a shard of this bucket."""
        return Origin(self.tier, self.start, self.seconds, tuple(merge_ranges(sources)), reason)


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
    space = _only_space(parents)
    inputs = []
    for parent in parents:
        files = open_files(parent.folder, parent.manifest.index_spec, rows=parent.manifest.rows)
        inputs.append(_Input(parent.manifest, files.rows, _visible(parent), files.index.vectors))
    return _write(
        inputs,
        space,
        kind,
        folder,
        bucket.origin([r for p in parents for r in p.manifest.source_ranges], MERGED),
        rewrites=1 + max(parent.manifest.rewrites for parent in parents),
        build=bucket.build,
        on_progress=on_progress,
    )


def reindex_shards(
    parents: Sequence[EmbeddedParent],
    space: ModelSpace,
    sources: Sequence[OffsetRange],
    kind: IndexKind,
    folder: Path,
    bucket: MergedBucket,
    *,
    on_progress: Callable[[int, int], None],
) -> Manifest:
    """Write a shard of ``space`` with the rows of another model's shards; returns its manifest.

    ``sources`` are the offsets that it counts as having. Otherwise as ``merge_shards``.

    Raises:
        CorruptShard: when a parent's rows do not match its manifest.
        OSError: when a file cannot be written.
    """
    inputs = []
    for parent in parents:
        rows = SealedRows(parent.folder / ROWS_FILE)
        if len(rows) != parent.manifest.rows:
            raise CorruptShard(
                f"{parent.folder} has {len(rows)} rows; its manifest says {parent.manifest.rows}: "
                "fetch them again"
            )
        keep = np.zeros(len(rows), dtype=np.bool_)
        keep[parent.numbers] = True
        inputs.append(_Input(parent.manifest, rows, keep, parent.vectors_of))
    return _write(
        inputs,
        space,
        kind,
        folder,
        bucket.origin(sources, REINDEXED),
        rewrites=1,
        build=bucket.build,
        on_progress=on_progress,
    )


def _write(
    inputs: Sequence[_Input],
    space: ModelSpace,
    kind: IndexKind,
    folder: Path,
    origin: Origin,
    *,
    rewrites: int,
    build: str,
    on_progress: Callable[[int, int], None],
) -> Manifest:
    ordered = sorted(inputs, key=lambda one: one.manifest.source_ranges)
    rows = MergedRows([one.rows for one in ordered], [one.keep for one in ordered])
    index = kind.builder(space.dimensions)
    for one, kept in zip(ordered, rows.kept, strict=True):
        for start in range(0, len(kept), _BLOCK):
            index.add(one.vectors(kept[start : start + _BLOCK]))
            on_progress(len(index), len(rows))
            failpoint("amid-merge")
    return write_shard(
        folder,
        origin,
        space,
        index,
        rows.write,
        MadeFrom(
            tuple(one.manifest.shard_id for one in ordered),
            sum(one.manifest.rows for one in ordered) - len(rows),
            rewrites,
            build,
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
