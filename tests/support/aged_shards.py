"""Shards of any tier and age, in memory."""

from __future__ import annotations

from collections.abc import Iterable

from shashin.model_space import ModelSpace
from shashin.shards.kinds.registry import DEFAULT_KIND, growing_kind
from shashin.shards.open_shard import OpenShard
from tests.support.hidden_map import HiddenMap
from tests.support.running_router import DIMENSIONS, MODEL, Listing


class AgedShard(OpenShard):
    """Describes itself as the sealed shard of a bucket."""

    length: int

    @property
    def bucket_seconds(self) -> int:
        return self.length


def aged_shard(
    listings: Iterable[Listing],
    tier: str,
    *,
    bucket_start: int,
    bucket_seconds: int,
    partition: int = 0,
    from_offset: int = 0,
) -> AgedShard:
    """Return a shard of the log from an offset on, one record per listing, with its bucket."""
    shard = AgedShard(
        partition,
        from_offset,
        ModelSpace(MODEL, DIMENSIONS),
        growing_kind(DEFAULT_KIND),
        HiddenMap(),
    )
    shard.tier, shard.length = tier, bucket_seconds
    shard.shard_id = f"{tier}.p{partition:04d}.{from_offset:012d}"
    for offset, listing in enumerate(listings, start=from_offset):
        shard.add(listing.rows(), position=offset + 1, bucket_start=bucket_start)
    return shard
