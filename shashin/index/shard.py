"""Shards that are searched: open ones that grow, and sealed ones that are mapped.

A shard is the three things that a search needs: rows, an index over their vectors, and a mask of
the rows that are visible. One lock is held by whoever reads or writes the index: USearch gives
every caller of one index the same scratch memory, so two searches at once would disturb each
other, as would a search and an add. Another one guards the mask, for moments only.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.errors import CorruptShard, UnknownFormat
from shashin.index.coverage import OffsetRange
from shashin.index.manifest import INDEX_FILE, ROWS_FILE, Manifest
from shashin.index.masked_search import Neighbours, search_allowed
from shashin.index.row_filter import RowFilter
from shashin.index.rows import OpenRows, Row, Rows, SealedRows
from shashin.index.tiers import LIVE
from shashin.index.vector_index import (
    INDEX_KIND,
    METRIC,
    STORED_TYPE,
    HnswParameters,
    UsearchIndex,
    Vectors,
)
from shashin.index.visibility import HiddenMap

_ADD_AT_ONCE = 8
"""Rows added under one hold of the lock: about 2 ms, which a search may have to wait."""


class Shard:
    """What open and sealed shards have in common."""

    shard_id: str
    tier: str

    def __init__(self, rows: Rows, index: UsearchIndex, visible: npt.NDArray[np.bool_]) -> None:
        self._rows = rows
        self._index = index
        self._visible = visible
        self._hidden_rows = 0
        self._lock = threading.Lock()
        self._mask_lock = threading.Lock()

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The log ranges that the shard holds."""
        raise NotImplementedError

    @property
    def bucket_start(self) -> int | None:
        """Unix seconds; None for a shard without records."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """How many rows the shard has, hidden ones included."""
        return len(self._rows)

    @property
    def hidden_rows(self) -> int:
        """How many of them are hidden."""
        return self._hidden_rows

    def hide(self, listing_id: str, below_version: int) -> int:
        """Hide the listing's rows of lower versions; returns how many were visible before."""
        numbers = self._rows.rows_of(listing_id)
        if len(numbers) == 0:
            return 0
        numbers = numbers[self._rows.versions_of(numbers) < np.uint64(below_version)]
        with self._mask_lock:
            newly = numbers[self._visible[numbers]]
            self._visible[newly] = False
            self._hidden_rows += len(newly)
        return len(newly)

    def search(self, queries: Vectors, k: int, row_filter: RowFilter) -> list[Neighbours]:
        """Return for each query (m, dimensions) the nearest visible row of up to k listings."""
        with self._lock:
            rows = len(self._rows)
            columns = self._rows.columns()
            allowed = None if self._hidden_rows == 0 else self._visible[:rows].copy()
            if row_filter.restricts:
                passing = row_filter.mask(columns)
                allowed = passing if allowed is None else allowed & passing
            return search_allowed(
                self._index, queries, k, allowed, columns.group, self._rows.listings
            )

    def row(self, number: int) -> Row:
        """Return one row."""
        return self._rows.row(number)

    def visible_rows_of(self, listing_id: str) -> list[tuple[int, Row]]:
        """Return the listing's visible rows with their numbers."""
        numbers = self._rows.rows_of(listing_id)
        return [(int(n), self._rows.row(int(n))) for n in numbers if self._visible[n]]

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """Return the vectors of rows, (len(numbers), dimensions) float32."""
        with self._lock:
            return self._index.vectors(np.array(numbers, dtype=np.int64))


@dataclass(frozen=True)
class NewRow:
    """A row to be added, with its vector (dimensions,) float32."""

    row: Row
    vector: npt.NDArray[np.float32]


