"""A shard's id and the key prefix of its objects: both derive from its source ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from shashin.offsets.ranges import OffsetRange


def shard_id(model_id: str, tier: str, sources: Sequence[OffsetRange]) -> str:
    """Return the deterministic id of the shard with these source ranges, in any order.

    The id of a sealed shard contains its only range. That of a built shard contains its first and
    last partition, the number of ranges, and 64 bits of their SHA-256.

    Raises:
        ValueError: when there is no range.
    """
    if not sources:
        raise ValueError("a shard needs at least one source range")
    ordered = sorted(sources)
    if len(ordered) == 1:
        (only,) = ordered
        return (
            f"{model_id}.{tier}.p{only.partition:04d}.{only.from_offset:012d}-{only.to_offset:012d}"
        )
    listed = ",".join(f"{r.partition}:{r.from_offset}-{r.to_offset}" for r in ordered)
    digest = hashlib.sha256(listed.encode()).hexdigest()[:16]
    first, last = ordered[0].partition, ordered[-1].partition
    return f"{model_id}.{tier}.p{first:04d}-p{last:04d}.{len(ordered)}.{digest}"


def shard_folder(model_id: str, tier: str, bucket_start: int, shard: str) -> str:
    """Return the key prefix of a shard's objects, without a trailing slash."""
    return f"indexes/{model_id}/{tier}/{bucket_start}/{shard}"
