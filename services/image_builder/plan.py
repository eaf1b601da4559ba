"""Plans what a tier should serve: a pure function of manifests and current pointer."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.repository.pointer import PointedShard, Pointer


@dataclass(frozen=True)
class Candidate:
    """The parts of a committed shard that planning uses."""

    shard_id: str
    manifest_key: str
    ranges: tuple[OffsetRange, ...]
    readable: bool = True
    """Whether its manifest can be read now; otherwise ranges may be unknown, and empty."""


@dataclass(frozen=True)
class Plan:
    """The desired pointer, and the shards left out."""

    pointer: Pointer
    overlapping: dict[str, str]
    """Each with a shard that it overlaps."""
    set_aside: tuple[str, ...] = ()
    """Unreadable ones that are not served."""


def plan_tier(
    model_id: str, tier: str, candidates: Sequence[Candidate], current: Pointer | None
) -> Plan:
    """Return what the tier should serve: a set of shards that do not overlap.

    A shard whose manifest cannot be read stays if it is served, since it is not absent, and is set
    aside otherwise. Of two overlapping shards, the one already served stays, otherwise the one that
    starts first.
    If a shard that is left out overlaps several others, the plan names the first in log order.
    """
    served = set(current.shards) if current else set()

    def precedence(candidate: Candidate) -> tuple[object, ...]:
        pointed = PointedShard(candidate.shard_id, candidate.manifest_key)
        # Including the key: after a change of the bucket length, one range can be in two folders.
        return (pointed not in served, candidate.ranges, pointed)

    eligible: list[Candidate] = []
    set_aside: list[Candidate] = []
    for candidate in candidates:
        pointed = PointedShard(candidate.shard_id, candidate.manifest_key)
        (eligible if candidate.readable or pointed in served else set_aside).append(candidate)
    claims: defaultdict[int, _Claims] = defaultdict(_Claims)
    chosen: list[PointedShard] = []
    overlapping: dict[str, str] = {}
    for candidate in sorted(eligible, key=precedence):
        ranges = merge_ranges(candidate.ranges)
        owners = (claims[r.partition].first_owner(r) for r in ranges)
        other = next((owner for owner in owners if owner is not None), None)
        if other is not None:
            overlapping[candidate.shard_id] = other
            continue
        for r in ranges:
            claims[r.partition].add(r, candidate.shard_id)
        chosen.append(PointedShard(candidate.shard_id, candidate.manifest_key))
    return Plan(
        Pointer(model_id, tier, tuple(sorted(chosen))),
        overlapping,
        tuple(candidate.shard_id for candidate in set_aside),
    )


class _Claims:
    """The claimed ranges of one partition; they do not overlap, so starts and ends both ascend."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._owners: list[str] = []

    def first_owner(self, r: OffsetRange) -> str | None:
        """Return the shard with the first claim that overlaps ``r``, or None."""
        at = bisect_right(self._ends, r.from_offset)
        if at < len(self._starts) and self._starts[at] < r.to_offset:
            return self._owners[at]
        return None

    def add(self, r: OffsetRange, owner: str) -> None:
        """Claim ``r``, which must not overlap another claim."""
        # Candidates come in log order, so nearly all of these append.
        at = bisect_right(self._ends, r.from_offset)
        self._starts.insert(at, r.from_offset)
        self._ends.insert(at, r.to_offset)
        self._owners.insert(at, owner)
