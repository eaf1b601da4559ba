"""Held shards: closed ranges that the live tier serves until an index server does. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from shashin.metrics import indexer as metrics
from shashin.shards.shard import Shard


class HeldShards:
    """Closed and sealed shards, oldest first."""

    def __init__(self) -> None:
        self._shards: list[Shard] = []
        self._committed: set[str] = set()

    @property
    def shards(self) -> Sequence[Shard]:
        """All held shards."""
        return self._shards

    @property
    def rows(self) -> int:
        """Their total number of rows."""
        return sum(shard.rows for shard in self._shards)

    def hold(self, shard: Shard) -> None:
        """Hold the shard of a closed range."""
        self._shards.append(shard)
        metrics.HELD_SHARDS.set(len(self._shards))

    def mark_committed(self, shard_id: str) -> None:
        """Mark a shard as stored in the model repository."""
        self._committed.add(shard_id)

    def releasable(self) -> list[Shard]:
        """Return the shards that index servers can load: those in the repository."""
        return [shard for shard in self._shards if shard.shard_id in self._committed]

    def release(self, shards: Collection[Shard]) -> None:
        """Stop holding these shards."""
        self._shards = [shard for shard in self._shards if shard not in shards]
        self._committed -= {shard.shard_id for shard in shards}
        metrics.HELD_SHARDS.set(len(self._shards))

    def sealed_up_to(self, open_from: Mapping[int, int]) -> dict[int, int]:
        """Return, per partition, the offset up to which all rows are in the repository.

        ``open_from`` is the start of each open range.
        """
        firsts = dict(open_from)
        for shard in self._shards:
            if shard.shard_id not in self._committed:
                for held in shard.ranges:
                    firsts[held.partition] = min(firsts[held.partition], held.from_offset)
        return firsts
