"""Events are followed by their own version and record, not by what can be found of their listing."""

from __future__ import annotations

from typing import Any

from shashin.client.sent_events import SentEvent, SentEvents
from shashin.client.topic_tails import HiddenBelow, SeenDeadLetter, hidden_below, hides
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, LISTINGS_HIDDEN, hidden_key
from shashin.v1 import events_pb2, search_pb2

SOLD = events_pb2.HIDDEN_REASON_SOLD
SUPERSEDED = events_pb2.HIDDEN_REASON_SUPERSEDED


def sent(version: int = 5) -> SentEvents:
    events = SentEvents()
    events.add([SentEvent("lamp", version, partition=1, offset=42)])
    return events


def at(version: int) -> dict[str, search_pb2.Location]:
    return {"lamp": search_pb2.Location(listing_id="lamp", version=version)}


def dead_letter(**changes: Any) -> SeenDeadLetter:
    fields: dict[str, Any] = {
        "topic": LISTINGS_EVENTS,
        "partition": 1,
        "offset": 42,
        "listing_id": "lamp",
        "version": 5,
        "photo_number": None,
        "reason": "StaleVersion",
        "message": "version 5 after version 9",
        "step": "downloader.validate",
        **changes,
    }
    return SeenDeadLetter(**fields)


# --- publishing ---------------------------------------------------------------------------------


def test_only_the_version_that_was_sent_counts_as_searchable() -> None:
    events = sent()
    for other in (4, 9):
        events.note_searchable(at(other))
        assert not events.done
    events.note_searchable(at(5))
    assert (events.done, list(events.outstanding), events.failed) == (["lamp"], [], False)


def test_a_dead_letter_of_the_own_record_ends_the_wait() -> None:
    events = sent()
    events.note_searchable(at(9))
    events.note_dead_letters([dead_letter()])
    assert not events.outstanding
    assert events.failed
    assert events.dead_lettered == [dead_letter()]


def test_a_dead_letter_of_another_record_does_not() -> None:
    events = sent()
    events.note_dead_letters(
        [
            dead_letter(offset=41),
            dead_letter(partition=0),
            dead_letter(listing_id="chair"),
            dead_letter(topic=IMAGES_DOWNLOADED, offset=7, version=4),
        ]
    )
    assert list(events.outstanding) == ["lamp"]
    assert not events.failed


def test_a_dead_letter_of_a_later_stage_is_known_by_listing_and_version() -> None:
    events = sent()
    events.note_dead_letters([dead_letter(topic=IMAGES_DOWNLOADED, partition=0, offset=7)])
    assert not events.outstanding
    assert events.failed


def test_a_photo_that_was_dead_lettered_leaves_its_listing_outstanding() -> None:
    events = sent()
    events.note_dead_letters([dead_letter(photo_number=1)])
    assert list(events.outstanding) == ["lamp"]
    assert len(events.photos_dead_lettered) == 1
    assert not events.failed


def test_a_version_below_a_sale_can_never_be_found_and_the_reason_names_the_sale() -> None:
    events = sent()
    events.note_hidden_versions({"lamp": HiddenBelow(5, SUPERSEDED)})
    assert list(events.outstanding) == ["lamp"], "its own version is not hidden"
    events.note_hidden_versions({"lamp": HiddenBelow(10, SOLD)})
    assert not events.outstanding
    assert events.failed
    assert events.without_effect["lamp"].startswith(
        "version 5 is not searchable: version 9 of it was sold"
    )


def test_a_version_below_one_that_was_searchable_names_that_one() -> None:
    events = sent()
    events.note_hidden_versions({"lamp": HiddenBelow(9, SUPERSEDED)})
    assert "version 9 of it was searchable before" in events.without_effect["lamp"]


# --- selling and removing -----------------------------------------------------------------------


def test_a_sale_is_done_only_once_its_version_is_hidden_and_nothing_is_found() -> None:
    events = sent()
    events.note_ended({}, {})
    assert list(events.outstanding) == ["lamp"], "it was not searchable before the sale either"
    events.note_ended({"lamp": HiddenBelow(5, SUPERSEDED)}, {})
    assert list(events.outstanding) == ["lamp"]
    events.note_ended({"lamp": HiddenBelow(6, SOLD)}, at(4))
    assert list(events.outstanding) == ["lamp"], "an endpoint has not heard of it yet"
    events.note_ended({}, {})
    assert events.done == ["lamp"]
    assert not events.failed


def test_a_sale_of_an_older_version_than_the_one_on_sale_has_no_effect() -> None:
    events = sent()
    events.note_ended({"lamp": HiddenBelow(6, SOLD)}, at(9))
    assert not events.outstanding
    assert events.failed
    assert events.without_effect["lamp"].startswith("version 9 is still searchable")


# --- reading the hidden listings ----------------------------------------------------------------


def hidden_record(listing_id: str, below: int) -> InRecord:
    hidden = events_pb2.HiddenListing(listing_id=listing_id, below_version=below, reason=SOLD)
    key = hidden_key(listing_id, below)
    return InRecord(LISTINGS_HIDDEN, 0, 0, 0, key, hidden.SerializeToString())


def test_hidden_listings_are_chosen_by_key_and_the_highest_version_counts() -> None:
    records = [hidden_record("lamp", 9), hidden_record("lamp", 4), hidden_record("lamp\0x", 99)]
    chosen = [record for record in records if hides({"lamp", "chair"})(record)]
    assert hidden_below(chosen) == {"lamp": HiddenBelow(9, SOLD)}


def test_a_strangers_record_among_hidden_listings_is_ignored() -> None:
    stranger = InRecord(LISTINGS_HIDDEN, 0, 0, 0, b"lamp\x001", b"\xff\xff")
    assert hidden_below([stranger, hidden_record("lamp", 3)]) == {"lamp": HiddenBelow(3, SOLD)}
