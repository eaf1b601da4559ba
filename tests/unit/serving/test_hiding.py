"""Records of listings.hidden: a sale is applied at once, an update after a search's deadline."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.merge import EndpointHits, merge
from shashin.codecs.hit_lists import hits_in
from shashin.kafka.records import DamagedBatch, InRecord
from shashin.serving.endpoint import Context, IndexEndpoint
from shashin.serving.hiding import Hiding
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.row import RowAttributes
from shashin.shards.kinds.registry import GROWING_KINDS, growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.shards.row_filter import RowFilter
from shashin.v1 import events_pb2, index_pb2
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import (
    BUCKET_START,
    DIMENSIONS,
    MODEL,
    SPACE,
    new_row,
    open_shard,
    vector_of,
)
from tests.support.searching import search_shards

SUPERSEDED = events_pb2.HIDDEN_REASON_SUPERSEDED
DEADLINE_SECONDS = 2.0


def hidden_record(
    listing_id: str, below: int, reason: events_pb2.HiddenReason.ValueType = SUPERSEDED
) -> InRecord:
    message = events_pb2.HiddenListing(listing_id=listing_id, below_version=below, reason=reason)
    return InRecord("listings.hidden", 0, 0, 0, b"key", message.SerializeToString())


class Process:
    """The served shards of one process, its clock, and what it does with records."""

    def __init__(self, *shards: OpenShard, hidden: HiddenMap) -> None:
        self.now = 100.0
        self.hidden = hidden
        self.served = ServedShards()
        self.served.hidden_loaded = True
        self.served.serve(shards)
        self.hiding = Hiding(superseded_after_seconds=DEADLINE_SECONDS, clock=lambda: self.now)

    def apply(self, record: InRecord) -> None:
        """Do what the follower does with a record."""
        updates = self.hiding.take([record], delay_updates=self.served.hidden_loaded)
        self.served.supersede_all(updates)
        self.apply_due()

    def apply_due(self) -> None:
        due = self.hiding.due()
        for entry in due:
            self.hidden.raise_to(entry.listing_id, entry.below_version)
        self.served.hide_all(due)

    def sees(self, listing_id: str) -> list[int]:
        return [
            row.version
            for shard in self.served.snapshot().shards
            for _, row in shard.visible_rows_of(listing_id)
        ]


MakeProcess = Callable[..., Process]


@pytest.fixture(params=GROWING_KINDS)
def process_of(request: pytest.FixtureRequest) -> MakeProcess:
    """Return what makes a process of an open shard with these rows, of each kind."""

    def make(*rows: Any) -> Process:
        hidden = HiddenMap()
        kind = growing_kind(request.param)
        return Process(open_shard(rows, hidden=hidden, kind=kind), hidden=hidden)

    return make


def found_versions(process: Process, version: int, row_filter: RowFilter) -> list[int]:
    query = vector_of("lamp", version)[None, :]
    (hits,) = search_shards(process.served.snapshot().shards, query, 5, row_filter)
    return [hit.row.version for hit in hits if hit.row.listing_id == "lamp"]


def test_a_shard_with_both_versions_finds_the_newest_at_once_though_the_old_one_is_nearer(
    process_of: MakeProcess,
) -> None:
    old_price, new_price = RowAttributes("old"), RowAttributes("new")
    process = process_of(
        new_row("lamp", 1, attributes=old_price),
        new_row("lamp", 2, attributes=new_price),
        new_row("mug", 1),
    )
    assert found_versions(process, 1, RowFilter()) == [1]
    process.apply(hidden_record("lamp", 2))
    assert found_versions(process, 1, RowFilter()) == [2]
    assert found_versions(process, 1, RowFilter(categories=("old",))) == []
    assert process.sees("lamp") == [1, 2], "a look-up has both"
    process.now += DEADLINE_SECONDS
    process.apply_due()
    assert found_versions(process, 1, RowFilter()) == [2]


def test_a_shard_without_the_newest_version_finds_the_old_one_until_it_is_hidden(
    process_of: MakeProcess,
) -> None:
    process = process_of(new_row("lamp", 1), new_row("mug", 1))
    process.apply(hidden_record("lamp", 2))
    assert found_versions(process, 1, RowFilter()) == [1]
    process.now += DEADLINE_SECONDS
    process.apply_due()
    assert found_versions(process, 1, RowFilter()) == []


def test_an_old_version_stays_visible_for_as_long_as_a_search_may_take(
    process_of: MakeProcess,
) -> None:
    process = process_of(new_row("lamp", 1), new_row("lamp", 2), new_row("mug", 1))
    process.apply(hidden_record("lamp", 2))
    for _ in range(4):
        process.apply_due()
        assert process.sees("lamp") == [1, 2]
        process.now += DEADLINE_SECONDS / 4
    process.apply_due()
    assert process.sees("lamp") == [2]


@pytest.mark.parametrize(
    "reason",
    [
        events_pb2.HIDDEN_REASON_SOLD,
        events_pb2.HIDDEN_REASON_REMOVED,
        events_pb2.HIDDEN_REASON_UNSPECIFIED,
    ],
)
def test_what_is_sold_or_removed_is_hidden_at_once_also_while_an_update_waits(
    process_of: MakeProcess, reason: events_pb2.HiddenReason.ValueType
) -> None:
    process = process_of(new_row("lamp", 1), new_row("lamp", 2))
    process.apply(hidden_record("lamp", 2))
    process.apply(hidden_record("lamp", 3, reason))
    assert process.sees("lamp") == []
    process.now += DEADLINE_SECONDS
    process.apply_due()
    assert process.hidden.below("lamp") == 3


def test_until_everything_hidden_is_loaded_updates_are_applied_at_once(
    process_of: MakeProcess,
) -> None:
    process = process_of(new_row("lamp", 1), new_row("lamp", 2))
    process.served.hidden_loaded = False
    process.apply(hidden_record("lamp", 2))
    assert process.sees("lamp") == [2]


def test_a_repeat_for_which_nothing_is_left_to_hide_slows_no_search(
    process_of: MakeProcess,
) -> None:
    # Indexers write all of them again at every start.
    process = process_of(new_row("lamp", 1), new_row("lamp", 2))
    process.apply(hidden_record("lamp", 2))
    (shard,) = process.served.snapshot().shards
    assert isinstance(shard, OpenShard)
    assert shard._superseded
    process.now += DEADLINE_SECONDS
    process.apply_due()
    process.apply(hidden_record("lamp", 2))
    assert not shard._superseded


def test_the_next_read_ends_when_an_update_is_due(process_of: MakeProcess) -> None:
    process = process_of(new_row("lamp", 1))
    assert process.hiding.seconds_until_due(at_most=0.5) == 0.5
    process.apply(hidden_record("lamp", 2))
    process.now += DEADLINE_SECONDS - 0.25
    assert process.hiding.seconds_until_due(at_most=0.5) == 0.25
    process.now += 1.0
    assert 0 < process.hiding.seconds_until_due(at_most=0.5) < 0.01


def test_invalid_records_are_skipped(process_of: MakeProcess) -> None:
    process = process_of(new_row("lamp", 1))
    process.apply(InRecord("listings.hidden", 0, 0, 0, b"", b"\xff\xff"))
    process.apply(hidden_record("", 5))
    assert process.sees("lamp") == [1]


class Call:
    """A call without a deadline."""

    def time_remaining(self) -> None:
        return None


async def test_an_update_during_a_search_is_found_in_one_version_and_later_only_in_the_newest(
    process_of: MakeProcess,
) -> None:
    """The live tier is searched before it has version 2, the index server after it heard of it."""
    old = process_of(new_row("lamp", 1), new_row("mug", 1))
    live = process_of()
    (growing,) = live.served.snapshot().shards
    assert isinstance(growing, OpenShard)
    request = index_pb2.IndexSearchRequest(
        model_id=MODEL,
        queries=vector_of("lamp", 1).astype("<f4").tobytes(),
        dimensions=DIMENSIONS,
        k=5,
    )
    context = cast("Context", Call())
    with ThreadPoolExecutor(1) as executor:

        def endpoint(process: Process, tier: str) -> IndexEndpoint:
            return IndexEndpoint(process.served, space=SPACE, tier=tier, executor=executor)

        async def searched(process: Process, tier: str) -> EndpointHits:
            hits = (await endpoint(process, tier).Search(request, context)).hits
            return EndpointHits(tier, 5, hits_in(hits, 1, 0))

        first = await searched(live, "live")
        growing.add([new_row("lamp", 2)], position=3, bucket_start=BUCKET_START)
        for process in (live, old):
            process.apply(hidden_record("lamp", 2))
        second = await searched(old, "hourly")
        found = {hit.listing_id: hit.version for hit in merge([first, second], 5)}
        assert found == {"lamp": 1, "mug": 1}

        # The next search meets both versions, and keeps the newest although the old one is nearer.
        both = [await searched(live, "live"), await searched(old, "hourly")]
        assert {hit.listing_id: hit.version for hit in merge(both, 5)} == {"lamp": 2, "mug": 1}

        for process in (live, old):
            process.now += DEADLINE_SECONDS
            process.apply_due()
        assert old.sees("lamp") == []
        assert live.sees("lamp") == [2]


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.booleans(), st.sampled_from([0.0, 0.5, 2.0])), max_size=20
    ),
)
def test_everything_before_the_applied_offsets_was_due(
    records: list[tuple[int, bool, float]],
) -> None:
    now, applied = [0.0], {0: 0, 1: 0}
    hiding = Hiding(superseded_after_seconds=DEADLINE_SECONDS, clock=lambda: now[0])
    returned: set[tuple[int, int]] = set()
    read = {0: 0, 1: 0}
    for partition, superseded, passes in records:
        record = replace(
            hidden_record("lamp", 2, SUPERSEDED if superseded else events_pb2.HIDDEN_REASON_SOLD),
            partition=partition,
            offset=read[partition],
        )
        hiding.take([record], delay_updates=True)
        read[partition] += 1
        now[0] += passes
        for _ in range(2):
            reached = hiding.applied(read)
            assert all((p, o) in returned for p in read for o in range(reached[p]))
            assert all(reached[p] >= applied[p] for p in read), "it never goes back"
            applied = reached
            returned |= {(entry.partition, entry.offset) for entry in hiding.due()}
    now[0] += DEADLINE_SECONDS
    hiding.due()
    assert hiding.applied(read) == read


def test_the_applied_offset_stays_before_an_unreadable_record_until_all_is_read_again() -> None:
    hiding = Hiding(superseded_after_seconds=DEADLINE_SECONDS)
    hiding.hold(replace(hidden_record("lamp", 2), offset=5, problem="damaged"))
    hiding.hold(
        replace(
            hidden_record("lamp", 2), offset=3, problem="damaged", batch=DamagedBatch(2, 4, "crc")
        )
    )
    assert hiding.applied({0: 9, 1: 4}) == {0: 2, 1: 4}
    hiding.restart()
    assert hiding.applied({0: 9, 1: 4}) == {0: 9, 1: 4}


def test_updates_beyond_what_is_applied_at_once_stay_due_and_hold_the_offset_back() -> None:
    now = [0.0]
    hiding = Hiding(superseded_after_seconds=DEADLINE_SECONDS, clock=lambda: now[0])
    updates = [replace(hidden_record("lamp", 2), offset=offset) for offset in range(5)]
    hiding.take(updates, delay_updates=True)
    now[0] += DEADLINE_SECONDS
    assert [entry.offset for entry in hiding.due(at_most=3)] == [0, 1, 2]
    assert hiding.applied({0: 5}) == {0: 3}
    assert hiding.seconds_until_due(at_most=1.0) < 0.01, "the rest is applied next"
    assert [entry.offset for entry in hiding.due(at_most=3)] == [3, 4]
    assert hiding.applied({0: 5}) == {0: 5}
