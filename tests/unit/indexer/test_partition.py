"""Replicas that read the same log in different batches cut and seal identically."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from services.indexer.partition import Add, Cut, ParsedRecord, PartitionState
from shashin.offsets.coverage import Position
from shashin.offsets.cut import CutReason, CutRules
from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.manifest import MANIFEST_FILE
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import KIND, SPACE, new_row

RULES = CutRules(bucket_seconds=2, grace_seconds=0.5, row_limit=4)
BUCKET_MS = 2_000
GRACE_MS = 500
FAR_FUTURE_MS = 10**12

PHOTOS = st.tuples(st.sampled_from("abcd"), st.integers(1, 2), st.integers(0, 1))
"""Listing, version and photo number: few, so that repeats are common."""


@dataclass(frozen=True)
class Log:
    """The records of one partition."""

    records: list[ParsedRecord]

    @property
    def begin(self) -> int:
        return self.records[0].offset if self.records else 0


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Return records with non-decreasing times, some without rows and some over the limit."""
    offset, now = draw(st.integers(0, 3)), draw(st.integers(0, 3 * BUCKET_MS))
    records = []
    for gap_ms, photos in draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 0, 1, 400, BUCKET_MS - 1, BUCKET_MS, 3 * BUCKET_MS]),
                st.lists(PHOTOS, max_size=3) | st.lists(PHOTOS, max_size=7),
            ),
            max_size=25,
        )
    ):
        now += gap_ms
        records.append(ParsedRecord(offset, now, [new_row(*photo) for photo in photos]))
        offset += 1
    return Log(records)


def photos_of(record: ParsedRecord) -> list[tuple[str, int, int]]:
    return [(r.row.listing_id, r.row.version, r.row.photo_number) for r in record.rows]


def ranges_by_the_rules(log: Log) -> list[tuple[OffsetRange, int]]:
    """Reference implementation of the cut rules: each range with its number of rows."""
    ranges: list[tuple[OffsetRange, int]] = []
    begin, bucket, rows = log.begin, None, set[tuple[str, int, int]]()
    for record in log.records:
        new = [photo for photo in photos_of(record) if photo not in rows]
        past = bucket is not None and record.timestamp_ms >= bucket + BUCKET_MS
        full = bool(rows) and len(rows) + len(new) > RULES.row_limit
        if past or full:
            ranges.append((OffsetRange(0, begin, record.offset), len(rows)))
            begin, bucket, rows = record.offset, None, set()
        if bucket is None:
            bucket = record.timestamp_ms // BUCKET_MS * BUCKET_MS
        rows |= set(photos_of(record))
    if bucket is not None:
        ranges.append((OffsetRange(0, begin, log.records[-1].offset + 1), len(rows)))
    return ranges


@dataclass
class Replica:
    """An indexer of one partition."""

    state: PartitionState
    hidden: HiddenMap
    ended: list[tuple[OpenShard, CutReason]]

    @classmethod
    def at(cls, begin: int) -> Replica:
        hidden = HiddenMap()
        state = PartitionState(
            0,
            horizon_offset=begin,
            from_offset=begin,
            rules=RULES,
            space=SPACE,
            kind=KIND,
            hidden=hidden,
        )
        return cls(state, hidden, [])

    def read(self, records: list[ParsedRecord]) -> None:
        for step in self.state.steps(records):
            match step:
                case Add(records=added):
                    self.state.add(added)
                case Cut(reason=reason):
                    self.ended.append((self.state.cut(), reason))

    def check_idle(self, checked_at_ms: int) -> None:
        cut = self.state.idle_cut(self.state.open.position, checked_at_ms)
        if cut is not None:
            self.ended.append((self.state.cut(), cut.reason))

    def hide(self, listing: str, below: int) -> None:
        self.hidden.raise_to(listing, below)
        for shard in (*(shard for shard, _ in self.ended), self.state.open):
            shard.hide(listing, below)

    def follow(self, log: Log, data: st.DataObject) -> None:
        """Read the whole log in random batches, with random idle checks in between.

        An idle check can happen at any time that the clock skew, at most the grace period, allows;
        the high watermark at that time is the position of the replica.
        """
        records, at = log.records, 0
        while at < len(records):
            end = data.draw(st.integers(at + 1, len(records)), label="end of the batch")
            self.read(records[at:end])
            at = end
            earliest = records[at - 1].timestamp_ms - GRACE_MS
            latest = records[at].timestamp_ms + GRACE_MS if at < len(records) else FAR_FUTURE_MS
            asked = st.sampled_from([latest, latest - 1]) | st.integers(earliest, latest)
            for checked_at_ms in data.draw(st.lists(asked, max_size=2), label="idle checks"):
                self.check_idle(max(0, checked_at_ms))
            self.hide(data.draw(st.sampled_from("abcd")), data.draw(st.integers(0, 3)))
        self.check_idle(FAR_FUTURE_MS)

    def ranges(self) -> list[tuple[OffsetRange, int]]:
        return [(shard.ranges[0], shard.rows) for shard, _ in self.ended]


