"""Plans what a tier should serve: pure functions of shards, pointers and what is served."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from shashin.offsets.ranges import MergedRanges, OffsetRange, merge_ranges
from shashin.repository.pointer import PointedShard, Pointer


@dataclass(frozen=True)
class Candidate(PointedShard):
    """A committed shard that may be served, as pointers describe it."""

    readable: bool = True
    """Whether its manifest can be read; otherwise ranges may be unknown, and empty."""
    rejected: bool = False
    """Whether an operator asked for other shards in its place."""

    @property
    def pointed(self) -> PointedShard:
        """The shard as pointers name it."""
        return PointedShard(**{of.name: getattr(self, of.name) for of in fields(PointedShard)})


@dataclass(frozen=True)
class Older:
    """What the tiers that are older than the planned one have of its offsets."""

    pointed: MergedRanges
    """What they should serve, without rejected shards."""
    served_long: Collection[str] = ()
    """Ids of the planned tier's shards of which ready index servers have had all offsets, in other
    shards, for longer than a search takes: of older tiers, and of any tier for rejected ones."""


NOTHING_OLDER = Older(MergedRanges(()))


@dataclass(frozen=True)
class Plan:
    """The desired pointer, and the shards left out."""

    pointer: Pointer
    redundant: tuple[str, ...]
    """Those of which the chosen ones contain every offset."""
    set_aside: tuple[str, ...] = ()
    """Unreadable ones that are not served."""
    handed_over: tuple[str, ...] = ()
    """Those of which older tiers contain every offset."""
    waiting: tuple[str, ...] = ()
    """Those that will be handed over once index servers of older tiers have them for long enough."""
    retired: tuple[str, ...] = ()
    """Those that lie before the horizon."""
    rejected: tuple[str, ...] = ()
    """Rejected ones that are not served, or not any more."""


def plan_tier(
    model_id: str,
    tier: str,
    candidates: Sequence[Candidate],
    current: Pointer | None,
    *,
    older: Older = NOTHING_OLDER,
    horizons: Mapping[int, int] | None = None,
) -> Plan:
    """Return what the tier should serve: shards that contain every offset of the candidates.

    A shard is left out if others that are chosen contain all of its offsets. Those that were
    rewritten most often are preferred, so that a built shard replaces its parents; then those
    already served, then those that start first, of these the longest. Replicas whose clocks differ
    cut the log in different places; then no choice of shards that do not overlap may contain every
    offset, so chosen ones may overlap: a search keeps each listing once.

    Offsets that older tiers should serve, and those before the ``horizons`` by partition, need not
    be served. A shard that is served and has no others stays until older tiers really serve it.

    A rejected shard counts for nothing: what it replaced is chosen, and it leaves once that is served.

    A shard whose manifest cannot be read stays if it is served, since it is not absent, and is set
    aside otherwise.
    """
    served = {shard.manifest_key for shard in current.shards} if current else set()
    kept: list[Candidate] = []
    leaving: list[Candidate] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for candidate in candidates:
        is_served = candidate.manifest_key in served
        if _before(candidate.ranges, horizons or {}):
            left_out["retired"].append(candidate.shard_id)
        elif candidate.rejected:
            stays = is_served and candidate.shard_id not in older.served_long
            left_out["waiting" if stays else "rejected"].append(candidate.shard_id)
            leaving += [candidate] if stays else []
        elif not candidate.readable and not is_served:
            left_out["set_aside"].append(candidate.shard_id)
        elif not older.pointed.contain_all(candidate.ranges):
            kept.append(candidate)
        elif is_served and candidate.shard_id not in older.served_long:
            kept.append(candidate)
            left_out["waiting"].append(candidate.shard_id)
        else:
            left_out["handed_over"].append(candidate.shard_id)
    by_age = sorted(kept, key=_precedence)
    chosen, redundant = _without_redundant(
        sorted(by_age, key=lambda c: (-c.rewrites, c.manifest_key not in served))
    )
    # A served one may be redundant beside those that were just chosen.
    chosen, also_redundant = _without_redundant(
        sorted(chosen, key=lambda c: (-c.rewrites, _precedence(c)))
    )
    return Plan(
        Pointer(model_id, tier, tuple(sorted(c.pointed for c in (*chosen, *leaving)))),
        tuple(candidate.shard_id for candidate in (*redundant, *also_redundant)),
        **{reason: tuple(ids) for reason, ids in left_out.items()},
    )


def _before(ranges: Sequence[OffsetRange], horizons: Mapping[int, int]) -> bool:
    return bool(ranges) and all(r.to_offset <= horizons.get(r.partition, 0) for r in ranges)


class HandOver:
    """Which shards index servers of older tiers have had for long enough."""

    def __init__(self, after_seconds: float) -> None:
        self._after_seconds = after_seconds
        self._since: dict[str, float] = {}

    def served_long(
        self, waiting: Iterable[tuple[Iterable[PointedShard], MergedRanges]], now: float
    ) -> frozenset[str]:
        """Return which of the shards have been held without interruption, as of now.

        ``waiting`` are shards, with what is held of others that may replace them.

        A search that began before an older tier had a shard may still be about to reach the younger
        one, so a shard is handed over only after that.
        """
        since = {
            shard.shard_id: self._since.get(shard.shard_id, now)
            for shards, held in waiting
            for shard in shards
            if held.contain_all(shard.ranges)
        }
        self._since = since
        return frozenset(
            shard_id for shard_id, first in since.items() if now - first >= self._after_seconds
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
