from __future__ import annotations

from shashin.client.listing_events import LISTED, listing_event
from shashin.client.topic_tails import SeenDeadLetter
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.workload.balance import EventIn, Found, balance_of, event_in


def dead_letter(
    topic: str, offset: int, listing: str, version: int, photo: int | None = None
) -> SeenDeadLetter:
    return SeenDeadLetter(topic, 0, offset, listing, version, photo, "PhotoMissing", "gone", "step")


def test_every_event_is_counted_once() -> None:
    events = [
        EventIn(0, 0, "kept", 1, 3),
        EventIn(0, 1, "sold", 1, 3),
        EventIn(0, 2, "sold", 2, 0),
        EventIn(0, 3, "updated", 1, 3),
        EventIn(0, 4, "updated", 2, 2),
        EventIn(0, 5, "", 0, 0),
        EventIn(0, 6, "lost-later", 1, 1),
    ]
    dead_lettered = [
        dead_letter(LISTINGS_EVENTS, 5, "", 0),
        dead_letter(IMAGES_DOWNLOADED, 2, "lost-later", 1),
    ]
    found = {"kept": Found(1, 3), "updated": Found(2, 2)}

    balance = balance_of(events, dead_lettered, {"sold": 3, "updated": 2}, found)

    assert balance.problems == []
    assert (balance.searchable, balance.hidden, balance.dead_lettered) == (2, 3, 2)
    assert balance.line == "7 events in = 2 searchable + 3 hidden + 2 dead-lettered"


def test_an_unaccounted_event_is_a_problem() -> None:
    balance = balance_of([EventIn(0, 0, "a", 1, 3), EventIn(0, 1, "b", 1, 3)], [], {}, {})
    assert "2 events are neither" in balance.problems[0]
    assert "a version 1, b version 1" in balance.problems[0]
    assert "≠" in balance.line


def test_an_old_version_that_is_still_found_is_a_problem() -> None:
    balance = balance_of([EventIn(0, 0, "a", 1, 3)], [], {"a": 2}, {"a": Found(1, 3)})
    assert balance.problems == ["a version 1 is hidden, but a search can still find it"]


def test_a_photo_that_vanished_without_a_dead_letter_is_a_problem() -> None:
    balance = balance_of([EventIn(0, 0, "a", 1, 3)], [], {}, {"a": Found(1, 2)})
    assert balance.problems == [
        "a version 1 has 3 photos, of which 2 are searchable and 0 dead-lettered"
    ]


def test_a_dead_lettered_photo_leaves_its_listing_searchable() -> None:
    dead_lettered = [dead_letter(LISTINGS_EVENTS, 0, "a", 1, photo=1)]
    balance = balance_of([EventIn(0, 0, "a", 1, 3)], dead_lettered, {}, {"a": Found(1, 2)})
    assert balance.problems == []
    assert (balance.searchable, balance.photos_dead_lettered) == (1, 1)


def test_a_version_that_went_backwards_is_dead_lettered_by_its_offset() -> None:
    events = [EventIn(0, 0, "a", 2, 1), EventIn(0, 1, "a", 1, 1)]
    dead_lettered = [dead_letter(LISTINGS_EVENTS, 1, "a", 1)]
    balance = balance_of(events, dead_lettered, {"a": 2}, {"a": Found(2, 1)})
    assert (balance.searchable, balance.hidden, balance.dead_lettered) == (1, 0, 1)


def test_records_are_read_even_when_they_do_not_parse() -> None:
    def record(value: bytes) -> InRecord:
        return InRecord(LISTINGS_EVENTS, 3, 9, 0, b"key", value)

    good = listing_event("a", 4, LISTED, photo_uris=["file:///a.jpg"])
    assert event_in(record(good.SerializeToString())) == EventIn(3, 9, "a", 4, 1)
    assert event_in(record(b"\xff\xfe\xfd")) == EventIn(3, 9, "key", 0, 0)
