"""The merge policy: few shards at any time, every offset in exactly one of them, few rewrites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.builds.document import check_build_name
from shashin.builds.policy import DueBuild, Policy, TierShard, due_builds
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.repository.pointer import PointedShard
from shashin.tiers import DAILY, HOURLY, MONTHLY

MODEL = "demo-v1"
HOUR = 3600


class Tiers:
    """The shards of all tiers; a build that is due runs at once."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.shards: list[TierShard] = []
        self.ends: dict[int, int] = {}
        self.most = 0

    def seal(self, partition: int, at: datetime, rows: int = 1) -> None:
        """Seal a shard of an hour that has just ended."""
        start = self.ends.get(partition, 0)
        self.ends[partition] = start + rows
        bucket = int(at.timestamp()) // HOUR * HOUR - HOUR
        self.shards.append(
            TierShard(
                HOURLY,
                PointedShard(
                    f"{MODEL}.hourly.p{partition}.{start}",
                    f"key-{partition}-{start}",
                    (OffsetRange(partition, start, start + rows),),
                    bucket,
                    HOUR,
                    rows,
                ),
            )
        )

    def plan(self, now: datetime) -> None:
        """Run what is due until nothing is."""
        while due := due_builds(MODEL, self.shards, now, self.policy):
            assert len({build.name for build in due}) == len(due)
            used = [parent for build in due for parent in build.parents]
            assert len(set(used)) == len(used), "no shard is merged by two builds"
            for build in due:
                self._run(build, now)
        self.most = max(self.most, len(self.shards))

    def _run(self, build: DueBuild, now: datetime) -> None:
        check_build_name(build.name)
        assert build.end <= now
        parents = [one.shard for one in self.shards if one.shard.shard_id in build.parents]
        assert len(parents) == len(build.parents)
        for parent in parents:
            assert build.start.timestamp() <= parent.bucket_start < build.end.timestamp()
        child = PointedShard(
            f"{MODEL}.{build.name}",
            f"key-{build.name}",
            tuple(merge_ranges(r for parent in parents for r in parent.ranges)),
            int(build.start.timestamp()),
            int((build.end - build.start).total_seconds()),
            sum(parent.rows for parent in parents),
            1 + max(parent.rewrites for parent in parents),
        )
        self.shards = [one for one in self.shards if one.shard not in parents]
        self.shards.append(TierShard(build.tier, child))

    def of(self, tier: str) -> list[PointedShard]:
        """Return the shards of a tier."""
        return [one.shard for one in self.shards if one.tier == tier]

    def assert_tiled(self) -> None:
        """Every offset is in exactly one shard."""
        ranges = [r for one in self.shards for r in one.shard.ranges]
        assert merge_ranges(ranges) == [
            OffsetRange(partition, 0, end) for partition, end in sorted(self.ends.items()) if end
        ]
        assert sum(r.to_offset - r.from_offset for r in ranges) == sum(self.ends.values())


def hours(start: datetime, end: datetime) -> Iterator[datetime]:
    """Return the full hours after the start, up to the end."""
    at = start + timedelta(hours=1)
    while at <= end:
        yield at
        at += timedelta(hours=1)


@pytest.mark.parametrize(
    ("partitions", "often", "start", "days"),
    [
        (1, False, datetime(2027, 12, 1, tzinfo=UTC), 92),  # a leap day
        (6, False, datetime(2026, 10, 1, tzinfo=UTC), 40),  # a night that has 25 hours elsewhere
        (8, True, datetime(2026, 12, 30, tzinfo=UTC), 5),  # New Year
        (64, True, datetime(2026, 1, 31, tzinfo=UTC), 3),
    ],
)
def test_a_year_has_few_shards_at_any_number_of_partitions(
    partitions: int, often: bool, start: datetime, days: int
) -> None:
    tiers = Tiers(Policy())
    for now in hours(start, start + timedelta(days=days)):
        for partition in range(partitions):
            tiers.seal(partition, now)
            if often:
                tiers.plan(now)
        tiers.plan(now + timedelta(minutes=20))
        today = tiers.of(HOURLY)
        assert len(today) <= tiers.policy.day_limit
    tiers.assert_tiled()
    assert tiers.policy.shards_of_a_year <= 65
    rewrites = max(one.shard.rewrites for one in tiers.shards)
    assert rewrites <= tiers.policy.rewrites(partitions)
    ends = [s.bucket_start + s.bucket_seconds for s in tiers.of(DAILY)]
    assert len(tiers.of(DAILY)) <= 31
    assert all((start.timestamp() < end) and end % 86_400 == 0 for end in ends)


@pytest.mark.parametrize("partitions", [1, 8])
def test_a_year_is_at_most_65_shards_whenever_everything_due_was_run(partitions: int) -> None:
    tiers = Tiers(Policy())
    # Begins within a month and ends at the end of one of 31 days: twelve months, thirty days, a day.
    end = datetime(2028, 2, 1, tzinfo=UTC)
    for now in hours(datetime(2027, 1, 31, tzinfo=UTC), end):
        for partition in range(partitions):
            tiers.seal(partition, now)
        # The days in which there is most are planned every hour, the others when they are over.
        if now.hour == 0 or (now + timedelta(days=1)).day == 1:
            tiers.plan(now + timedelta(minutes=20 if now < end else 0))
    assert (len(tiers.of(MONTHLY)), len(tiers.of(DAILY))) == (12, 30)
    assert tiers.most <= tiers.policy.shards_of_a_year <= 65
    assert tiers.most > 12 + 30
    tiers.assert_tiled()


