"""Which records are replayed, where to, and in what order."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UndecodableBatch
from shashin.kafka.dlq_entries import DlqEntry, DlqEntryId, entries_of
from shashin.kafka.records import InRecord
from shashin.kafka.replay_plan import (
    MAX_CHUNK_BYTES,
    MAX_CHUNK_RECORDS,
    in_chunks,
    plan_replays,
    replayed_record,
)
from shashin.kafka.topics import LISTINGS_EVENTS, MAX_DEAD_LETTER_BYTES
from tests.unit.kafka.dead_letter_records import dead_letter, resolution

DLQ = LISTINGS_EVENTS + ".dlq"


def ids(*offsets: int) -> list[DlqEntryId]:
    return [DlqEntryId(DLQ, 0, offset) for offset in offsets]


def test_a_record_with_several_entries_is_sent_once_and_all_are_resolved() -> None:
    entries = entries_of(dead_letter(i, origin=(1, 9), photo=i) for i in range(3))
    (replay,) = plan_replays(entries, ids(1))
    assert replay.resolves == tuple(ids(0, 1, 2))
    assert (replay.origin.topic, replay.origin.partition) == (LISTINGS_EVENTS, 1)


def test_an_entry_that_is_already_resolved_is_not_resolved_again() -> None:
    first, second = dead_letter(0, photo=0), dead_letter(1, photo=1)
    (replay,) = plan_replays(entries_of([first, second, resolution(first, 2, "dropped")]), ids(1))
    assert replay.resolves == tuple(ids(1))


def test_the_same_offset_in_a_recreated_topic_is_another_record() -> None:
    entries = entries_of([dead_letter(0, listing_id="lamp"), dead_letter(1, listing_id="chair")])
    (replay,) = plan_replays(entries, ids(0))
    assert replay.resolves == tuple(ids(0))


def test_a_foreign_record_is_not_replayed() -> None:
    entries = entries_of([InRecord(DLQ, 0, 0, 0, b"key", b"value")])
    assert plan_replays(entries, ids(0)) == []


def test_a_version_that_failed_again_is_sent_before_a_newer_version() -> None:
    entries = entries_of(
        [dead_letter(0, version=2, origin=(0, 6)), dead_letter(1, version=1, origin=(0, 10))]
    )
    assert [r.dead_letter.version for r in plan_replays(entries, ids(0, 1))] == [1, 2]


def test_the_record_is_sent_unchanged() -> None:
    stored = dead_letter(5, listing_id="chair", origin=(3, 8))
    (replay,) = plan_replays(entries_of([stored]), ids(5))
    sent = replayed_record(replay, stored)
    assert (sent.topic, sent.partition, sent.headers) == (LISTINGS_EVENTS, 3, ())
    assert (sent.key, sent.value) == (b"chair", stored.value)


@st.composite
def dead_letters(draw: st.DrawFn) -> list[DlqEntry]:
    records = [
        dead_letter(
            offset,
            listing_id=draw(st.sampled_from("abc")),
            version=draw(st.integers(1, 4)),
            origin=(draw(st.integers(0, 1)), draw(st.integers(0, 6))),
        )
        for offset in range(draw(st.integers(0, 12)))
    ]
    of_some = (
        draw(st.lists(st.sampled_from(records), unique_by=lambda r: r.offset)) if records else []
    )
    closing = [resolution(r, 100 + r.offset) for r in of_some]
    return entries_of([*records, *closing])


@given(dead_letters(), st.data())
def test_every_chosen_open_entry_is_resolved_by_exactly_one_replay(
    entries: list[DlqEntry], data: st.DataObject
) -> None:
    still_open = [e.dead_letter.entry_id for e in entries if e.open]
    chosen = data.draw(st.lists(st.sampled_from(still_open))) if still_open else []
    replays = plan_replays(entries, chosen)
    resolved = [entry_id for replay in replays for entry_id in replay.resolves]
    assert len(resolved) == len(set(resolved))
    assert set(chosen) <= set(resolved) <= set(still_open)
    assert all(set(replay.resolves) & set(chosen) for replay in replays)


@given(dead_letters())
def test_a_listings_versions_grow_on_each_partition(entries: list[DlqEntry]) -> None:
    replays = plan_replays(entries, [e.dead_letter.entry_id for e in entries])
    for partition in (0, 1):
        for listing in "abc":
            versions = [
                r.dead_letter.version
                for r in replays
                if (r.origin.partition, r.dead_letter.listing_id) == (partition, listing)
            ]
            assert all(one <= other for one, other in pairwise(versions))


def test_chunks_are_bounded_in_records_and_bytes_and_leave_nothing_out() -> None:
    large = MAX_CHUNK_BYTES // 3
    dead_letters = [dead_letter(i, origin=(0, i), value=bytes(large)) for i in range(7)]
    dead_letters += [dead_letter(i, origin=(0, i)) for i in range(7, 7 + 2 * MAX_CHUNK_RECORDS)]
    replays = plan_replays(entries_of(dead_letters), ids(*range(len(dead_letters))))
    chunks = list(in_chunks(replays))
    assert [replay for chunk in chunks for replay in chunk] == replays
    assert all(len(chunk) <= MAX_CHUNK_RECORDS for chunk in chunks)
    assert all(sum(r.dead_letter.value_bytes for r in chunk) <= MAX_CHUNK_BYTES for chunk in chunks)


def test_a_record_that_is_larger_than_a_chunk_is_a_chunk() -> None:
    replays = plan_replays(entries_of([dead_letter(0), dead_letter(1, origin=(0, 1))]), ids(0, 1))
    big = replace(replays[0].dead_letter, value_bytes=MAX_CHUNK_BYTES + 1)
    replays[0] = replace(replays[0], dead_letter=big)
    assert [len(chunk) for chunk in in_chunks(replays)] == [1, 1]


def test_what_was_truncated_or_cannot_be_decoded_is_not_replayed() -> None:
    large = dead_letter(0, value=bytes(MAX_DEAD_LETTER_BYTES))
    batch = dead_letter(1, origin=(0, 1), error=UndecodableBatch("offsets 1 to 9 were skipped"))
    entries = entries_of([large, batch, dead_letter(2, origin=(0, 2))])
    assert [e.dead_letter.replayable for e in entries] == [False, False, True]
    (replay,) = plan_replays(entries, ids(0, 1, 2))
    assert replay.resolves == tuple(ids(2))
