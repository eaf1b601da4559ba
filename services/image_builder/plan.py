"""Plans what a tier should serve: a pure function of manifests and current pointer."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
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

    @property
    def pointed(self) -> PointedShard:
        """The shard as pointers name it."""
        return PointedShard(self.shard_id, self.manifest_key)


@dataclass(frozen=True)
class Plan:
    """The desired pointer, and the shards left out."""

    pointer: Pointer
    redundant: tuple[str, ...]
    """Those of which the chosen ones contain every offset."""
    set_aside: tuple[str, ...] = ()
    """Unreadable ones that are not served."""


def plan_tier(
    model_id: str, tier: str, candidates: Sequence[Candidate], current: Pointer | None
) -> Plan:
    """Return what the tier should serve: shards that contain every offset of the candidates.

    A shard is left out if others that are chosen contain all of its offsets. Those already served
    are preferred, then those that start first, of these the longest. Replicas whose clocks differ
    cut the log in different places; then no choice of shards that do not overlap may contain every
    offset, so chosen ones may overlap: a search keeps each listing once.

    A shard whose manifest cannot be read stays if it is served, since it is not absent, and is set
    aside otherwise.
    """
    served = set(current.shards) if current else set()
    eligible: list[Candidate] = []
    set_aside: list[Candidate] = []
    for candidate in candidates:
        readable = candidate.readable or candidate.pointed in served
        (eligible if readable else set_aside).append(candidate)
    by_age = sorted(eligible, key=_precedence)
    chosen, redundant = _without_redundant(
        sorted(by_age, key=lambda candidate: candidate.pointed not in served)
    )
    # A served one may be redundant beside those that were just chosen.
    chosen, also_redundant = _without_redundant(sorted(chosen, key=_precedence))
    return Plan(
        Pointer(model_id, tier, tuple(sorted(candidate.pointed for candidate in chosen))),
        tuple(candidate.shard_id for candidate in (*redundant, *also_redundant)),
        tuple(candidate.shard_id for candidate in set_aside),
    )


def _without_redundant(
    candidates: Sequence[Candidate],
) -> tuple[list[Candidate], list[Candidate]]:
    """Return those that have an offset which none before them has, and the others."""
    claims: defaultdict[int, _Claims] = defaultdict(_Claims)
    chosen: list[Candidate] = []
    redundant: list[Candidate] = []
    for candidate in candidates:
        ranges = merge_ranges(candidate.ranges)
        # Of a served shard whose manifest cannot be read, the ranges may be unknown.
        if ranges and all(claims[r.partition].contain(r) for r in ranges):
            redundant.append(candidate)
            continue
        for r in ranges:
            claims[r.partition].add(r)
        chosen.append(candidate)
    return chosen, redundant


def _precedence(candidate: Candidate) -> tuple[object, ...]:
    longest_first = [(r.partition, r.from_offset, -r.to_offset) for r in candidate.ranges]
    # Including the key: after a change of the bucket length, one range can be in two folders.
    return longest_first, candidate.pointed


class _Claims:
    """The claimed offsets of one partition, as ranges that neither overlap nor touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def contain(self, r: OffsetRange) -> bool:
        """Return whether every offset of ``r`` is claimed."""
        at = bisect_right(self._starts, r.from_offset) - 1
        return at >= 0 and r.to_offset <= self._ends[at]

    def add(self, r: OffsetRange) -> None:
        """Claim ``r``."""
        # The claims that it overlaps or touches become one with it. Candidates come in log order,
        # so nearly all of these append to the last one.
        first = bisect_left(self._ends, r.from_offset)
        last = bisect_right(self._starts, r.to_offset)
        start = min([r.from_offset, *self._starts[first:last][:1]])
        end = max([r.to_offset, *self._ends[first:last][-1:]])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