class OpenShard(Shard):
    """The shard of a range that is being filled, in log order, by one thread.

    Hidden rows are masked and never removed, so that the same range gives the same bytes.
    """

    tier = LIVE

    def __init__(
        self,
        partition: int,
        from_offset: int,
        dimensions: int,
        parameters: HnswParameters,
        hidden: HiddenMap,
    ) -> None:
        self._open_rows = OpenRows()
        super().__init__(
            self._open_rows, UsearchIndex(dimensions, parameters), np.zeros(1024, dtype=np.bool_)
        )
        self.partition = partition
        self.from_offset = from_offset
        self.shard_id = f"open.p{partition:04d}.{from_offset:012d}"
        self._position = from_offset
        self._bucket_start: int | None = None
        self._hidden = hidden
        self._dimensions = dimensions
        self._parameters = parameters

    @property
    def position(self) -> int:
        """The offset after the last record that the shard holds."""
        return self._position

    @property
    def bucket_start(self) -> int | None:
        """Unix seconds; None while the shard has no record."""
        return self._bucket_start

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The range so far."""
        return (OffsetRange(self.partition, self.from_offset, self._position),)

    @property
    def parameters(self) -> HnswParameters:
        """How the index is built."""
        return self._parameters

    @property
    def dimensions(self) -> int:
        """Length of every vector."""
        return self._dimensions

    @property
    def listings(self) -> int:
        """How many listings have rows here."""
        return self._open_rows.listings

    def count_new(self, rows: Sequence[Row]) -> int:
        """Return how many of these rows are not here yet."""
        return sum(not self._open_rows.has(r.listing_id, r.version, r.photo_number) for r in rows)

    def end_at(self, offset: int) -> None:
        """Extend the range up to its cut: the log has no records between."""
        self._position = offset

    def add(self, new_rows: Sequence[NewRow], *, position: int, bucket_start: int) -> None:
        """Add the rows of the records up to ``position``.

        A photo of a version that is here already is left out: a repeat adds nothing.
        """
        if self._bucket_start is None:
            self._bucket_start = bucket_start
        for start in range(0, len(new_rows), _ADD_AT_ONCE):
            with self._lock:
                self._add_some(new_rows[start : start + _ADD_AT_ONCE])
        self._position = position

    def _add_some(self, new_rows: Sequence[NewRow]) -> None:
        first = len(self._open_rows)
        vectors = []
        for new in new_rows:
            row = new.row
            if self._open_rows.has(row.listing_id, row.version, row.photo_number):
                continue
            with self._mask_lock:
                # First of all: who looks the listing up meanwhile may find the row at once.
                if len(self._open_rows) >= len(self._visible):
                    self._visible = np.concatenate([self._visible, np.zeros_like(self._visible)])
            number = self._open_rows.append(row)
            # Under the lock: whoever hides the listing now comes before, and the map says so, or
            # after, and finds the row.
            with self._mask_lock:
                visible = self._hidden.visible(row.listing_id, row.version)
                self._visible[number] = visible
                self._hidden_rows += not visible
            vectors.append(new.vector)
        if vectors:
            self._index.add(first, np.stack(vectors))

    def write(self, folder: Path) -> None:
        """Write ``index.usearch`` and ``rows.arrow``; nothing may be added any more."""
        with self._lock:
            self._index.save(folder / INDEX_FILE)
        self._open_rows.write(folder / ROWS_FILE)

    def recall_at_10(self, sample: int = 64) -> float | None:
        """Return the share of the true 10 nearest rows that a search finds, over sampled rows.

        The truth is exact search over the stored vectors. None for a shard without rows.
        """
        rows = len(self._open_rows)
        if rows == 0:
            return None
        k = min(10, rows)
        numbers = np.unique(np.linspace(0, rows - 1, num=min(sample, rows)).astype(np.int64))
        queries = self.vectors(numbers.tolist())
        best = np.full((len(numbers), k), -np.inf, dtype=np.float32)
        for start in range(0, rows, 8192):
            block = self.vectors(range(start, min(start + 8192, rows)))
            scores = np.concatenate([best, queries @ block.T], axis=1)
            best = -np.partition(-scores, k - 1, axis=1)[:, :k]
        found = 0
        for query, least in zip(queries, best.min(axis=1), strict=True):
            with self._lock:
                keys, _ = self._index.search(query[None, :], k)[0]
            # Equal scores are equally right, so scores are compared and not keys.
            found += int(np.count_nonzero(self.vectors(keys.tolist()) @ query >= least - 1e-5))
        return min(1.0, found / (k * len(numbers)))


class SealedShard(Shard):
    """A shard from the repository, memory-mapped; its files have been checked before.

    Raises:
        CorruptShard: when a file is not what the manifest says.
        UnknownFormat: when a file has a format that this reader does not know.
    """

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        parameters = _parameters_of(manifest)
        rows = SealedRows(folder / ROWS_FILE)
        index = UsearchIndex.map(folder / INDEX_FILE, manifest.dimensions, parameters)
        if not len(rows) == len(index) == manifest.rows:
            raise CorruptShard(
                f"{folder} has {len(rows)} rows and {len(index)} vectors; its manifest says "
                f"{manifest.rows}: build the shard anew"
            )
        super().__init__(rows, index, np.ones(len(rows), dtype=np.bool_))
        self.manifest = manifest
        self.shard_id = manifest.shard_id
        self.tier = manifest.tier

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The log ranges that the shard was built from."""
        return self.manifest.source_ranges

    @property
    def bucket_start(self) -> int | None:
        """Unix seconds."""
        return self.manifest.bucket_start


def _parameters_of(manifest: Manifest) -> HnswParameters:
    found = (manifest.index_kind, manifest.metric, manifest.stored_type)
    if found != (INDEX_KIND, METRIC, STORED_TYPE):
        raise UnknownFormat(
            f"shard {manifest.shard_id} is an index of kind {' '.join(found)}; this version reads "
            f"{INDEX_KIND} {METRIC} {STORED_TYPE}: upgrade the reader or build the shard anew"
        )
    try:
        return HnswParameters(**manifest.index_parameters)
    except TypeError as error:
        raise UnknownFormat(
            f"shard {manifest.shard_id} has index parameters that this version does not know: "
            f"{error}"
        ) from error