def test_the_windows_are_days_and_months_in_utc_also_over_a_leap_day_and_new_year() -> None:
    tiers = Tiers(Policy(fan_in=2))
    start = datetime(2027, 12, 31, 22, tzinfo=UTC)
    for now in hours(start, datetime(2028, 3, 2, 3, tzinfo=UTC)):
        tiers.seal(0, now)
        tiers.plan(now + timedelta(minutes=30))
    monthly = [
        (datetime.fromtimestamp(s.bucket_start, UTC).date().isoformat(), s.bucket_seconds // 86_400)
        for s in tiers.of(MONTHLY)
    ]
    assert sorted(monthly) == [("2027-12-01", 31), ("2028-01-01", 31), ("2028-02-01", 29)]
    assert [s.bucket_seconds for s in tiers.of(DAILY)] == [86_400]
    tiers.assert_tiled()


def test_a_day_is_merged_only_after_it_has_been_over_for_a_while() -> None:
    tiers = Tiers(Policy())
    day = datetime(2026, 11, 27, tzinfo=UTC)
    for now in hours(day, day + timedelta(hours=24)):
        tiers.seal(0, now)
    shards = list(tiers.shards)
    assert [b.tier for b in due_builds(MODEL, shards, now, tiers.policy)] == [HOURLY]
    later = now + timedelta(minutes=15)
    (due,) = due_builds(MODEL, shards, later, tiers.policy)
    assert (due.tier, len(due.parents), due.start, due.end) == (DAILY, 24, day, now)


def test_what_arrives_late_is_merged_with_the_shard_that_its_window_has() -> None:
    tiers = Tiers(Policy())
    start = datetime(2026, 10, 30, tzinfo=UTC)
    for now in hours(start, datetime(2026, 11, 3, 2, tzinfo=UTC)):
        tiers.seal(0, now)
        tiers.plan(now + timedelta(minutes=30))
    before = len(tiers.shards)
    tiers.seal(1, datetime(2026, 10, 31, 5, tzinfo=UTC))
    tiers.seal(1, datetime(2026, 11, 1, 5, tzinfo=UTC))
    tiers.plan(now + timedelta(minutes=45))
    assert len(tiers.shards) == before
    tiers.assert_tiled()


def test_parents_of_a_running_build_are_left_alone_and_merged_shards_are_not_merged_again() -> None:
    tiers = Tiers(Policy())
    day = datetime(2026, 11, 27, tzinfo=UTC)
    for now in hours(day, day + timedelta(hours=24)):
        tiers.seal(0, now)
    later = now + timedelta(hours=1)
    (due,) = due_builds(MODEL, tiers.shards, later, tiers.policy)
    assert due_builds(MODEL, tiers.shards, later, tiers.policy, busy=due.parents[:1]) == []
    parents = list(tiers.shards)
    tiers.plan(later)
    assert due_builds(MODEL, [*parents, *tiers.shards], later, tiers.policy) == []
    within_a_day = Tiers(Policy())
    for now in hours(day, day + timedelta(hours=8)):
        within_a_day.seal(0, now)
    parents = list(within_a_day.shards)
    within_a_day.plan(now)
    assert len(within_a_day.shards) == 1
    assert due_builds(MODEL, [*parents, *within_a_day.shards], now, Policy()) == []


def test_a_row_limit_divides_a_window_and_is_then_stable() -> None:
    tiers = Tiers(Policy(row_limit=100))
    day = datetime(2026, 11, 27, tzinfo=UTC)
    for now in hours(day, day + timedelta(hours=24)):
        tiers.seal(0, now, rows=17)
    tiers.plan(now + timedelta(hours=1))
    assert sorted(s.rows for s in tiers.of(DAILY)) == [68, 85, 85, 85, 85]
    assert due_builds(MODEL, tiers.shards, now + timedelta(hours=2), tiers.policy) == []
    tiers.assert_tiled()


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 70), st.integers(1, 40)),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([Policy(), Policy(fan_in=2, day_limit=3), Policy(row_limit=50)]),
)
def test_whatever_is_sealed_when_every_offset_stays_in_exactly_one_shard(
    sealed: Sequence[tuple[int, int, int]], policy: Policy
) -> None:
    tiers = Tiers(policy)
    start = datetime(2026, 2, 27, tzinfo=UTC)
    for partition, hour, rows in sealed:
        tiers.seal(partition, start + timedelta(hours=hour + 1), rows)
        tiers.plan(start + timedelta(hours=72))
        tiers.assert_tiled()
    tiers.plan(datetime(2026, 5, 1, tzinfo=UTC))
    assert not tiers.of(HOURLY)
    tiers.assert_tiled()
