"""A shard's id and the key prefix of its objects: both derive from its source ranges."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from shashin.offsets.ranges import OffsetRange

_ONLY_RANGE = re.compile(r"p([0-9]{4,10})\.([0-9]{12,19})-([0-9]{12,19})")


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


def only_range(model_id: str, tier: str, shard: str) -> OffsetRange | None:
    """Return the range in the id of a sealed shard; None for any other text."""
    found = _ONLY_RANGE.fullmatch(shard.removeprefix(f"{model_id}.{tier}."))
    if found is None:
        return None
    named = OffsetRange(*map(int, found.groups()))
    derives = shard_id(model_id, tier, [named]) == shard
    return named if derives and named.from_offset < named.to_offset else None


def shard_folder(model_id: str, tier: str, bucket_start: int, shard: str) -> str:
    """Return the key prefix of a shard's objects, without a trailing slash."""
    return f"indexes/{model_id}/{tier}/{bucket_start}/{shard}"
