"""The base of open and sealed shards: searching, hiding and looking up rows.

A shard consists of rows, an index over their vectors, and a mask of the visible rows. A row can be
found once its vector is in the index.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.columns import Rows
from shashin.shards.format.row import Row
from shashin.shards.kinds.protocol import Neighbours, SearchableIndex, Vectors
from shashin.shards.masked_rows import MaskedRows
from shashin.shards.row_filter import RowFilter


class Shard:
    """Rows, index and mask."""

    shard_id: str
    tier: str

    def __init__(self, rows: Rows, index: SearchableIndex, visible: npt.NDArray[np.bool_]) -> None:
        self._rows = rows
        self._index = index
        self._masked = MaskedRows(rows, visible)
        self._superseded: dict[str, int] = {}
        """Listings with a version below which rows are out of date and will be hidden soon."""

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The log ranges that the shard covers."""
        raise NotImplementedError

    @property
    def bucket_start(self) -> int | None:
        """Unix seconds; None for a shard without records."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """Number of rows, including hidden ones."""
        return len(self._rows)

    @property
    def hidden_rows(self) -> int:
        """Number of hidden rows."""
        return self._masked.hidden

    def hidden_row_numbers(self) -> npt.NDArray[np.uint32]:
        """Return the numbers of the hidden rows, ascending."""
        return self._masked.hidden_rows()

    @property
    def index_bytes(self) -> int:
        """Memory used by the index, in bytes."""
        return self._index.memory_bytes

    def supersede(self, listing_id: str, below_version: int) -> None:
        """Find the listing's rows of lower versions no more if this shard has a newer version.

        Unlike hidden rows they are there for searches that began before the newer ones were added,
        and for look-ups. ``hide`` ends it. A repeat, for which nothing is left to hide, is ignored:
        what waits here makes every search slower.
        """
        older = self._masked.older_rows(listing_id, below_version)
        visible = self._masked.visible
        if visible[older[older < len(visible)]].any():
            self._superseded[listing_id] = below_version

    def hide(self, listing_id: str, below_version: int) -> int:
        """Hide the listing's rows of lower versions; returns how many were visible before."""
        self._superseded.pop(listing_id, None)
        return self._masked.hide(listing_id, below_version)

    def hide_rows(self, numbers: npt.NDArray[np.integer]) -> int:
        """Hide rows by number; returns how many were visible before."""
        return self._masked.hide_rows(numbers)

    def search(self, queries: Vectors, k: int, row_filter: RowFilter) -> list[Neighbours]:
        """Return the nearest visible row of up to k listings for each query (m, dimensions)."""
        rows = len(self._index)
        columns = self._rows.columns(rows)
        allowed = None if self._masked.hidden == 0 else self._masked.visible[:rows].copy()
        if (replaced := self._replaced_rows(rows)).size:
            allowed = np.ones(rows, dtype=np.bool_) if allowed is None else allowed
            allowed[replaced] = False
        if row_filter.restricts:
            passing = row_filter.mask(columns)
            allowed = passing if allowed is None else allowed & passing
        return self._index.search(
            queries, k, allowed=allowed, group=columns.group, groups=self._rows.listings
        )

    def _replaced_rows(self, rows: int) -> npt.NDArray[np.int64]:
        """Return which of the first rows are out of date because of other ones among them."""
        found = [np.empty(0, dtype=np.int64)]
        for listing_id, below_version in list(self._superseded.items()):
            numbers = self._rows.rows_of(listing_id)
            numbers = numbers[numbers < rows]
            older = self._rows.versions_of(numbers) < np.uint64(below_version)
            if not older.all():
                found.append(numbers[older])
        return np.concatenate(found)

    def row(self, number: int) -> Row:
        """Return one row."""
        return self._rows.row(number)

    def visible_rows_of(self, listing_id: str) -> list[tuple[int, Row]]:
        """Return the listing's visible rows with their numbers."""
        searchable = len(self._index)
        return [
            (int(n), self._rows.row(int(n)))
            for n in self._rows.rows_of(listing_id)
            if n < searchable and self._masked.visible[n]
        ]

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """Return the vectors of rows, (len(numbers), dimensions) float32."""
        return self._index.vectors(np.array(numbers, dtype=np.int64))