@settings(deadline=None, max_examples=200)
@given(logs(), st.data())
def test_replicas_cut_at_the_same_offsets_regardless_of_batching(
    log: Log, data: st.DataObject
) -> None:
    expected = ranges_by_the_rules(log)
    for _ in range(2):
        replica = Replica.at(log.begin)
        replica.follow(log, data)
        assert replica.ranges() == expected
        assert replica.state.open.bucket_start is None, "nothing is left open"


@settings(deadline=None, max_examples=40)
@given(logs(), st.data())
def test_ranges_tile_the_log_and_keep_the_row_limit(log: Log, data: st.DataObject) -> None:
    replica = Replica.at(log.begin)
    replica.follow(log, data)
    bounds = [shard.ranges[0] for shard, _ in replica.ended]
    assert [r.from_offset for r in bounds[:1]] == [log.begin] * bool(log.records)
    assert all(one.to_offset == other.from_offset for one, other in pairwise(bounds))
    assert replica.state.position() == Position(log.begin, log.begin + len(log.records))
    for shard, _ in replica.ended:
        held = shard.ranges[0]
        inside = [r for r in log.records if held.from_offset <= r.offset < held.to_offset]
        assert inside, "no range is empty"
        assert {RULES.bucket_start(r.timestamp_ms) for r in inside} == {shard.bucket_start}
        with_rows = [r for r in inside if r.rows]
        assert shard.rows <= RULES.row_limit or len(with_rows) == 1


@settings(deadline=None, max_examples=20)
@given(logs(), st.data())
def test_replicas_seal_the_same_bytes(log: Log, data: st.DataObject) -> None:
    sealed = []
    for _ in range(2):
        replica = Replica.at(log.begin)
        replica.follow(log, data)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            digests = []
            for shard, _ in replica.ended:
                shard.write(folder, tier=HOURLY, bucket_seconds=2, reason="time")
                digests += [
                    hashlib.sha256(path.read_bytes()).hexdigest()
                    for path in sorted(folder.iterdir())
                    if path.name != MANIFEST_FILE
                ]
        sealed.append(digests)
    assert sealed[0] == sealed[1]


@settings(deadline=None, max_examples=40)
@given(logs(), st.data())
def test_a_replica_that_starts_at_any_range_cuts_identically(log: Log, data: st.DataObject) -> None:
    expected = ranges_by_the_rules(log)
    first = data.draw(st.integers(0, len(expected)))
    begin = expected[first][0].from_offset if first < len(expected) else log.begin
    skipped = first if first < len(expected) else 0
    replica = Replica.at(begin)
    replica.follow(Log([r for r in log.records if r.offset >= begin]), data)
    assert replica.ranges() == expected[skipped:]


def record(offset: int, timestamp_ms: int, *listings: str) -> ParsedRecord:
    return ParsedRecord(offset, timestamp_ms, [new_row(listing) for listing in listings])


