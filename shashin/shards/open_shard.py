"""The shard of a range that is still being filled, in log order, by one thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shashin.model_space import ModelSpace
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.row import NewRow, Row
from shashin.shards.growing_array import GrowingArray
from shashin.shards.kinds.protocol import GrowingKind, IndexKind, Mask, OpenRows
from shashin.shards.shard import Shard
from shashin.shards.visibility import Visibility
from shashin.shards.writer import Origin, ShardWriter
from shashin.tiers import LIVE


class OpenShard(Shard):
    """Searchable while it grows, and then written.

    Hidden rows are masked, never removed, so that the same range always produces the same rows.
    """

    tier = LIVE

    def __init__(
        self,
        partition: int,
        from_offset: int,
        space: ModelSpace,
        kind: GrowingKind,
        hidden: Visibility,
    ) -> None:
        index = kind.growing(space.dimensions)
        self._writer = ShardWriter(space, index, on_row=self._mask_row)
        super().__init__(self._writer.rows, index)
        self._superseded: dict[str, int] = {}
        """Listings with a version below which rows are out of date and will be hidden soon."""
        self._replaced = GrowingArray(np.uint32)
        """By row, with how many rows of the shard a newer version replaces it; 0 if none does."""
        self._replacing = threading.Lock()
        """Held briefly while one of these two changes."""
        self.partition = partition
        self.from_offset = from_offset
        self.shard_id = f"open.p{partition:04d}.{from_offset:012d}"
        self._position = from_offset
        self._records_end = from_offset
        self._bucket_start: int | None = None
        self._hidden = hidden
        self._has_listing = self._writer.rows.has_listing

    @property
    def position(self) -> int:
        """The offset up to which the log was read for the shard."""
        return self._position

    @property
    def records_end(self) -> int:
        """The offset after the shard's last record, where its range is cut.

        The log may have offsets without a record after it, such as those of aborted transactions.
        How many of them were read at the cut differs between replicas.
        """
        return self._records_end

    @property
    def bucket_start(self) -> int | None:
        """Unix seconds; None while the shard has no record."""
        return self._bucket_start

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The current range."""
        return (OffsetRange(self.partition, self.from_offset, self._position),)

    @property
    def listings(self) -> int:
        """Number of listings in the shard."""
        return self._writer.rows.listings

    def count_new(self, rows: Sequence[Row]) -> int:
        """Return how many of these rows are not in the shard yet."""
        has = self._writer.rows.has
        return sum(not has(r.listing_id, r.version, r.photo_number) for r in rows)

    def read_up_to(self, offset: int) -> None:
        """Note that the log has no further record below an offset."""
        self._position = max(self._position, offset)

    def end(self) -> None:
        """End the range after its last record: the next one has the offsets beyond it."""
        self._position = self._records_end

    def add(self, new_rows: Sequence[NewRow], *, position: int, bucket_start: int) -> None:
        """Add the rows of the records up to ``position``.

        Rows that already exist (the same photo of the same version) are skipped.
        """
        if self._bucket_start is None:
            self._bucket_start = bucket_start
        self._writer.add(new_rows)
        self._position = self._records_end = position

    def _mask_row(self, number: int, row: Row) -> None:
        self._masked.append(number, lambda: self._hidden.visible(row.listing_id, row.version))
        with self._replacing:
            self._replaced.put(number, 0)
            if row.listing_id in self._superseded:
                self._replace(row.listing_id)

    def supersede(self, listing_id: str, below_version: int) -> None:
        """Find the listing's rows of lower versions no more once there is a newer version.

        ``hide`` ends it. A repeat, for which nothing is left to hide, is ignored.
        """
        if not self._has_listing(listing_id):
            return
        older = self._masked.older_rows(listing_id, below_version)
        flags = self._masked.flags
        if (flags[older[older < len(flags)]] == 0).any():
            with self._replacing:
                self._superseded[listing_id] = below_version
                self._replace(listing_id)

    def _replace(self, listing_id: str) -> None:
        """Note from which row on the listing's older rows are out of date.

        A search that began before still finds them: it does not find that row.
        """
        # A row beyond is still being added, and comes here again.
        numbers = self._rows.rows_of(listing_id)
        numbers = numbers[numbers < len(self._replaced.data)]
        older = self._rows.versions_of(numbers) < np.uint64(self._superseded[listing_id])
        if older.any() and not older.all():
            self._replaced.data[numbers[older]] = numbers[~older].min() + 1

    def hide(self, listing_id: str, below_version: int) -> int:
        """Hide the listing's rows of lower versions; returns how many were visible before."""
        if not self._has_listing(listing_id):
            return 0
        hidden = super().hide(listing_id, below_version)
        with self._replacing:
            self._superseded.pop(listing_id, None)
        return hidden

    def opened(self) -> OpenRows:
        """Return the rows as a search finds them from now on."""
        rows = len(self._index)  # first: the others have at least as many then
        return OpenRows(
            self._index,
            rows,
            flags=self._masked.flags,
            replaced=self._replaced.data,
            group=self._rows.columns(rows).group,
            groups=self._rows.listings,
            flagged=self._masked.flagged,
        )

    def _findable(self, rows: int) -> Mask | None:
        """Return which of the first rows a search may find; None if all."""
        findable = super()._findable(rows)
        replaced = self._replaced.data[:rows]
        outdated = (replaced != 0) & (replaced <= rows)
        if outdated.any():
            findable = ~outdated if findable is None else findable & ~outdated
        return findable

    def write(
        self,
        folder: Path,
        *,
        tier: str,
        bucket_seconds: int,
        reason: str,
        kind: IndexKind | None = None,
    ) -> Manifest:
        """Write the shard, with an index of ``kind`` or of its own; nothing may be added afterwards.

        Raises:
            OSError: when a file cannot be written.
            CorruptShard: when the written shard does not match the added rows.
        """
        if self._bucket_start is None:
            raise AssertionError(f"{self.shard_id} ended without a record")
        origin = Origin(tier, self._bucket_start, bucket_seconds, self.ranges, reason)
        return self._writer.finish(folder, origin, kind)
