"""Writes shards: takes rows and vectors, produces a verified folder.

``ShardWriter`` collects rows one by one, for open shards, which add them as the log grows; builds
(``shashin.shards.merging``) have all rows at once. Verified: the files are opened again and counted;
hashes are compared when a shard is fetched.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.model_space import ModelSpace
from shashin.offsets.ranges import OffsetRange
from shashin.runtime.failpoints import failpoint
from shashin.shards.files import open_files
from shashin.shards.format.file_entry import file_entry
from shashin.shards.format.manifest import (
    FORMAT,
    MANIFEST_FILE,
    ROWS_FILE,
    WITH_MODEL_FILES,
    Manifest,
)
from shashin.shards.format.open_rows import OpenRows
from shashin.shards.format.row import NewRow, Row
from shashin.shards.format.rows_file import write_rows
from shashin.shards.format.shard_id import shard_id
from shashin.shards.kinds.protocol import IndexBuilder, IndexKind, QuantizedKind, SearchableIndex

_SAMPLE = 64
"""Number of vectors used as queries to measure recall."""

_BLOCK = 8192
"""Number of rows that queries are compared with at a time."""


@dataclass(frozen=True)
class Origin:
    """A shard's tier and bucket, and the log ranges it was built from."""

    tier: str
    bucket_start: int
    """Unix seconds."""
    bucket_seconds: int
    sources: tuple[OffsetRange, ...]
    """Ranges of the log, in any order."""
    reason: str
    """Why the range was cut."""

    def shard_id(self, space: ModelSpace) -> str:
        """Return the id of the shard."""
        return shard_id(space.model_id, self.tier, self.sources)


@dataclass(frozen=True)
class MadeFrom:
    """What a built shard was made from; the default for one that an indexer sealed."""

    parents: tuple[str, ...] = ()
    dropped_rows: int = 0
    rewrites: int = 0
    build: str = ""


def _ignore_row(_number: int, _row: Row) -> None:
    return


class ShardWriter:
    """Collects rows with their vectors, in order, and writes a shard of them.

    Only one thread may add. ``on_row`` is called with each row before its vector is searchable.
    """

    def __init__(
        self,
        space: ModelSpace,
        index: IndexBuilder,
        *,
        on_row: Callable[[int, Row], None] = _ignore_row,
    ) -> None:
        self.space = space
        self.rows = OpenRows()
        self._index = index
        self._on_row = on_row

    def add(self, new_rows: Sequence[NewRow]) -> None:
        """Append rows; those that exist (same photo of the same version) are skipped."""
        vectors = []
        for new in new_rows:
            row = new.row
            if self.rows.has(row.listing_id, row.version, row.photo_number):
                continue
            self._on_row(self.rows.append(row), row)
            vectors.append(new.vector)
        if vectors:
            self._index.add(np.stack(vectors))

    def finish(self, folder: Path, origin: Origin, kind: IndexKind | None = None) -> Manifest:
        """Write the shard as ``write_shard`` does; nothing may be added afterwards.

        With an index of ``kind`` from the vectors that were added, or with the one that they were added to.
        """
        index = self._index
        # An index that grew with the model's quantizer unknown is divided by it now.
        if kind is not None and (kind.name != index.spec.kind or isinstance(kind, QuantizedKind)):
            index = kind.builder(self.space.dimensions)
            for block in _blocks(len(self._index)):
                index.add(self._index.vectors(block))
        return write_shard(
            folder, origin, self.space, index, lambda path: write_rows(self.rows, path)
        )


def write_shard(
    folder: Path,
    origin: Origin,
    space: ModelSpace,
    index: IndexBuilder,
    write_rows_to: Callable[[Path], None],
    made_from: MadeFrom | None = None,
) -> Manifest:
    """Write an index and its rows to ``folder``, which is emptied first; returns the manifest.

    The manifest is written last, once the files have been opened and have as many rows and vectors as
    were added.

    Raises:
        OSError: when a file cannot be written.
        CorruptShard: when the written files do not match the added vectors.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = index.write(folder)
    failpoint("amid-write")
    write_rows_to(folder / ROWS_FILE)
    spec = index.spec
    opened = open_files(folder, spec, rows=len(index))
    made = made_from or MadeFrom()
    manifest = Manifest(
        shard_id=origin.shard_id(space),
        tier=origin.tier,
        bucket_start=origin.bucket_start,
        bucket_seconds=origin.bucket_seconds,
        model_id=space.model_id,
        dimensions=spec.dimensions,
        metric=spec.metric,
        stored_type=spec.stored_type,
        index_kind=spec.kind,
        index_parameters=dict(spec.parameters),
        rows=len(opened.rows),
        listings=opened.rows.listings,
        files=tuple(file_entry(folder / name) for name in (*names, ROWS_FILE)),
        source_ranges=tuple(sorted(origin.sources)),
        cut_reason=origin.reason,
        recall_at_10=recall_at_10(opened.index),
        created_at=time.time(),
        parents=tuple(sorted(made.parents)),
        dropped_rows=made.dropped_rows,
        rewrites=made.rewrites,
        build=made.build,
        model_files=tuple(sorted(index.model_files)),
        format=WITH_MODEL_FILES if index.model_files else FORMAT,
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.to_json())
    return manifest


def recall_at_10(index: SearchableIndex) -> float | None:
    """Return the recall of the 10 nearest rows, with sampled vectors as queries.

    The ground truth is exact search over the stored vectors. Equal vectors are one query and count
    as one hit: otherwise a photo that was posted a thousand times would be most of the measure, and
    hide that other rows cannot be reached. None for an index without rows.
    """
    rows = len(index)
    if rows == 0:
        return None
    k = min(10, rows)
    vector_of, first = _distinct_vectors(index)
    numbers = first[np.linspace(0, len(first) - 1, num=min(_SAMPLE, len(first))).astype(np.int64)]
    queries = index.vectors(numbers)
    best_rows, best = np.empty((len(numbers), 0), np.int64), np.empty((len(numbers), 0), np.float32)
    for block in _blocks(rows):
        scores = np.concatenate([best, queries @ index.vectors(block).T], axis=1)
        candidates = np.concatenate([best_rows, np.tile(block, (len(numbers), 1))], axis=1)
        nearest = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        best = np.take_along_axis(scores, nearest, axis=1)
        best_rows = np.take_along_axis(candidates, nearest, axis=1)
    distinct_groups = np.arange(rows, dtype=np.uint32)
    results = index.search(queries, k, allowed=None, group=distinct_groups, groups=rows)
    found = expected = 0
    for query, expected_rows, lowest, result in zip(
        queries, best_rows, best.min(axis=1), results, strict=True
    ):
        wanted = len(np.unique(vector_of[expected_rows]))
        # Compare scores, not keys: rows with equal scores are interchangeable.
        right = result.rows[index.vectors(result.rows) @ query >= lowest - 1e-5]
        found += min(wanted, len(np.unique(vector_of[right])))
        expected += wanted
    return found / expected


def _distinct_vectors(
    index: SearchableIndex,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each row the number of its vector, and for each vector its first row, ascending."""
    hashes = [
        np.fromiter((hash(vector.tobytes()) for vector in index.vectors(block)), np.int64)
        for block in _blocks(len(index))
    ]
    _, first, number = np.unique(np.concatenate(hashes), return_index=True, return_inverse=True)
    return number, np.sort(first)


def _blocks(rows: int) -> list[npt.NDArray[np.int64]]:
    return [np.arange(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]
