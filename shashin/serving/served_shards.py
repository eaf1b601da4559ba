"""The shards that a process serves, and their hidden rows.

A search works on one snapshot, so shards can be swapped concurrently. Hiding is idempotent and
monotonic. A new shard therefore first receives new hidden listings, then all known ones, and only
then is served: no hidden row can be missed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.shards.kinds.protocol import Neighbours, Vectors
from shashin.shards.open_shard import OpenShard
from shashin.shards.row_filter import RowFilter
from shashin.shards.shard import Shard
from shashin.shards.shard_hit import ShardHit
from shashin.shards.visibility import HiddenMap


class Snapshot:
    """The shards served at one moment; a search uses the same one throughout."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self.shards = tuple(shards)
        self._growing = [shard for shard in self.shards if isinstance(shard, OpenShard)]
        # Thousands of sealed ranges merge into a few: once per snapshot, not once per call.
        self._sealed_runs = merge_ranges(
            r for shard in self.shards if not isinstance(shard, OpenShard) for r in shard.ranges
        )

    def covered(self) -> list[OffsetRange]:
        """Return the offsets that the shards currently cover, in as few ranges as possible."""
        return merge_ranges(
            [*self._sealed_runs, *(r for shard in self._growing for r in shard.ranges)]
        )


class ServedShards:
    """The shards that are currently served."""

    def __init__(self, hidden: HiddenMap) -> None:
        self.hidden = hidden
        self.hidden_loaded = False
        """Whether ``hidden`` has everything that was hidden before the process started. Until then,
        nothing may be searched: sold listings would be found."""
        self._served = Snapshot(())
        self._joining: list[Shard] = []

    def snapshot(self) -> Snapshot:
        """Return the current snapshot."""
        return self._served

    def hide(self, listing_id: str, below_version: int) -> int:
        """Hide rows in every shard; returns how many were visible before."""
        if not self.hidden.raise_to(listing_id, below_version):
            return 0
        return sum(
            shard.hide(listing_id, below_version)
            for shard in (*self._served.shards, *self._joining)
        )

    def supersede(self, listing_id: str, below_version: int) -> None:
        """In each shard that has a newer version, find the listing only in that one."""
        for shard in (*self._served.shards, *self._joining):
            shard.supersede(listing_id, below_version)

    def join(self, shard: Shard) -> None:
        """Apply new hidden listings to a shard from now on, before it is served."""
        self._joining.append(shard)

    def mask(self, shard: Shard) -> None:
        """Apply all known hidden listings to a joining shard; may run in any thread."""
        for listing_id, below in self.hidden.entries():
            shard.hide(listing_id, below)

    def serve(self, shards: Iterable[Shard]) -> None:
        """Replace the served shards with these."""
        self._served = Snapshot(shards)
        self._joining = [shard for shard in self._joining if shard not in self._served.shards]

    def leave(self, shard: Shard) -> None:
        """Remove a shard that joined but cannot be served."""
        self._joining = [other for other in self._joining if other is not shard]


def search_shards(
    shards: Sequence[Shard], queries: Vectors, k: int, row_filter: RowFilter
) -> list[list[ShardHit]]:
    """Return the hits of the k nearest listings over all shards, for each query (m, dimensions).

    Each listing occurs once: with the nearest photo of its newest version found.
    """
    found = [(shard, shard.search(queries, k, row_filter)) for shard in shards if shard.rows]
    return [
        _nearest([(shard, neighbours[i]) for shard, neighbours in found], k)
        for i in range(len(queries))
    ]


def _nearest(found: Sequence[tuple[Shard, Neighbours]], k: int) -> list[ShardHit]:
    streams = [
        [
            (-float(score), order, shard, int(number))
            for number, score in zip(neighbours.rows, neighbours.scores, strict=True)
        ]
        for order, (shard, neighbours) in enumerate(found)
    ]
    best: dict[str, ShardHit] = {}
    for negative_score, _, shard, number in heapq.merge(*streams, key=lambda hit: hit[:2]):
        row = shard.row(number)
        known = best.get(row.listing_id)
        if known is None:
            if len(best) == k:
                break
            best[row.listing_id] = ShardHit(row, -negative_score)
        elif known.row.version < row.version:
            best[row.listing_id] = ShardHit(row, -negative_score)
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.row.listing_id))
