"""Retention: which horizons rise because shards are too old to be served. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from shashin.offsets.ranges import merge_ranges
from shashin.repository.pointer import PointedShard


def raised_horizons(
    shards: Iterable[PointedShard], horizons: Mapping[int, int], before: float
) -> dict[int, int]:
    """Return the horizons that rise, by partition, if shards of buckets that ended are retired.

    ``shards`` are those of all tiers, ``horizons`` the current ones, and ``before`` is the time up
    to which buckets are retired, in Unix seconds. A horizon never passes offsets that belong to a
    younger bucket, or that no shard has: what is missing stays missing.
    """
    expired = defaultdict(list)
    for shard in shards:
        if (
            shard.ranges
            and shard.bucket_seconds
            and shard.bucket_start + shard.bucket_seconds <= before
        ):
            for r in shard.ranges:
                expired[r.partition].append(r)
    raised = {}
    for partition, ranges in expired.items():
        horizon = horizons.get(partition, 0)
        # Ranges that touch are one: the horizon rises to the end of the one that it is in.
        for r in merge_ranges(ranges):
            if r.from_offset <= horizon < r.to_offset:
                raised[partition] = r.to_offset
    return raised
