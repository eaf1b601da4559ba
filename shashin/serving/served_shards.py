"""The shards that a process serves, and their hidden rows.

A search works on one snapshot, so shards can be swapped concurrently. Hiding is idempotent and
monotonic. A new shard therefore first receives what is newly hidden, then what was hidden before, and
only then is served: no hidden row can be missed.

Shards join, are served and leave on the event loop, while one other thread hides. Why no entry is
missed in between:

- The thread notes an entry (``HiddenListings.note``) before it takes the tuple of all snapshots. From
  ``join`` until it is no longer served, a shard is in every tuple: ``leave`` comes after ``serve``.
- A sealed shard that is in the tuple gets the entry. If it is not, it joined after the tuple was taken,
  so after the entry was noted: what it is masked with is read after it joined, and has the entry.
- An open shard gets its first row after it is served. A row that the thread does not find in it, or an
  open shard that is not in the tuple, has rows that were added after the entry was noted: each of them
  is looked up in what was noted (``MaskedRows.append``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.serving.searched_shards import SearchedShards
from shashin.shards.format.rows_file import listing_hash
from shashin.shards.listing_index import Hashes, ListingIndex
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from shashin.shards.visibility import HiddenEntry


class Snapshot:
    """The shards served at one moment; a search uses the same one throughout.

    Made from the snapshot before it, it indexes only the listings of new shards.
    """

    def __init__(self, shards: Iterable[Shard], before: Snapshot | None = None) -> None:
        self.shards = tuple(shards)
        self._growing = [shard for shard in self.shards if isinstance(shard, OpenShard)]
        sealed = [shard for shard in self.shards if isinstance(shard, SealedShard)]
        self._others = [shard for shard in self.shards if not isinstance(shard, SealedShard)]
        self.searched: SearchedShards = SearchedShards(
            self.shards, None if before is None else before.searched
        )
        """Searches them."""
        index = ListingIndex[SealedShard]() if before is None else before.listing_index
        self.listing_index: ListingIndex[SealedShard] = index.over(sealed)
        """Of the sealed shards."""
        # Thousands of sealed ranges merge into a few: once per snapshot, not once per call.
        self._sealed_runs = merge_ranges(
            r for shard in self.shards if not isinstance(shard, OpenShard) for r in shard.ranges
        )

    def covered(self) -> list[OffsetRange]:
        """Return the offsets that the shards currently cover, in as few ranges as possible."""
        if not self._growing:
            return self._sealed_runs
        return merge_ranges(
            [*self._sealed_runs, *(r for shard in self._growing for r in shard.ranges)]
        )

    def hide_all(self, entries: Sequence[HiddenEntry], hashes: Hashes | None = None) -> int:
        """Hide rows in every shard; returns how many were visible before.

        ``hashes`` are those of the entries' listings, if they are known (``hashes_of``).
        """
        return sum(
            shard.hide(entry.listing_id, entry.below_version)
            for shard, entry in self._having_rows_of(entries, hashes)
        )

    def supersede_all(self, entries: Sequence[HiddenEntry], hashes: Hashes | None = None) -> None:
        """In each shard that has a newer version, find the listing only in that one."""
        for shard, entry in self._having_rows_of(entries, hashes):
            shard.supersede(entry.listing_id, entry.below_version)

    def _having_rows_of(
        self, entries: Sequence[HiddenEntry], hashes: Hashes | None
    ) -> Iterator[tuple[Shard, HiddenEntry]]:
        """Yield each shard that may have rows of an entry's listing, with the entry."""
        for shard in self._others:
            for entry in entries:
                yield shard, entry
        if self.listing_index.members and entries:
            found = self.listing_index.matches(hashes_of(entries) if hashes is None else hashes)
            for position, sealed in found:
                yield sealed, entries[position]


class ServedShards:
    """The shards that are currently served."""

    def __init__(self) -> None:
        self.hidden_loaded = False
        """Whether the shards reflect everything that was hidden before the process started. Until
        then, nothing may be searched: sold listings would be found."""
        self._served = Snapshot(())
        self._joining: tuple[Snapshot, ...] = ()
        self._reached: tuple[Snapshot, ...] = (self._served,)
        """All of them. Replaced as a whole: a thread that hides has those of one moment."""

    def snapshot(self) -> Snapshot:
        """Return the current snapshot."""
        return self._served

    def hide_all(self, entries: Sequence[HiddenEntry]) -> int:
        """Hide rows in every shard; returns how many were visible before."""
        hashes = hashes_of(entries)
        return sum(shards.hide_all(entries, hashes) for shards in self._reached)

    def supersede_all(self, entries: Sequence[HiddenEntry]) -> None:
        """In each shard that has a newer version, find the listing only in that one."""
        hashes = hashes_of(entries)
        for shards in self._reached:
            shards.supersede_all(entries, hashes)

    def join(self, shards: Snapshot) -> None:
        """Apply what is newly hidden to these shards from now on, before they are served."""
        self._change(joining=(*self._joining, shards))

    def prepare(self, shards: Iterable[Shard]) -> Snapshot:
        """Return the snapshot of these shards, to be served next; may take seconds, in any thread."""
        return Snapshot(shards, self._served)

    def serve(self, shards: Iterable[Shard] | Snapshot) -> None:
        """Replace the served shards with these."""
        self._served = shards if isinstance(shards, Snapshot) else self.prepare(shards)
        self._change(joining=self._joining)

    def leave(self, shards: Snapshot) -> None:
        """Forget shards that joined: they are served by now, or cannot be."""
        self._change(joining=tuple(other for other in self._joining if other is not shards))

    def _change(self, *, joining: tuple[Snapshot, ...]) -> None:
        self._joining = joining
        self._reached = (self._served, *joining)


def hashes_of(entries: Sequence[HiddenEntry]) -> Hashes:
    """Return the hash of each entry's listing, as shards are looked up by it."""
    return np.fromiter(
        (listing_hash(entry.listing_id) for entry in entries), np.uint64, len(entries)
    )
