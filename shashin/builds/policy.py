"""Which builds are due: a merge policy, as of a log-structured store. Pure.

Indexers seal a shard per partition and hour, into the hourly tier. Of these,

- ``fan_in`` or more of one day that were rewritten equally often are merged within the hourly tier, and
  all of them if they are more than ``day_limit``, so that a day that is not over has few shards,
  however many partitions there are;
- a day that is over is merged into one shard of the daily tier;
- a month that is over is merged into one shard of the monthly tier.

So each tier has one shard per window, except where ``row_limit`` divides it. Whatever arrives late is
merged with the shard that its window has already. All windows are in UTC.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from shashin.offsets.ranges import MergedRanges
from shashin.repository.pointer import PointedShard
from shashin.tiers import DAILY, HOURLY, MONTHLY, age_of

_LONGEST_MODEL_IN_NAME = 24


@dataclass(frozen=True)
class Policy:
    """The shape of the tiers."""

    fan_in: int = 8
    """Shards of the hourly tier that are merged at once before their day is over."""
    day_limit: int = 22
    """Shards that a day that is not over has at most, while nothing is due."""
    close_after_seconds: float = 900.0
    """How long after a day or month has ended it counts as over: by then its last shards are sealed."""
    row_limit: int = 50_000_000
    """Rows that a built shard has at most, unless one of its parents has more."""

    @property
    def shards_of_a_year(self) -> int:
        """How many shards a year has at most, while nothing is due and nothing is late.

        At the end of a month of 31 days, the year began within another month: 12 months, 30 days
        and a day that is not over.
        """
        return 12 + 30 + self.day_limit

    def rewrites(self, partitions: int) -> int:
        """Return how often builds rewrite a vector at most, while nothing is late.

        Once for each level of the hourly tier, and once for its day and its month. Beyond some
        partitions the levels together exceed ``day_limit``: then once more.
        """
        sealed, levels = 24 * partitions, 0
        while sealed >= self.fan_in:
            sealed //= self.fan_in
            levels += 1
        exceed = (self.fan_in - 1) * (levels + 1) > self.day_limit
        return levels + exceed + 2


@dataclass(frozen=True)
class TierShard:
    """A shard, and the tier that it is in."""

    tier: str
    shard: PointedShard


@dataclass(frozen=True)
class DueBuild:
    """A merge that should run now."""

    name: str
    """The same for the same parents, so that of two planners only one creates it."""
    tier: str
    start: datetime
    end: datetime
    parents: tuple[str, ...]
    """Shard ids, in the order of their buckets."""


def due_builds(
    model_id: str,
    shards: Collection[TierShard],
    now: datetime,
    policy: Policy,
    *,
    busy: Collection[str] = (),
) -> list[DueBuild]:
    """Return the merges that are due, those of the oldest tier first.

    ``shards`` are those that pointers name or that are new, of every tier; ``busy`` are the parents of
    builds that are not finished. A shard is merged already if shards of an older tier, or that were
    rewritten more often, have every offset of it.
    """
    merged: dict[tuple[int, int], MergedRanges] = {}
    for age in {_age(one) for one in shards}:
        merged[age] = MergedRanges(r for one in shards if _age(one) > age for r in one.shard.ranges)
    pending = [
        one
        for one in shards
        if one.shard.ranges and not merged[_age(one)].contain_all(one.shard.ranges)
    ]
    pending.sort(key=lambda one: (one.shard.bucket_start, one.shard.ranges))
    busy = set(busy)
    return [
        build
        for build in _candidates(model_id, pending, now, policy)
        if busy.isdisjoint(build.parents)
    ]


def _age(one: TierShard) -> tuple[int, int]:
    return age_of(one.tier), one.shard.rewrites


def _candidates(
    model_id: str, pending: Sequence[TierShard], now: datetime, policy: Policy
) -> Iterator[DueBuild]:
    days: defaultdict[datetime, list[TierShard]] = defaultdict(list)
    months: defaultdict[datetime, list[TierShard]] = defaultdict(list)
    for one in pending:
        at = datetime.fromtimestamp(one.shard.bucket_start, UTC)
        if one.tier in {HOURLY, DAILY}:
            days[_day(at)].append(one)
        months[_month(at)].append(one)
    over = now - timedelta(seconds=policy.close_after_seconds)
    for start, found in sorted(months.items()):
        end = _next_month(start)
        # Days first: what is still in the hourly tier would be merged twice.
        if end <= over and not any(one.tier == HOURLY for one in found):
            yield from _merges(model_id, MONTHLY, start, end, found, policy)
    for start, found in sorted(days.items()):
        end = start + timedelta(days=1)
        if end <= over:
            if any(one.tier == HOURLY for one in found) or _next_month(_month(start)) > over:
                yield from _merges(model_id, DAILY, start, end, found, policy)
        else:
            yield from _levels(model_id, found, now, policy)


def _merges(
    model_id: str,
    tier: str,
    start: datetime,
    end: datetime,
    found: Sequence[TierShard],
    policy: Policy,
) -> Iterator[DueBuild]:
    """Yield the merges of a window that is over into one shard, or as few as the row limit allows."""
    for group in _groups([one.shard for one in found], policy.row_limit):
        ids = {shard.shard_id for shard in group}
        moves = any(one.tier != tier for one in found if one.shard.shard_id in ids)
        if moves or len(group) > 1:
            yield _build(model_id, tier, start, end, group)


def _groups(shards: Sequence[PointedShard], row_limit: int) -> Iterator[list[PointedShard]]:
    group: list[PointedShard] = []
    rows = 0
    for shard in shards:
        if group and rows + shard.rows > row_limit:
            yield group
            group, rows = [], 0
        group.append(shard)
        rows += shard.rows
    if group:
        yield group


def _levels(
    model_id: str, found: Sequence[TierShard], now: datetime, policy: Policy
) -> Iterator[DueBuild]:
    """Yield the merges within the hourly tier of a day that is not over, of buckets that are."""
    shards = [one.shard for one in found if one.tier == HOURLY and _window([one.shard])[1] <= now]
    by_level: defaultdict[int, list[PointedShard]] = defaultdict(list)
    for shard in shards:
        by_level[shard.rewrites].append(shard)
    due = [level for _, level in sorted(by_level.items()) if len(level) >= policy.fan_in]
    if not due and len(shards) > policy.day_limit:
        due = [shards]
    for level in due:
        for group in _groups(level, policy.row_limit):
            if len(group) > 1:
                yield _build(model_id, HOURLY, *_window(group), group)


def _window(shards: Sequence[PointedShard]) -> tuple[datetime, datetime]:
    """Return the time that the buckets of shards span."""
    first = min(shard.bucket_start for shard in shards)
    last = max(shard.bucket_start + shard.bucket_seconds for shard in shards)
    return datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC)


def _build(
    model_id: str, tier: str, start: datetime, end: datetime, group: Sequence[PointedShard]
) -> DueBuild:
    parents = tuple(shard.shard_id for shard in group)
    digest = hashlib.sha256("\n".join(sorted(parents)).encode()).hexdigest()[:10]
    model = re.sub(r"[^a-z0-9]+", "-", model_id.lower()).strip("-")[:_LONGEST_MODEL_IN_NAME]
    window = f"{start:%Y%m}" if tier == MONTHLY else f"{start:%Y%m%d}"
    return DueBuild(f"{model.strip('-')}-{tier}-{window}-{digest}", tier, start, end, parents)


def _day(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _month(at: datetime) -> datetime:
    return _day(at).replace(day=1)


def _next_month(start: datetime) -> datetime:
    return _month(start + timedelta(days=32))
