"""Invalid and unusual photos and events: searchable, or a dead letter with the reason."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from PIL import Image

from shashin.client.listing_events import (
    LISTED,
    SOLD,
    UPDATED,
    ListingAttributes,
    listing_event,
    record_of,
)
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.photos import thumbnail
from shashin.v1 import events_pb2
from tests.support.odd_photos import ODD, bomb, picture, saved, sixteen_bit_grey
from tests.support.rendered_listings import photo_of
from tests.support.running_system import ConnectedSystem, NewDeadLetters
from tests.support.waiting import until

GOOD = photo_of(200)


@pytest.fixture(autouse=True)
async def _nothing_is_restarted(system: ConnectedSystem) -> AsyncIterator[None]:
    before = system.system.pids()
    yield
    assert system.system.pids() == before


@pytest.fixture
async def dead_letters(system: ConnectedSystem) -> NewDeadLetters:
    """Dead letters of listing events since the test began."""
    return await system.new_dead_letters_of(LISTINGS_EVENTS)


async def dead_letters_of(
    dead_letters: NewDeadLetters, key: bytes | None, count: int = 1
) -> list[InRecord]:
    """Wait for the dead letters of a listing; returns them in the order of the log."""

    async def there() -> list[InRecord]:
        found = [dead_letter for dead_letter in await dead_letters.look() if dead_letter.key == key]
        return found if len(found) >= count else []

    found: list[InRecord] = await until(there, f"{count} dead letters of {key!r}")
    assert len(found) == count
    return found


def headers_of(dead_letter: InRecord) -> dict[str, str]:
    return {
        name.removeprefix("shashin-"): value.decode()
        for name, value in dead_letter.headers
        if value is not None
    }


# --- photos that are to be found ----------------------------------------------------------------


@pytest.mark.parametrize(("number", "kind"), list(enumerate(ODD, start=210)))
async def test_a_photo_of_an_unusual_kind_is_found_by_the_same_picture_in_plain_rgb(
    system: ConnectedSystem, number: int, kind: str
) -> None:
    upright = picture(number)
    await system.publish(kind, [ODD[kind](upright)])
    await system.until_versions({kind: 1})
    first, second = (await system.complete_answer(photo=saved(upright, "PNG"), k=2)).hits
    assert first.listing_id == kind
    assert first.score > 0.97
    assert first.score > second.score + 0.02


async def test_a_grey_photo_of_16_bits_is_found_by_the_same_picture_of_8(
    system: ConnectedSystem,
) -> None:
    grey = picture(220).convert("L")
    await system.publish("16-bit grey", [sixteen_bit_grey(grey)])
    await system.until_versions({"16-bit grey": 1})
    first = (await system.complete_answer(photo=saved(grey, "PNG"))).hits[0]
    assert first.listing_id == "16-bit grey"
    assert first.score > 0.99


async def test_an_exif_rotated_photo_is_searched_upright(system: ConnectedSystem) -> None:
    upright = picture(221)
    lying = ODD["EXIF-rotated JPEG"](upright)
    await system.publish("lying", [lying])
    await system.until_versions({"lying": 1})
    by_itself = (await system.complete_answer(photo=lying)).hits[0]
    assert (by_itself.listing_id, by_itself.score > 0.99) == ("lying", True)
    # How a viewer that ignores EXIF orientation would show it.
    turned = saved(Image.open(io.BytesIO(lying)).convert("RGB"), "PNG")
    answer = await system.complete_answer(photo=turned, k=500)
    (hit,) = [hit for hit in answer.hits if hit.listing_id == "lying"]
    assert hit.score < 0.95


# --- photos that are rejected -------------------------------------------------------------------

Place = Callable[[ConnectedSystem, Path], str]
"""Puts a broken photo somewhere; returns its URI."""


def _holding(name: str, make: Callable[[], bytes]) -> Place:
    return lambda system, _folder: system.photo_uri(f"broken/{name}", make())


def _in_the_photos(name: str) -> Place:
    return lambda system, _folder: (system.system.photos / name).as_uri()


def _huge(system: ConnectedSystem, _folder: Path) -> str:
    uri = system.photo_uri("broken/huge", b"")
    with (system.system.photos / "tests" / "broken" / "huge").open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    return uri


def _elsewhere(_system: ConnectedSystem, folder: Path) -> str:
    (folder / "private.jpg").write_bytes(GOOD)
    return (folder / "private.jpg").as_uri()


def _link_to_elsewhere(system: ConnectedSystem, folder: Path) -> str:
    _elsewhere(system, folder)
    link = system.system.photos / "link.jpg"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "private.jpg")
    return link.as_uri()


BROKEN: dict[str, tuple[Place, str]] = {
    "missing": (_in_the_photos("nowhere.jpg"), "PhotoMissing"),
    "a folder": (_in_the_photos("tests"), "PhotoMissing"),
    "empty": (_holding("empty", lambda: b""), "PhotoEmpty"),
    "truncated": (_holding("truncated", lambda: GOOD[: len(GOOD) // 3]), "PhotoUndecodable"),
    "text": (_holding("text", lambda: b"this is not a photo\n" * 50), "PhotoUndecodable"),
    "bomb": (_holding("bomb", bomb), "PhotoTooLarge"),
    "too many bytes": (_huge, "PhotoTooLarge"),
    "outside of the roots": (_elsewhere, "PhotoForbidden"),
    "a link to the outside": (_link_to_elsewhere, "PhotoForbidden"),
    "of an unknown scheme": (lambda _s, _f: "gopher://example.org/a.jpg", "PhotoForbidden"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_photo_is_dead_lettered_and_the_listings_other_photos_are_searchable(
    system: ConnectedSystem, dead_letters: NewDeadLetters, tmp_path: Path, kind: str
) -> None:
    place, reason = BROKEN[kind]
    uris = [
        system.photo_uri("whole", GOOD),
        place(system, tmp_path),
        system.photo_uri("another", photo_of(201)),
    ]
    sent = record_of(listing_event(kind, 1, LISTED, photo_uris=uris))
    await system.write(sent)
    (dead_letter,) = await dead_letters_of(dead_letters, kind.encode())
    headers = headers_of(dead_letter)
    assert dead_letter.topic == f"{LISTINGS_EVENTS}.dlq"
    assert dead_letter.value == sent.value
    assert headers["error"] == reason
    assert (headers["scope"], headers["photo-number"]) == ("photo", "1")
    assert (headers["step"], headers["attempts"]) == ("downloader.fetch", "1")
    assert headers["message"]
    assert await _came_from(system, sent) == (
        headers["topic"],
        int(headers["partition"]),
        int(headers["offset"]),
    )
    await system.until_versions({kind: 1})
    found = await system.router.locate([kind])
    assert list(found[kind].photo_numbers) == [0, 2]


async def test_a_listing_without_a_usable_photo_is_one_dead_letter_that_names_each(
    system: ConnectedSystem, dead_letters: NewDeadLetters, tmp_path: Path
) -> None:
    uris = [place(system, tmp_path) for place, _ in BROKEN.values()]
    sent = record_of(listing_event("hopeless", 1, LISTED, photo_uris=uris))
    await system.write(sent)
    (dead_letter,) = await dead_letters_of(dead_letters, b"hopeless")
    headers = headers_of(dead_letter)
    topic, partition, offset = await _came_from(system, sent)
    assert dead_letter.value == sent.value
    assert (headers["error"], headers["scope"]) == ("NoUsablePhoto", "record")
    assert headers["message"].startswith(f"{topic}[{partition}]@{offset}, listing hopeless: ")
    for number, (_, reason) in enumerate(BROKEN.values()):
        assert f"photo {number}: {reason}: " in headers["message"]
    await _assert_processing_continues(system, "after-hopeless")
    assert "hopeless" not in await system.router.locate(["hopeless"])


# --- events that are rejected -------------------------------------------------------------------


def _event(
    listing_id: str,
    photos: int = 1,
    *,
    version: int = 1,
    kind: events_pb2.ListingKind.ValueType = LISTED,
    attributes: ListingAttributes | None = None,
) -> events_pb2.ListingEvent:
    uris = [f"file:///photos/{number}.jpg" for number in range(photos)]
    return listing_event(listing_id, version, kind, photo_uris=uris, attributes=attributes)


def _with_key(event: events_pb2.ListingEvent, key: bytes | None) -> OutRecord:
    return OutRecord(LISTINGS_EVENTS, key, event.SerializeToString())


REFUSED: dict[str, tuple[OutRecord, str, str]] = {
    "not parsable": (
        OutRecord(LISTINGS_EVENTS, b"not parsable", b"\xff\xfe not protobuf"),
        "UnparsableRecord",
        "is not a ListingEvent",
    ),
    "empty": (OutRecord(LISTINGS_EVENTS, b"empty", b""), "InvalidEvent", "has no listing_id"),
    "no id": (_with_key(_event(""), b"no id"), "InvalidEvent", "has no listing_id"),
    "long id": (_with_key(_event("x" * 257), b"long id"), "InvalidEvent", "of 257 bytes"),
    "another key": (
        _with_key(_event("key-owner"), b"another key"),
        "InvalidEvent",
        "listing key-owner has the key 'another key'",
    ),
    "no key": (_with_key(_event("no key"), None), "InvalidEvent", "has the key ''"),
    "a key that is no text": (
        _with_key(_event("no text"), b"\xff\xfe"),
        "InvalidEvent",
        "listing no text has the key",
    ),
    "version 0": (
        record_of(_event("version 0", version=0)),
        "InvalidEvent",
        "has version 0; expected 1 to",
    ),
    "no kind": (
        record_of(_event("no kind", kind=events_pb2.LISTING_KIND_UNSPECIFIED)),
        "InvalidEvent",
        "expected LISTED, UPDATED, SOLD or REMOVED",
    ),
    "21 photos": (
        record_of(_event("21 photos", photos=21)),
        "TooManyPhotos",
        "has 21 photos; at most 20",
    ),
    "no photos": (record_of(_event("no photos", photos=0)), "InvalidEvent", "has no photos"),
    "price without currency": (
        record_of(_event("price without currency", attributes=ListingAttributes(price_minor=1200))),
        "InvalidEvent",
        "a price without a currency",
    ),
    "bad currency": (
        record_of(
            _event("bad currency", attributes=ListingAttributes(price_minor=1200, currency="euro"))
        ),
        "InvalidEvent",
        "has currency 'euro'",
    ),
    "negative price": (
        record_of(
            _event("negative price", attributes=ListingAttributes(price_minor=-1, currency="JPY"))
        ),
        "InvalidEvent",
        "has price_minor -1",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_rejected_event_is_dead_lettered_unchanged_and_processing_continues(
    system: ConnectedSystem, dead_letters: NewDeadLetters, kind: str
) -> None:
    sent, reason, words = REFUSED[kind]
    await system.write(sent)
    (dead_letter,) = await dead_letters_of(dead_letters, sent.key)
    headers = headers_of(dead_letter)
    topic, partition, offset = await _came_from(system, sent)
    assert dead_letter.topic == f"{LISTINGS_EVENTS}.dlq"
    assert dead_letter.value == sent.value
    assert (headers["error"], headers["scope"]) == (reason, "record")
    assert (headers["step"], headers["attempts"]) == ("downloader.validate", "1")
    assert headers["message"].startswith(f"{topic}[{partition}]@{offset}")
    assert words in headers["message"]
    assert (headers["topic"], headers["partition"], headers["offset"]) == (
        topic,
        str(partition),
        str(offset),
    )
    await _assert_processing_continues(system, f"after-{kind}")


@pytest.mark.parametrize("kind", [UPDATED, SOLD])
async def test_a_version_that_goes_backwards_is_a_dead_letter_and_the_newer_one_stays(
    system: ConnectedSystem, dead_letters: NewDeadLetters, kind: events_pb2.ListingKind.ValueType
) -> None:
    listing_id = f"backwards-{kind}"
    await system.publish(listing_id, [GOOD], version=5)
    await system.until_versions({listing_id: 5})
    photos = [GOOD] if kind == UPDATED else []
    await system.publish(listing_id, photos, version=4, kind=kind)
    (dead_letter,) = await dead_letters_of(dead_letters, listing_id.encode())
    headers = headers_of(dead_letter)
    assert headers["error"] == "StaleVersion"
    assert headers["message"].startswith(f"{LISTINGS_EVENTS}[")
    assert f"listing {listing_id} has version 4 after version 5" in headers["message"]
    await _assert_processing_continues(system, f"after-{listing_id}")
    await system.until_versions({listing_id: 5})


# --- records inside the pipeline ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "step"), [(IMAGES_DOWNLOADED, "embedder.parse"), (VECTORS_EMBEDDED, "indexer.parse")]
)
async def test_a_record_between_two_services_that_does_not_parse_stops_neither(
    system: ConnectedSystem, topic: str, step: str
) -> None:
    dead_letters = await system.new_dead_letters_of(topic)
    sent = OutRecord(topic, f"broken in {topic}".encode(), b"\xff\xfe not protobuf")
    await system.write(sent)
    (dead_letter,) = await dead_letters_of(dead_letters, sent.key)
    headers = headers_of(dead_letter)
    assert dead_letter.topic == f"{topic}.dlq"
    assert dead_letter.value == sent.value
    assert (headers["error"], headers["step"], headers["attempts"]) == (
        "UnparsableRecord",
        step,
        "1",
    )
    assert headers["message"].startswith(f"{topic}[{headers['partition']}]@{headers['offset']}")
    await _assert_processing_continues(system, f"after-{topic}")


async def test_a_broken_thumbnail_removes_only_that_photo_from_the_listing(
    system: ConnectedSystem,
) -> None:
    dead_letters = await system.new_dead_letters_of(IMAGES_DOWNLOADED)
    listing = events_pb2.DownloadedListing(
        listing_id="broken-thumbnail",
        version=1,
        kind=LISTED,
        photos=[
            events_pb2.DownloadedPhoto(photo_number=0, thumbnail=b"broken"),
            events_pb2.DownloadedPhoto(photo_number=1, thumbnail=thumbnail(GOOD)),
        ],
    )
    await system.write(
        OutRecord(IMAGES_DOWNLOADED, b"broken-thumbnail", listing.SerializeToString())
    )
    (dead_letter,) = await dead_letters_of(dead_letters, b"broken-thumbnail")
    headers = headers_of(dead_letter)
    assert dead_letter.topic == f"{IMAGES_DOWNLOADED}.dlq"
    assert (headers["error"], headers["step"]) == ("PhotoUndecodable", "embedder.decode")
    assert (headers["scope"], headers["photo-number"]) == ("photo", "0")
    await system.until_versions({"broken-thumbnail": 1})
    found = await system.router.locate(["broken-thumbnail"])
    assert list(found["broken-thumbnail"].photo_numbers) == [1]


async def test_a_vector_of_another_length_is_a_dead_letter_and_leaves_no_gap(
    system: ConnectedSystem,
) -> None:
    dead_letters = await system.new_dead_letters_of(VECTORS_EMBEDDED)
    listing = events_pb2.EmbeddedListing(
        listing_id="short-vector",
        version=1,
        kind=LISTED,
        model_id=system.system.model_id,
        dimensions=128,
        vectors=[events_pb2.PhotoVector(photo_number=0, vector=b"\0" * 64)],
    )
    await system.write(OutRecord(VECTORS_EMBEDDED, b"short-vector", listing.SerializeToString()))
    (dead_letter,) = await dead_letters_of(dead_letters, b"short-vector")
    headers = headers_of(dead_letter)
    assert dead_letter.topic == f"{VECTORS_EMBEDDED}.dlq"
    assert (headers["error"], headers["step"]) == ("WrongVector", "indexer.parse")
    await _assert_processing_continues(system, "after-short-vector")
    assert (await system.complete_answer(photo=GOOD)).coverage.complete
    assert "short-vector" not in await system.router.locate(["short-vector"])


async def _assert_processing_continues(system: ConnectedSystem, listing_id: str) -> None:
    await system.publish(listing_id, [GOOD])
    await system.until_versions({listing_id: 1})


async def _came_from(system: ConnectedSystem, sent: OutRecord) -> tuple[str, int, int]:
    """Return topic, partition and offset of the record."""
    tail = (await system.tails(sent.topic))[sent.topic]
    records = await tail.new_records(lambda record: record.value == sent.value)
    (record,) = [record for record in records if record.key == sent.key]
    return record.topic, record.partition, record.offset
