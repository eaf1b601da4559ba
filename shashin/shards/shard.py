"""The base of open and sealed shards: searching, hiding and looking up rows.

A shard consists of rows, an index over their vectors, and flags of the rows that are hidden. A row can be
found once its vector is in the index.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shashin.offsets.ranges import OffsetRange
from shashin.shards.filter_masks import FilterMasks
from shashin.shards.format.columns import Identities, Rows
from shashin.shards.format.row import Row, RowDetails
from shashin.shards.kinds.exact_search import nearest_by_score
from shashin.shards.kinds.protocol import (
    MappedIndex,
    Mask,
    Neighbours,
    RowMask,
    SearchableIndex,
    Vectors,
)
from shashin.shards.masked_rows import HIDDEN, MaskedRows
from shashin.shards.row_filter import FieldChoices, RowFilter

_READ_BACK = 4096
"""Rows that are read at once, from the end, while the latest listings are looked for."""


class Shard:
    """Rows, index and flags."""

    shard_id: str
    tier: str

    def __init__(self, rows: Rows, index: SearchableIndex) -> None:
        self._rows = rows
        self._index = index
        self._masked = MaskedRows(rows)
        self._masks = FilterMasks(rows)

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """The log ranges that the shard covers."""
        raise NotImplementedError

    @property
    def bucket_start(self) -> int | None:
        """Unix seconds; None for a shard without records."""
        raise NotImplementedError

    @property
    def bucket_seconds(self) -> int | None:
        """Length of the bucket; None while the shard is open."""
        return None

    @property
    def index(self) -> SearchableIndex:
        """The index over the rows' vectors."""
        return self._index

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
        and for look-ups.
        """
        raise NotImplementedError

    def hide(self, listing_id: str, below_version: int) -> int:
        """Hide the listing's rows of lower versions; returns how many were visible before."""
        return self._masked.hide(listing_id, below_version)

    def hide_rows(self, numbers: npt.NDArray[np.integer]) -> int:
        """Hide rows by number; returns how many were visible before."""
        return self._masked.hide_rows(numbers)

    def search(self, queries: Vectors, k: int, row_filter: RowFilter) -> list[Neighbours]:
        """Return the nearest visible row of up to k listings for each query (m, dimensions)."""
        rows = len(self._index)
        allowed = self._findable(rows)
        if row_filter.restricts:
            passing = self.passing(row_filter, rows).flags
            allowed = passing if allowed is None else allowed & passing
        group = self._rows.columns(rows).group
        return self._index.search(
            queries, k, allowed=allowed, group=group, groups=self._rows.listings
        )

    def nearest_in(
        self, numbers: range, query: Vectors, k: int, row_filter: RowFilter, *, rows: int
    ) -> Neighbours:
        """Return the nearest of some rows that a search may find, of up to k listings, exactly.

        ``query`` is (dimensions,). Only the first ``rows`` rows count, as if later ones did not exist.
        """
        keys = np.arange(numbers.start, min(numbers.stop, rows))
        findable = self._findable(rows)
        if findable is not None:
            keys = keys[findable[keys]]
        if row_filter.restricts:
            keys = keys[self.passing(row_filter, rows).flags[keys]]
        scores = self._index.vectors(keys) @ query
        return nearest_by_score(scores, k, keys, self._rows.columns(rows).group)

    def drop_vectors(self) -> None:
        """Give the memory of mapped vectors that were read back to the system."""
        if isinstance(self._index, MappedIndex):
            self._index.drop_vectors()

    def _findable(self, rows: int) -> Mask | None:
        """Return which of the first rows a search may find; None if all."""
        return None if self._masked.flagged == 0 else self._masked.flags[:rows] == 0

    def passing(self, row_filter: RowFilter, rows: int) -> RowMask:
        """Return which of the first rows meet a filter; of repeated filters without looking again."""
        return self._masks.mask(row_filter, rows)

    def unknown(self, row_filter: RowFilter) -> FieldChoices:
        """Return the choices of a filter that no row has, not even a hidden one."""
        return row_filter.unknown(self._rows.columns(len(self._rows)))

    def identities(self) -> Identities:
        """Return what identifies the rows that there are now."""
        return self._rows.identities(len(self._rows))

    def row(self, number: int) -> Row:
        """Return one row."""
        return self._rows.row(number)

    def listing_id(self, number: int) -> str:
        """Return the listing of a row."""
        return self._rows.listing_id(number)

    def details(self, number: int) -> RowDetails:
        """Return what of a row is shown with a hit."""
        return self._rows.details(number)

    def visible_rows_of(self, listing_id: str) -> list[tuple[int, Row]]:
        """Return the listing's visible rows with their numbers."""
        searchable = len(self._index)
        return [
            (int(n), self._rows.row(int(n)))
            for n in self._rows.rows_of(listing_id)
            if n < searchable and not self._masked.flags[n] & HIDDEN
        ]

    def latest_listings(self, count: int) -> list[tuple[int, Row]]:
        """Return up to ``count`` listings that have a visible row, in the order of their last ones, last first.

        Each with the first visible photo of its newest visible version, and the number of that row.
        """
        end = len(self._index)
        group = self._rows.columns(end).group
        latest: dict[int, int] = {}
        while end > 0 and len(latest) < count:
            start = max(0, end - _READ_BACK)
            visible = start + np.flatnonzero((self._masked.flags[start:end] & HIDDEN) == 0)
            for number in visible[::-1].tolist():
                latest.setdefault(int(group[number]), number)
                if len(latest) == count:
                    break
            end = start
        of_listings = (self.visible_rows_of(self._rows.listing_id(n)) for n in latest.values())
        return [
            min(rows, key=lambda one: (-one[1].version, one[1].photo_number))
            for rows in of_listings
            if rows  # none if the listing was hidden just now
        ]

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """Return the vectors of rows, (len(numbers), dimensions) float32."""
        return self._index.vectors(np.array(numbers, dtype=np.int64))
