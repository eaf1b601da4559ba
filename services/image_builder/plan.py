"""What a tier should serve: a pure function of the manifests in the repository."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.repository.pointer import PointedShard, Pointer


@dataclass(frozen=True)
class Candidate:
    """A committed shard, as far as planning looks at it."""

    shard_id: str
    manifest_key: str
    ranges: tuple[OffsetRange, ...]


@dataclass(frozen=True)
class Plan:
    """The pointer to have, and the shards that it leaves out with the shard in their way."""

    pointer: Pointer
    overlapping: dict[str, str]


def plan_tier(
    model_id: str, tier: str, candidates: Sequence[Candidate], current: Pointer | None
) -> Plan:
    """Return what the tier should serve: every shard whose offsets no other one claims.

    If two overlap, the one that is served already stays, else the one that begins first. Of the
    shards in the way of one that is left out, the plan names the first in the log.
    """
    served = set(current.shards) if current else set()

    def precedence(candidate: Candidate) -> tuple[object, ...]:
        pointed = PointedShard(candidate.shard_id, candidate.manifest_key)
        # Down to the key: a change of the bucket's length can seal one range in two folders.
        return (pointed not in served, candidate.ranges, pointed)

    claims: defaultdict[int, _Claims] = defaultdict(_Claims)
    chosen: list[PointedShard] = []
    overlapping: dict[str, str] = {}
    for candidate in sorted(candidates, key=precedence):
        ranges = merge_ranges(candidate.ranges)
        owners = (claims[r.partition].owner_within(r) for r in ranges)
        other = next((owner for owner in owners if owner is not None), None)
        if other is not None:
            overlapping[candidate.shard_id] = other
            continue
        for r in ranges:
            claims[r.partition].add(r, candidate.shard_id)
        chosen.append(PointedShard(candidate.shard_id, candidate.manifest_key))
    return Plan(Pointer(model_id, tier, tuple(sorted(chosen))), overlapping)


class _Claims:
    """The ranges of one partition that are claimed: no two overlap, so begins and ends ascend."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._owners: list[str] = []

    def owner_within(self, r: OffsetRange) -> str | None:
        """Return the shard with the first claim to an offset of ``r``; None when nobody has one."""
        at = bisect_right(self._ends, r.from_offset)
        if at < len(self._begins) and self._begins[at] < r.to_offset:
            return self._owners[at]
        return None

    def add(self, r: OffsetRange, owner: str) -> None:
        """Claim ``r``, which nobody has a claim within."""
        # Candidates come in the order of the log, so nearly all of these append.
        at = bisect_right(self._ends, r.from_offset)
        self._begins.insert(at, r.from_offset)
        self._ends.insert(at, r.to_offset)
        self._owners.insert(at, owner)
