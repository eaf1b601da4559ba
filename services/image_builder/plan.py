"""What a tier should serve: a pure function of the manifests in the repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shashin.offsets.ranges import OffsetRange
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

    Where two overlap, the one that is served already stays, else the one that begins first.
    """
    served = set(current.shards) if current else set()

    def precedence(candidate: Candidate) -> tuple[object, ...]:
        pointed = PointedShard(candidate.shard_id, candidate.manifest_key)
        # Down to the key: a change of the bucket's length can seal one range in two folders.
        return (pointed not in served, candidate.ranges, pointed)

    taken: list[tuple[OffsetRange, str]] = []
    chosen: list[PointedShard] = []
    overlapping: dict[str, str] = {}
    for candidate in sorted(candidates, key=precedence):
        other = next(
            (owner for held, owner in taken for r in candidate.ranges if _overlap(held, r)), None
        )
        if other is not None:
            overlapping[candidate.shard_id] = other
            continue
        taken += [(r, candidate.shard_id) for r in candidate.ranges]
        chosen.append(PointedShard(candidate.shard_id, candidate.manifest_key))
    return Plan(Pointer(model_id, tier, tuple(sorted(chosen))), overlapping)


def _overlap(a: OffsetRange, b: OffsetRange) -> bool:
    return (
        a.partition == b.partition and a.from_offset < b.to_offset and b.from_offset < a.to_offset
    )
