"""The newest listings of the shards that a process serves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from shashin.shards.format.row import Row
from shashin.shards.shard import Shard


def newest_listings(shards: Sequence[Shard], limit: int) -> list[Row]:
    """Return up to ``limit`` listings, each in its newest version with that version's first photo.

    By ``listed_at``, latest first, and then in the order of the log. Looked at are the last ``limit``
    listings of each shard, from the newest bucket on until there are enough: an app that gives a listing a
    time in the future has it first only until newer records push it out.
    """
    found: dict[str, tuple[tuple[int, ...], Row]] = {}
    by_bucket = sorted(shards, key=_bucket, reverse=True)
    for bucket, of_bucket in groupby(by_bucket, key=_bucket):
        for shard in of_bucket:
            end = max((r.to_offset for r in shard.ranges), default=0)
            for number, row in shard.latest_listings(limit):
                known = found.get(row.listing_id)
                if known is None or known[1].version < row.version:
                    found[row.listing_id] = (row.attributes.listed_at, bucket, end, number), row
        if len(found) >= limit:
            break
    ordered = sorted(found.values(), key=lambda one: one[0], reverse=True)
    return [row for _, row in ordered[:limit]]


def _bucket(shard: Shard) -> int:
    return shard.bucket_start or 0