def test_a_record_over_the_limit_gets_a_range_of_its_own() -> None:
    replica = Replica.at(0)
    replica.read([record(0, 0, "a"), record(1, 0, *"abcdefg"), record(2, 0, "h")])
    assert [(str(r), rows) for r, rows in replica.ranges()] == [("0:[0, 1)", 1), ("0:[1, 2)", 7)]
    assert [reason for _, reason in replica.ended] == [CutReason.ROWS, CutReason.ROWS]


def test_repeats_do_not_fill_a_range() -> None:
    replica = Replica.at(0)
    replica.read([record(n, 0, *"abcd") for n in range(5)])
    assert replica.ended == []
    assert (replica.state.open.rows, replica.state.open.position) == (4, 5)


def test_records_without_rows_are_part_of_the_range() -> None:
    replica = Replica.at(5)
    replica.read([record(5, 0), record(6, 1_000)])
    replica.check_idle(FAR_FUTURE_MS)
    assert replica.ranges() == [(OffsetRange(0, 5, 7), 0)]


def test_an_idle_cut_and_the_next_record_cut_at_the_same_offset() -> None:
    in_one_batch, later = Replica.at(0), Replica.at(0)
    first, second = record(0, 0, "a"), record(1, BUCKET_MS, "b")
    in_one_batch.read([first])
    in_one_batch.check_idle(BUCKET_MS + GRACE_MS + 1)
    in_one_batch.read([second])
    later.read([first, second])
    assert in_one_batch.ranges() == later.ranges() == [(OffsetRange(0, 0, 1), 1)]
    assert [in_one_batch.ended[0][1], later.ended[0][1]] == [CutReason.IDLE, CutReason.TIME]


def test_offsets_without_a_record_belong_to_the_following_range_whenever_they_were_read() -> None:
    # Offsets 1 to 6 are those of aborted transactions; an idle replica reads some of them.
    idle, later = Replica.at(0), Replica.at(0)
    first, second = record(0, 0, "a"), record(7, BUCKET_MS, "b")
    idle.read([first])
    idle.state.open.read_up_to(4)
    assert idle.state.open.ranges == (OffsetRange(0, 0, 4),), "what was read is covered"
    idle.check_idle(BUCKET_MS + GRACE_MS + 1)
    assert idle.state.open.ranges == (OffsetRange(0, 1, 4),), "also after the cut"
    idle.read([second])
    later.read([first, second])
    assert idle.ranges() == later.ranges() == [(OffsetRange(0, 0, 1), 1)]
    assert idle.state.open.ranges == later.state.open.ranges == (OffsetRange(0, 1, 8),)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 5 * BUCKET_MS), min_size=1, max_size=25),
    st.lists(st.integers(1, 25), min_size=1, max_size=6),
)
def test_replicas_cut_identically_if_the_broker_clock_jumps(
    times: list[int], batches: list[int]
) -> None:
    log = [record(offset, at, f"listing-{offset}") for offset, at in enumerate(times)]
    in_one_batch, in_batches = Replica.at(0), Replica.at(0)
    in_one_batch.read(log)
    position = 0
    for size in batches:
        in_batches.read(log[position : position + size])
        position += size
    in_batches.read(log[position:])
    assert in_batches.ranges() == in_one_batch.ranges()
    bounds = [held for held, _ in in_one_batch.ranges()]
    assert all(one.to_offset == other.from_offset for one, other in pairwise(bounds))


def test_a_bucket_without_records_yields_no_shard() -> None:
    replica = Replica.at(0)
    replica.read([record(0, 0, "a"), record(1, 40 * BUCKET_MS, "b")])
    replica.check_idle(60 * BUCKET_MS)
    replica.check_idle(90 * BUCKET_MS)
    assert [str(held) for held, _ in replica.ranges()] == ["0:[0, 1)", "0:[1, 2)"]
