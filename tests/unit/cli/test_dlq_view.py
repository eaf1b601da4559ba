"""Dead letters as text: no control characters, no photo bytes."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

from hypothesis import given
from hypothesis import strategies as st

from shashin.cli.dlq.filters import counts
from shashin.cli.dlq.readable_events import readable_event
from shashin.cli.dlq.view import (
    COLUMNS,
    entry_document,
    row_of,
    short_message,
    summary_line,
    whole_document,
    whole_rows,
)
from shashin.errors import InvalidEvent, PhotoMissing
from shashin.kafka.dlq_entries import MESSAGES, entries_of, stored_dead_letter
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.terminal.console import echo, echo_table
from shashin.v1 import events_pb2
from tests.unit.kafka.dead_letter_records import dead_letter, event, resolution

DLQ = LISTINGS_EVENTS + ".dlq"


def test_a_message_is_truncated_and_does_not_repeat_other_columns() -> None:
    read = stored_dead_letter(dead_letter(0, origin=(1, 9)))
    assert read.message == "listings.events[1]@9, listing lamp is bad"
    assert short_message(read) == "is bad"
    long = stored_dead_letter(dead_letter(0, error=InvalidEvent("x" * 500)))
    assert len(short_message(long)) == 72
    assert short_message(long).endswith("x…")


@given(
    st.binary(max_size=30),
    st.binary(max_size=30),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["shashin-error", "shashin-message", "shashin-step", "shashin-at", "app\x1b"]
            ),
            st.none() | st.binary(max_size=30),
        )
    ),
    st.sampled_from(sorted(MESSAGES)),
)
def test_any_record_can_be_shown_without_control_characters(
    key: bytes, value: bytes, headers: list[tuple[str, bytes | None]], topic: str
) -> None:
    record = InRecord(f"{topic}.dlq", 0, 0, 0, key, value, headers)
    (entry,) = entries_of([record])
    shown = io.StringIO()
    with redirect_stdout(shown):
        echo_table(COLUMNS, [row_of(entry)])
        echo_table(["", "value"], whole_rows(entry, record))
        echo(summary_line(counts([entry])))
    assert all(line.isprintable() for line in shown.getvalue().split("\n"))
    json.dumps([entry_document(entry), whole_document(entry, record)])


def test_the_summary_counts_by_topic_and_reason() -> None:
    records = [
        dead_letter(0, error=PhotoMissing("gone"), photo=0),
        dead_letter(1, error=PhotoMissing("gone"), photo=1),
        dead_letter(2),
        dead_letter(0, topic=IMAGES_DOWNLOADED),
    ]
    records.append(resolution(records[0], 3))
    assert summary_line(counts(entries_of(records))) == (
        "3 open, 1 resolved; listings.events: 2 PhotoMissing, 1 InvalidEvent; "
        "images.downloaded: 1 InvalidEvent"
    )


def test_an_entry_is_shown_in_full() -> None:
    record = dead_letter(3, origin=(1, 9), error=PhotoMissing("gone"), photo=1)
    (entry,) = entries_of([record, resolution(record, 4, "dropped")])
    rows = dict(whole_rows(entry, record))
    assert rows["state"].startswith("dropped at 1970-")
    assert rows["came from"] == "listings.events[1]@9"
    assert rows["scope"] == "photo 1"
    assert rows["header shashin-step"] == "downloader.validate"
    assert rows["event kind"] == "LISTED"
    assert rows["event photo 1"] == "file:///photos/1.jpg"
    assert rows["event attributes"] == "category lamps"
    document = whole_document(entry, record)
    assert document["came_from"] == {"topic": LISTINGS_EVENTS, "partition": 1, "offset": 9}
    assert document["event"]["photos"][1] == {"photo_number": 1, "uri": "file:///photos/1.jpg"}
    assert document["resolution"]["how"] == "dropped"


def test_a_value_that_cannot_be_parsed_shows_its_first_bytes() -> None:
    record = dead_letter(3, value=b"\xff\xfe")
    (entry,) = entries_of([record])
    assert whole_document(entry, record)["value_begins"] == "fffe"
    assert ("", "not a message of listings.events; starts with ff fe") in whole_rows(entry, record)


def test_thumbnails_and_vectors_are_shown_by_their_size() -> None:
    downloaded = events_pb2.DownloadedListing(
        listing_id="lamp",
        version=2,
        photos=[
            events_pb2.DownloadedPhoto(photo_number=0, uri="file:///a", thumbnail=bytes(1000)),
            events_pb2.DownloadedPhoto(
                photo_number=1,
                uri="file:///b",
                failure=events_pb2.PhotoFailure(reason="PhotoEmpty", message="no bytes"),
            ),
        ],
    )
    shown = readable_event(IMAGES_DOWNLOADED, downloaded.SerializeToString())
    assert shown is not None
    assert shown["photos"] == [
        {"photo_number": 0, "uri": "file:///a", "thumbnail_bytes": 1000},
        {
            "photo_number": 1,
            "uri": "file:///b",
            "failure": {"reason": "PhotoEmpty", "message": "no bytes"},
        },
    ]
    embedded = events_pb2.EmbeddedListing(
        listing_id="lamp",
        model_id="m",
        dimensions=2,
        vectors=[events_pb2.PhotoVector(photo_number=4, vector=bytes(4))],
    )
    shown = readable_event(VECTORS_EMBEDDED, embedded.SerializeToString())
    assert shown is not None
    assert shown["photos"] == [{"photo_number": 4, "vector_bytes": 4}]


def test_an_unknown_kind_or_time_is_shown_as_a_number() -> None:
    message = events_pb2.ListingEvent.FromString(event())
    message.occurred_at.seconds = 2**60
    shown = readable_event(LISTINGS_EVENTS, message.SerializeToString() + b"\x18\x63")
    assert shown is not None
    assert shown["kind"] == "99"
    assert str(2**60) in shown["occurred_at"]
