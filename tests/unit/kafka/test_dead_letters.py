"""A dead letter is the unchanged record with the cause in its headers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import InvalidEvent, PhotoMissing, ShashinError, TooManyPhotos
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, MAX_DEAD_LETTER_BYTES

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: not name.startswith("shashin-"))
RECORDS = st.builds(
    InRecord,
    topic=st.sampled_from([LISTINGS_EVENTS, IMAGES_DOWNLOADED]),
    partition=st.integers(0, 99),
    offset=st.integers(0, 2**62),
    timestamp_ms=st.integers(0, 2**41),
    key=st.none() | st.binary(max_size=20),
    value=st.binary(max_size=50),
    headers=st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=10)), max_size=4),
)


def record(headers: Sequence[tuple[str, bytes | None]] = ()) -> InRecord:
    return InRecord(LISTINGS_EVENTS, 3, 42, 0, b"lamp", b"\xff no protobuf", headers)


@given(RECORDS, st.text(), st.integers(1, 100))
def test_the_record_is_kept_unchanged_and_the_cause_is_in_the_headers(
    taken: InRecord, message: str, attempts: int
) -> None:
    dead_letter = DeadLetter(taken, InvalidEvent(message), "downloader.check", attempts).as_record()
    assert dead_letter.topic == f"{taken.topic}.dlq"
    assert (dead_letter.key, dead_letter.value) == (taken.key, taken.value)
    assert Counter(taken.headers) <= Counter(dead_letter.headers)
    cause = {
        name: value.decode()
        for name, value in dead_letter.headers
        if name.startswith("shashin-") and value is not None
    }
    at = cause.pop("shashin-at")
    assert int(at) > 0
    assert cause == {
        "shashin-error": "InvalidEvent",
        "shashin-message": message,
        "shashin-step": "downloader.check",
        "shashin-attempts": str(attempts),
        "shashin-scope": "record",
        "shashin-topic": taken.topic,
        "shashin-partition": str(taken.partition),
        "shashin-offset": str(taken.offset),
    }


def test_a_photo_that_is_dead_lettered_is_named_by_its_number() -> None:
    dead_letter = DeadLetter(record(), PhotoMissing("gone"), "downloader.fetch", 5, "photo", 0)
    headers = dict(dead_letter.as_record().headers)
    assert headers["shashin-scope"] == b"photo"
    assert headers["shashin-photo-number"] == b"0"
    assert headers["shashin-attempts"] == b"5"


def test_a_fully_dead_lettered_record_names_no_photo() -> None:
    dead_letter = DeadLetter(record(), InvalidEvent("bad"), "downloader.check")
    assert "shashin-photo-number" not in dict(dead_letter.as_record().headers)


def test_a_replayed_record_that_is_dead_lettered_again_has_only_its_last_cause() -> None:
    def dead_lettered(
        headers: Sequence[tuple[str, bytes | None]], error: ShashinError
    ) -> DeadLetter:
        return DeadLetter(record(headers), error, "downloader.check")

    first = dead_lettered([("trace", b"1")], InvalidEvent("no listing_id")).as_record()
    again = dead_lettered(first.headers, TooManyPhotos("21 photos")).as_record()
    names = [name for name, _ in again.headers]
    assert len(names) == len(set(names))
    assert dict(again.headers)["shashin-error"] == b"TooManyPhotos"
    assert dict(again.headers)["trace"] == b"1"


def test_a_dead_letter_always_fits_and_says_what_was_left_out() -> None:
    value = bytes(range(256)) * 100_000
    large = InRecord(
        LISTINGS_EVENTS, 3, 42, 0, bytes(1_000_000), value, [("trace", bytes(2_000_000))]
    )
    dead_letter = DeadLetter(large, InvalidEvent("x" * 1_000_000), "downloader.check").as_record()
    headers = dict(dead_letter.headers)
    size = sum(len(name) + len(value or b"") for name, value in dead_letter.headers)
    assert size + len(dead_letter.key or b"") + len(dead_letter.value) < MAX_DEAD_LETTER_BYTES
    assert value.startswith(dead_letter.value)
    assert headers["shashin-truncated-from"] == b"25600000"
    assert headers["shashin-sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert headers["shashin-key-truncated-from"] == b"1000000"
    assert headers["shashin-headers-left-out"] == b"1 with 2000015 bytes"
    assert (headers["shashin-partition"], headers["shashin-offset"]) == (b"3", b"42")


@given(RECORDS)
def test_what_fits_is_not_truncated(taken: InRecord) -> None:
    dead_letter = DeadLetter(taken, InvalidEvent("bad"), "downloader.check").as_record()
    assert not any(name.startswith("shashin-trunc") for name, _ in dead_letter.headers)
