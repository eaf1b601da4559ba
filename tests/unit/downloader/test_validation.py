"""Event validation and version checks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.downloader.validation import parse_event
from services.downloader.versions import NewestVersions
from shashin.errors import InvalidEvent, RecordError, StaleVersion, TooManyPhotos, UnparsableRecord
from shashin.kafka.records import InRecord
from shashin.v1 import events_pb2


def record(value: bytes, key: bytes | None = b"lamp") -> InRecord:
    return InRecord("listings.events", 1, 42, 0, key, value)


def event(**changes: object) -> events_pb2.ListingEvent:
    fields: dict[str, object] = {
        "listing_id": "lamp",
        "version": 1,
        "kind": events_pb2.LISTING_KIND_LISTED,
        "photo_uris": ["file:///a.jpg"],
        **changes,
    }
    return events_pb2.ListingEvent(**fields)  # type: ignore[arg-type]


def test_a_valid_event_is_returned_unchanged() -> None:
    valid = event(attributes=events_pb2.Attributes(category="lamps", price_minor=5, currency="JPY"))
    assert parse_event(record(valid.SerializeToString())) == valid


@pytest.mark.parametrize("kind", [events_pb2.LISTING_KIND_SOLD, events_pb2.LISTING_KIND_REMOVED])
def test_a_sale_needs_no_photo(kind: int) -> None:
    assert parse_event(record(event(kind=kind, photo_uris=[]).SerializeToString()))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"listing_id": ""}, InvalidEvent, "has no listing_id"),
        ({"listing_id": "x" * 257}, InvalidEvent, "listing_id of 257 bytes; expected 1 to 256"),
        ({"listing_id": "chair"}, InvalidEvent, "has the key 'lamp'"),
        ({"version": 0}, InvalidEvent, "version 0; expected 1 to 9223372036854775806"),
        ({"version": 2**64 - 1}, InvalidEvent, "expected 1 to 9223372036854775806"),
        ({"kind": 0}, InvalidEvent, "kind 0; expected LISTED"),
        ({"kind": 77}, InvalidEvent, "kind 77"),
        ({"photo_uris": []}, InvalidEvent, "has no photos"),
        ({"photo_uris": ["file:///a.jpg"] * 21}, TooManyPhotos, "21 photos; at most 20"),
        (
            {"photo_uris": ["file:///" + "a" * 5000]},
            InvalidEvent,
            "photo 0 has a URI of 5008 bytes; at most 4096",
        ),
        ({"attributes": {"category": "c" * 257}}, InvalidEvent, "category of 257 bytes"),
        ({"attributes": {"brand": "ü" * 200}}, InvalidEvent, "brand of 400 bytes"),
        ({"attributes": {"price_minor": -1}}, InvalidEvent, "price_minor -1"),
        ({"attributes": {"price_minor": 1}}, InvalidEvent, "price without a currency"),
        ({"attributes": {"currency": "yen"}}, InvalidEvent, "currency 'yen'"),
    ],
)
def test_each_error_names_the_field_and_the_record(
    changes: dict[str, object], error: type[RecordError], message: str
) -> None:
    with pytest.raises(error, match=message) as failed:
        parse_event(record(event(**changes).SerializeToString()))
    assert "listings.events[1]@42" in failed.value.message


@pytest.mark.parametrize("value", [b"\xff\xff", b"not protobuf", b"\x0a\x02\xc3\x28"])
def test_unparsable_values_are_rejected(value: bytes) -> None:
    with pytest.raises(UnparsableRecord, match="is not a ListingEvent"):
        parse_event(record(value))


@given(value=st.binary(max_size=200), key=st.none() | st.binary(max_size=20))
def test_any_bytes_yield_an_event_or_a_record_error(value: bytes, key: bytes | None) -> None:
    with suppress(RecordError):
        assert parse_event(record(value, key)).listing_id


Check = Callable[[str, int], None]


def checker(versions: NewestVersions, partition: int = 0) -> Check:
    """Return a check of consecutive records of the log."""
    offsets = itertools.count()

    def check(listing: str, version: int) -> None:
        versions.check(at(next(offsets), partition), listing, version)

    return check


def at(offset: int, partition: int = 0) -> InRecord:
    return InRecord("listings.events", partition, offset, 0, b"", b"")


def test_an_older_version_that_precedes_the_newest_in_the_log_is_accepted() -> None:
    versions = NewestVersions(10)
    versions.check(at(7), "lamp", 1)
    versions.check(at(8), "lamp", 2)
    versions.check(at(7), "lamp", 1)  # retried or redelivered
    with pytest.raises(StaleVersion, match=r"listings\.events\[0\]@9, listing lamp has version 1"):
        versions.check(at(9), "lamp", 1)


def test_a_version_that_goes_backwards_is_rejected_and_a_repeat_is_not() -> None:
    check = checker(NewestVersions(10))
    check("lamp", 1)
    check("lamp", 5)
    check("lamp", 5)
    with pytest.raises(StaleVersion, match="listing lamp has version 4 after version 5"):
        check("lamp", 4)
    check("chair", 1)
    check("lamp", 6)


def test_the_least_recently_seen_listing_is_evicted() -> None:
    check = checker(NewestVersions(2))
    for listing in ("a", "b", "c"):
        check(listing, 9)
    check("a", 1)  # evicted, so not known to be older
    with pytest.raises(StaleVersion):
        check("c", 1)


def test_lost_partitions_are_forgotten_and_others_are_not() -> None:
    versions = NewestVersions(10)
    checker(versions, 0)("lamp", 9)
    checker(versions, 1)("chair", 9)
    versions.forget([0])
    checker(versions, 0)("lamp", 1)
    with pytest.raises(StaleVersion):
        checker(versions, 1)("chair", 1)
