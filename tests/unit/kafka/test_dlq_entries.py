"""Parsing dead letters, and which of them are open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import PhotoMissing, UserError
from shashin.kafka.dlq_entries import (
    UNKNOWN_REASON,
    DlqEntryId,
    Origin,
    entries_of,
    is_resolution,
    parse_entry_id,
    resolution_of,
    stored_dead_letter,
)
from shashin.kafka.records import InRecord
from shashin.kafka.topics import DEAD_LETTER_TOPICS, LISTINGS_EVENTS
from tests.unit.kafka.dead_letter_records import dead_letter, resolution

DLQ = LISTINGS_EVENTS + ".dlq"
OUR_HEADERS = [
    "shashin-error",
    "shashin-message",
    "shashin-step",
    "shashin-attempts",
    "shashin-scope",
    "shashin-topic",
    "shashin-partition",
    "shashin-offset",
    "shashin-at",
    "shashin-photo-number",
]


def test_a_dead_letter_is_read_back_as_it_was_written() -> None:
    record = dead_letter(
        7,
        listing_id="chair",
        version=4,
        origin=(2, 31),
        error=PhotoMissing("gone"),
        step="downloader.fetch",
        photo=1,
    )
    read = stored_dead_letter(record)
    assert str(read.entry_id) == f"{DLQ}:7"
    assert (read.listing_id, read.version, read.origin) == (
        "chair",
        4,
        Origin(LISTINGS_EVENTS, 2, 31),
    )
    assert (read.reason, read.message, read.step) == ("PhotoMissing", "gone", "downloader.fetch")
    assert (read.attempts, read.scope, read.photo_number) == (3, "photo", 1)
    assert str(read.at_ms).encode() == dict(record.headers)["shashin-at"]


def test_a_foreign_record_is_an_entry_of_unknown_reason_without_an_origin() -> None:
    read = stored_dead_letter(InRecord(DLQ, 0, 3, 1234, b"key", b"\xff", [("app", b"x")]))
    assert (read.reason, read.origin, read.attempts) == (UNKNOWN_REASON, None, 0)
    assert (read.listing_id, read.version, read.at_ms) == ("key", 0, 1234)


def test_an_entry_whose_topic_does_not_match_has_no_origin() -> None:
    record = dead_letter(0)
    moved = InRecord(DEAD_LETTER_TOPICS[1], 0, 0, 0, record.key, record.value, record.headers)
    assert stored_dead_letter(moved).origin is None


@given(
    st.sampled_from(DEAD_LETTER_TOPICS),
    st.none() | st.binary(max_size=20),
    st.binary(max_size=40),
    st.lists(
        st.tuples(st.sampled_from(OUR_HEADERS), st.none() | st.binary(max_size=25)), max_size=12
    ),
    st.integers(-1, 2**62),
)
def test_any_record_is_an_entry(
    topic: str,
    key: bytes | None,
    value: bytes,
    headers: list[tuple[str, bytes | None]],
    timestamp_ms: int,
) -> None:
    (entry,) = entries_of([InRecord(topic, 0, 5, timestamp_ms, key, value, headers)])
    assert entry.open
    assert entry.dead_letter.entry_id == DlqEntryId(topic, 0, 5)
    assert entry.dead_letter.reason
    assert entry.dead_letter.photo_number is None or entry.dead_letter.scope == "photo"


@given(st.binary(max_size=30))
def test_an_invalid_resolution_is_not_an_entry(header: bytes) -> None:
    record = InRecord(DLQ, 0, 9, 0, None, b"", [("shashin-resolves", header)])
    assert is_resolution(record)
    assert [
        entry.dead_letter.entry_id.offset for entry in entries_of([dead_letter(1), record])
    ] == [1]


def test_an_empty_dead_letter_is_not_a_resolution() -> None:
    (entry,) = entries_of([dead_letter(0, value=b"")])
    assert entry.open


@given(st.data())
def test_entries_without_a_resolution_are_open(data: st.DataObject) -> None:
    records: list[InRecord] = []
    dead_letters: list[InRecord] = []
    resolved: dict[int, str] = {}
    for offset, action in enumerate(
        data.draw(st.lists(st.sampled_from(["entry", "replayed", "dropped"]), max_size=25))
    ):
        if action == "entry" or not dead_letters:
            dead_letters.append(dead_letter(offset, origin=(0, offset)))
            records.append(dead_letters[-1])
        else:
            of = data.draw(st.sampled_from(dead_letters))
            records.append(resolution(of, offset, action))  # type: ignore[arg-type]
            resolved.setdefault(of.offset, action)
    entries = entries_of(records)
    assert sorted(e.dead_letter.entry_id.offset for e in entries) == [
        r.offset for r in dead_letters
    ]
    assert {
        e.dead_letter.entry_id.offset: e.resolution.how for e in entries if e.resolution is not None
    } == resolved


def test_a_resolution_records_what_was_done_and_when() -> None:
    found = resolution_of(resolution(dead_letter(4), 6, "dropped"))
    assert found is not None
    assert (found.partition, found.offset, found.how, found.at_ms) == (0, 4, "dropped", 5000)


def test_a_resolution_only_closes_the_entry_of_its_own_topic() -> None:
    here, there = dead_letter(4), dead_letter(4, topic="images.downloaded")
    states = {e.dead_letter.topic: e.open for e in entries_of([here, there, resolution(there, 5)])}
    assert states == {LISTINGS_EVENTS: True, "images.downloaded": False}


@given(st.sampled_from(DEAD_LETTER_TOPICS), st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1))
def test_an_id_is_read_as_it_is_written(topic: str, partition: int, offset: int) -> None:
    entry_id = DlqEntryId(topic, partition, offset)
    assert parse_entry_id(str(entry_id)) == entry_id


@pytest.mark.parametrize(
    "text", ["", "12", "listings.events:1", f"{DLQ}:", f"{DLQ}:-1", f"{DLQ}:1x", "other.dlq:1", "٣"]
)
def test_an_invalid_id_is_rejected_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"expected TOPIC:OFFSET, such as listings\.events\.dlq:12"):
        parse_entry_id(text)
