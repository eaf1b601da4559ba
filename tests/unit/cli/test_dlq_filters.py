"""Selecting dead letters by filter, id and limit."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.cli.dlq.filters import (
    DlqFilter,
    Selection,
    check_selection,
    counts,
    filtered,
    newest,
    parse_topic,
)
from shashin.errors import DeadLetterNotFound, DeadLetterNotOpen, UserError
from shashin.kafka.dlq_entries import (
    DlqEntry,
    DlqEntryId,
    Resolution,
    StoredDeadLetter,
    parse_entry_id,
)

TOPICS = ["listings.events", "images.downloaded"]
STEPS = ["downloader.fetch", "downloader.validate", "downloaders.x", "embedder.parse"]


def entry(
    offset: int = 0,
    *,
    topic: str = TOPICS[0],
    at_ms: int = 1000,
    listing_id: str = "lamp",
    reason: str = "PhotoMissing",
    step: str = STEPS[0],
    resolved: bool = False,
) -> DlqEntry:
    dead_letter = StoredDeadLetter(
        DlqEntryId(f"{topic}.dlq", 0, offset),
        at_ms,
        listing_id,
        1,
        reason,
        "message",
        step,
        1,
        "record",
        None,
        None,
        b"key",
        0,
        b"",
    )
    return DlqEntry(dead_letter, Resolution(0, offset, "dropped", 0) if resolved else None)


ENTRIES = st.builds(
    entry,
    st.integers(0, 10**6),
    topic=st.sampled_from(TOPICS),
    at_ms=st.integers(0, 20),
    listing_id=st.sampled_from("ab"),
    reason=st.sampled_from(["PhotoMissing", "InvalidEvent"]),
    step=st.sampled_from(STEPS),
    resolved=st.booleans(),
)
FILTERS = st.builds(
    DlqFilter,
    topic=st.none() | st.sampled_from(TOPICS),
    reason=st.none() | st.sampled_from(["PhotoMissing", "InvalidEvent"]),
    step=st.none() | st.sampled_from([*STEPS, "downloader"]),
    listing_id=st.none() | st.sampled_from("ab"),
    since_ms=st.none() | st.integers(0, 20),
    until_ms=st.none() | st.integers(0, 20),
)


@given(st.lists(ENTRIES, max_size=12), FILTERS, st.booleans())
def test_a_filter_is_the_intersection_of_its_parts(
    entries: list[DlqEntry], dlq_filter: DlqFilter, resolved_too: bool
) -> None:
    expected = list(entries)
    for field in fields(dlq_filter):
        alone = DlqFilter(**{field.name: getattr(dlq_filter, field.name)})
        kept = filtered(entries, alone, resolved_too=resolved_too)
        expected = [e for e in expected if e in kept]
    assert filtered(entries, dlq_filter, resolved_too=resolved_too) == expected


@given(st.lists(ENTRIES, max_size=12), st.integers(0, 20))
def test_since_and_until_partition_the_entries(entries: list[DlqEntry], moment: int) -> None:
    before = filtered(entries, DlqFilter(until_ms=moment), resolved_too=True)
    after = filtered(entries, DlqFilter(since_ms=moment), resolved_too=True)
    assert len(before) + len(after) == len(entries)
    assert all(e.dead_letter.at_ms < moment for e in before)


@given(st.lists(ENTRIES, max_size=12))
def test_an_empty_filter_matches_all_open_entries(entries: list[DlqEntry]) -> None:
    assert not DlqFilter().restricts
    kept = filtered(entries, DlqFilter(), resolved_too=False)
    assert kept == [e for e in entries if e.open]


def test_a_service_stands_for_all_of_its_steps() -> None:
    entries = [entry(i, step=step) for i, step in enumerate(STEPS)]
    kept = filtered(entries, DlqFilter(step="downloader"), resolved_too=False)
    assert [e.dead_letter.step for e in kept] == ["downloader.fetch", "downloader.validate"]


@given(st.lists(ENTRIES, max_size=8), st.none() | st.integers(1, 10))
def test_a_limit_keeps_the_newest_in_their_order(
    entries: list[DlqEntry], limit: int | None
) -> None:
    kept = newest(entries, limit)
    assert len(kept) == min(len(entries), limit or len(entries))
    assert entries[len(entries) - len(kept) :] == kept


@given(st.lists(ENTRIES, max_size=12))
def test_counts_count_every_entry_once(entries: list[DlqEntry]) -> None:
    counted = counts(entries)
    assert sum(c.open for c in counted) == sum(e.open for e in entries)
    assert sum(c.open + c.resolved for c in counted) == len(entries)
    assert len({(c.topic, c.reason) for c in counted}) == len(counted)


def test_ids_select_each_entry_once() -> None:
    entries = [entry(i) for i in range(3)]
    selection = Selection(tuple(map(parse_entry_id, ["listings.events.dlq:2"] * 2)))
    assert selection.open_entries(entries) == [entries[2]]
    assert selection.topics == ("listings.events.dlq",)


def test_one_id_that_does_not_exist_or_is_not_open_rejects_all() -> None:
    entries = [entry(0), entry(1, resolved=True)]

    def selection(*offsets: int) -> Selection:
        return Selection(tuple(DlqEntryId("listings.events.dlq", 0, offset) for offset in offsets))

    with pytest.raises(DeadLetterNotFound, match=r"no such dead letter: listings\.events\.dlq:7"):
        selection(0, 7).open_entries(entries)
    with pytest.raises(DeadLetterNotOpen, match=r"dlq:1 was already dropped: nothing changed"):
        selection(0, 1).open_entries(entries)


IDS = (DlqEntryId("listings.events.dlq", 0, 0),)
BY_REASON = DlqFilter(reason="PhotoMissing")


@pytest.mark.parametrize(
    ("selection", "all_open"),
    [
        (Selection(IDS), False),
        (Selection(dlq_filter=BY_REASON), False),
        (Selection(dlq_filter=BY_REASON, limit=3), False),
        (Selection(), True),
        (Selection(limit=3), True),
        (Selection(dlq_filter=BY_REASON, limit=3), None),
    ],
)
def test_entries_may_be_selected_in_one_way(selection: Selection, all_open: bool | None) -> None:
    check_selection(selection, "replay", all_open=all_open)


@pytest.mark.parametrize(
    ("selection", "all_open", "message"),
    [
        (Selection(), False, "which dead letters to replay"),
        (Selection(limit=3), False, "or --all-open"),
        (Selection(IDS, BY_REASON), False, "ids or filters, not both"),
        (Selection(IDS, limit=1), False, "ids or filters, not both"),
        (Selection(IDS), True, "ids or filters, not both"),
        (Selection(dlq_filter=BY_REASON), True, "omit either it or the filters"),
    ],
)
def test_entries_selected_not_at_all_or_twice_are_rejected(
    selection: Selection, all_open: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_selection(selection, "replay", all_open=all_open)


def test_a_topic_may_be_written_with_its_suffix() -> None:
    assert parse_topic("listings.events.dlq") == parse_topic("listings.events") == "listings.events"
    with pytest.raises(
        UserError, match=r"'listings.hidden' has no dead-letter topic: expected one of"
    ):
        parse_topic("listings.hidden")
