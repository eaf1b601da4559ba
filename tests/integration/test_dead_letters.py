"""Dead letters end to end: written, listed, fixed, replayed or dropped."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shashin.client.listing_events import LISTED, SOLD, listing_event, record_of
from shashin.client.topic_tails import new_dead_letters, topic_tails
from shashin.errors import InvalidEvent, PhotoMissing, ShashinError, WrongVector
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.dlq_entries import StoredDeadLetter
from shashin.kafka.dlq_topics import DlqTopics
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.topics import (
    DEAD_LETTER_TOPICS,
    IMAGES_DOWNLOADED,
    LISTINGS_EVENTS,
    LISTINGS_HIDDEN,
    TOPICS,
    VECTORS_EMBEDDED,
)
from shashin.v1 import events_pb2
from tests.support.embedded_listings import (
    DIMENSIONS,
    MODEL,
    IndexClient,
    embedded,
    hidden,
    vector_of,
)
from tests.support.running_service import RunningService
from tests.support.shashin_command import Finished, shashin
from tests.support.topic_records import records_of
from tests.support.waiting import until

DLQ = LISTINGS_EVENTS + ".dlq"

StartService = Callable[..., Awaitable[RunningService]]
Dlq = Callable[..., Awaitable[Finished]]


@pytest.fixture
def dlq(kafka: str, tmp_path: Path) -> Dlq:
    """Run ``shashin dlq`` with this Kafka."""
    return partial(
        shashin, "dlq", env={"SHASHIN_KAFKA": kafka}, state=tmp_path / "state", ends_with=None
    )


def document_of(ended: Finished) -> Any:
    """Return the JSON printed by a command, which must have succeeded."""
    assert ended.code == 0, ended
    return ended.document


async def test_where_nothing_was_dead_lettered_nothing_is_listed(dlq: Dlq) -> None:
    listed = await dlq("ls")
    assert (listed.code, listed.out, listed.err) == (0, "no open dead letters\n", "")
    assert document_of(await dlq("ls", "--json"))["dead_letters"] == []


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(jpeg())
    return folder


def jpeg(colour: str = "red") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (400, 300), colour).save(made, "JPEG")
    return made.getvalue()


def listed(listing_id: str, version: int, *photos: Path) -> OutRecord:
    uris = [photo.as_uri() for photo in photos]
    return record_of(listing_event(listing_id, version, LISTED, photo_uris=uris))


def dead(
    topic: str = LISTINGS_EVENTS,
    listing_id: str = "lamp",
    *,
    origin: tuple[int, int] = (0, 0),
    error: ShashinError | None = None,
    step: str = "downloader.validate",
    photo: int | None = None,
    value: bytes | None = None,
) -> OutRecord:
    """Return a dead letter as a service writes it; ``origin`` is partition and offset."""
    if value is None:
        value = events_pb2.ListingEvent(listing_id=listing_id, version=1).SerializeToString()
    return DeadLetter(
        InRecord(topic, *origin, 0, listing_id.encode(), value),
        error or InvalidEvent("it is bad"),
        step,
        scope="record" if photo is None else "photo",
        photo_number=photo,
    ).as_record()


async def open_entries(kafka: str, **fields: str) -> list[StoredDeadLetter]:
    """Return the open entries with these fields, directly from Kafka."""
    async with DlqTopics(kafka, client_id="test-look") as log:
        found = [entry.dead_letter for entry in await log.entries() if entry.open]
    return [li for li in found if all(getattr(li, name) == text for name, text in fields.items())]


async def open_ids(kafka: str) -> set[str]:
    return {str(dead_letter.entry_id) for dead_letter in await open_entries(kafka)}


async def until_open(kafka: str, count: int, **fields: str) -> list[StoredDeadLetter]:
    async def found() -> list[StoredDeadLetter] | None:
        dead_letters = await open_entries(kafka, **fields)
        return dead_letters if len(dead_letters) == count else None

    dead_letters: list[StoredDeadLetter] = await until(
        found, f"{count} dead letters {fields} are open"
    )
    return dead_letters


async def everything(kafka: str) -> dict[str, Sequence[InRecord]]:
    return {topic.name: await records_of(kafka, topic.name) for topic in TOPICS}


def assert_one_line(ended: Finished, code: int, *words: str) -> None:
    assert ended.code == code, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert all(word in ended.err for word in words), ended.err


async def test_a_fixed_photo_is_replayed_on_its_partition_and_its_entry_is_resolved(
    start_service: StartService, kafka: str, producer: Producer, dlq: Dlq, photos: Path
) -> None:
    await start_service("downloader", photo_roots=photos)
    late = photos / "late.jpg"
    await producer.send_all(
        [
            OutRecord(LISTINGS_EVENTS, b"broken", b"\xff\xff"),
            *(listed(f"lamp-{i}", 1, photos / "good.jpg", late) for i in range(4)),
        ]
    )
    await until_open(kafka, 5)
    found = document_of(await dlq("ls", "--json"))["dead_letters"]
    reasons = sorted(dead_letter["reason"] for dead_letter in found)
    assert reasons == ["PhotoMissing"] * 4 + ["UnparsableRecord"]
    (dead_letter,) = [dead_letter for dead_letter in found if dead_letter["listing_id"] == "lamp-2"]
    table = (await dlq("ls", "--listing", "lamp-2")).out
    assert dead_letter["id"] in table
    assert "1 open; listings.events: 1 PhotoMissing" in table
    (shown,) = document_of(await dlq("show", dead_letter["id"], "--json"))
    assert (shown["scope"], shown["photo_number"]) == ("photo", 1)
    assert shown["step"] == "downloader.fetch"
    assert shown["event"]["photos"][1]["uri"] == late.as_uri()
    before = await records_of(kafka, IMAGES_DOWNLOADED)
    assert len(before) == 4

    late.write_bytes(jpeg("blue"))
    replayed = document_of(await dlq("replay", "--reason", "PhotoMissing", "--json"))
    assert len(replayed["replayed"]) == 4

    async def arrived() -> list[InRecord] | None:
        records = await records_of(kafka, IMAGES_DOWNLOADED)
        return records if len(records) == 8 else None

    await until(arrived, "the replayed listings are downloaded")
    partition_of = {record.key: record.partition for record in before}
    for record in await records_of(kafka, IMAGES_DOWNLOADED):
        assert record.partition == partition_of[record.key]
        if record in before:
            continue
        listing = events_pb2.DownloadedListing.FromString(record.value)
        assert listing.version == 1
        assert [photo.WhichOneof("outcome") for photo in listing.photos] == ["thumbnail"] * 2
    (left,) = await open_entries(kafka)
    assert left.reason == "UnparsableRecord"
    (shown,) = document_of(await dlq("show", dead_letter["id"], "--json"))
    assert shown["resolution"]["how"] == "replayed"
    twice = [r for r in await records_of(kafka, LISTINGS_EVENTS) if r.key == b"lamp-2"]
    assert [(r.value, list(r.headers)) for r in twice] == [(twice[0].value, [])] * 2


async def test_a_replay_without_a_fix_is_a_new_dead_letter(
    start_service: StartService, kafka: str, producer: Producer, dlq: Dlq, photos: Path
) -> None:
    await start_service("downloader", photo_roots=photos)
    await producer.send_all([listed("lamp", 1, photos / "missing.jpg")])
    (first,) = await until_open(kafka, 1, reason="NoUsablePhoto")
    assert (await dlq("replay", str(first.entry_id))).code == 0

    async def again() -> bool:
        ids = {
            dead_letter.entry_id
            for dead_letter in await open_entries(kafka, reason="NoUsablePhoto")
        }
        return ids != set() and first.entry_id not in ids

    await until(again, "it failed again")


async def test_a_dry_run_shows_what_would_be_done_and_changes_nothing(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    await producer.send_all([dead(), dead(origin=(1, 5), listing_id="chair")])
    before = await everything(kafka)
    replayed = document_of(await dlq("replay", "--all-open", "--dry-run", "--json"))
    assert [replay["record"] for replay in replayed["replayed"]] == [
        "listings.events[0]@0",
        "listings.events[1]@5",
    ]
    assert "2 dead letters would be dropped" in (await dlq("drop", "--all-open", "--dry-run")).out
    assert await everything(kafka) == before
    assert len(await open_ids(kafka)) == 2


async def test_a_replayed_version_of_a_sold_listing_does_not_become_visible(
    start_service: StartService, producer: Producer, dlq: Dlq, tmp_path: Path
) -> None:
    indexer = await start_service(
        "indexer",
        model_id=MODEL,
        dimensions=DIMENSIONS,
        repository=(tmp_path / "repository").as_uri(),
        work_folder=tmp_path / "work",
        discovery=(tmp_path / "discovery.json").as_uri(),
    )
    version_1 = embedded("lamp", 1).value
    dead_letter = dead(VECTORS_EMBEDDED, error=WrongVector("it was bad"), value=version_1)
    await producer.send_all([dead_letter, hidden("lamp", 3), embedded("chair")])
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("chair"), "the chair is found")
        assert (await dlq("replay", "--listing", "lamp")).code == 0

        async def is_indexed() -> bool:
            return (await client.describe()).rows == 2

        await until(is_indexed, "the replayed version is in the index")

        async def is_hidden() -> bool:
            return (await client.nearest(vector_of("lamp"), k=5)) == [("chair", 1, 0)]

        await until(is_hidden, "only the chair is found")
        assert (await client.describe()).hidden_rows == 1


async def test_an_event_that_is_replayed_after_a_newer_one_is_dead_lettered_as_stale(
    start_service: StartService, kafka: str, producer: Producer, dlq: Dlq, photos: Path
) -> None:
    await start_service("downloader", photo_roots=photos)
    late = photos / "late.jpg"
    await producer.send_all([listed("lamp", 1, late), record_of(listing_event("lamp", 2, SOLD))])
    await until_open(kafka, 1)

    async def sold() -> bool:
        return len(await records_of(kafka, LISTINGS_HIDDEN)) == 1

    await until(sold, "the lamp is hidden")
    late.write_bytes(jpeg())
    assert (await dlq("replay", "--listing", "lamp")).code == 0

    await until_open(kafka, 1, reason="StaleVersion")
    assert await records_of(kafka, IMAGES_DOWNLOADED) == []


async def test_entries_of_one_record_are_replayed_once_and_all_are_resolved(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    await producer.send_all([dead(photo=0), dead(photo=1), dead(origin=(0, 1), photo=0)])
    replayed = document_of(await dlq("replay", f"{DLQ}:1", "--json"))
    (replay,) = replayed["replayed"]
    assert replay["entries"] == [f"{DLQ}:0", f"{DLQ}:1"]
    assert len(await records_of(kafka, LISTINGS_EVENTS)) == 1
    assert await open_ids(kafka) == {f"{DLQ}:2"}


async def test_a_dropped_entry_is_resolved_and_not_replayed(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    await producer.send_all([dead(), dead(origin=(1, 5))])
    assert "1 dead letters dropped" in (await dlq("drop", f"{DLQ}:0")).out
    assert await open_ids(kafka) == {f"{DLQ}:1"}
    with_resolved = document_of(await dlq("ls", "--all", "--json"))
    states = {
        li["id"]: li["resolution"] and li["resolution"]["how"]
        for li in with_resolved["dead_letters"]
    }
    assert states == {f"{DLQ}:0": "dropped", f"{DLQ}:1": None}
    assert await records_of(kafka, LISTINGS_EVENTS) == []
    # Other readers do not take the record that dropped it for a dead letter either.
    async with topic_tails(kafka, DEAD_LETTER_TOPICS) as tails:
        assert [dead_letter.offset for dead_letter in await new_dead_letters(tails)] == [0, 5]


async def test_filters_select_exactly_the_matching_entries(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    missing = PhotoMissing("gone")
    foreign = OutRecord(DLQ, b"stranger", b"\xff")
    await producer.send_all(
        [
            dead(),
            dead(listing_id="chair", error=missing, step="downloader.fetch", photo=0),
            dead(IMAGES_DOWNLOADED, step="embedder.parse"),
            foreign,
        ]
    )
    images = f"{IMAGES_DOWNLOADED}.dlq:0"
    expected: dict[tuple[str, ...], set[str]] = {
        ("--topic", f"{LISTINGS_EVENTS}.dlq"): {f"{DLQ}:0", f"{DLQ}:1", f"{DLQ}:2"},
        ("--reason", "InvalidEvent", "--since", "1h"): {f"{DLQ}:0", images},
        ("--step", "downloader", "--listing", "lamp"): {f"{DLQ}:0"},
        ("--until", "1h"): set(),
        ("--limit", "4"): {f"{DLQ}:0", f"{DLQ}:1", f"{DLQ}:2", images},
    }
    for filters, ids in expected.items():
        found = document_of(await dlq("ls", "--json", *filters))["dead_letters"]
        assert {dead_letter["id"] for dead_letter in found} == ids, filters
    dropped = document_of(await dlq("drop", "--step", "downloader.fetch", "--json"))
    assert [dead_letter["id"] for dead_letter in dropped["dropped"]] == [f"{DLQ}:1"]
    assert await open_ids(kafka) == {f"{DLQ}:0", f"{DLQ}:2", images}


async def test_a_foreign_record_stays_open_and_is_reported_while_the_others_are_replayed(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    await producer.send_all([OutRecord(DLQ, b"stranger", b"\xff"), dead(origin=(1, 5))])
    ended = await dlq("replay", "--all-open", "--json")
    assert ended.code == 1
    assert f"{DLQ}:0 cannot be replayed" in ended.err
    assert await open_ids(kafka) == {f"{DLQ}:0"}
    (sent,) = await records_of(kafka, LISTINGS_EVENTS)
    assert sent.partition == 1


async def test_entries_with_null_and_odd_headers_are_listed_shown_and_replayed(
    start_service: StartService, kafka: str, producer: Producer, dlq: Dlq, photos: Path
) -> None:
    await start_service("downloader", photo_roots=photos)
    odd = [("trace", None), ("trace", b"\xff\x1b[2J"), ("[red]\x1b]0;x\x07", b"1"), ("", b"")]
    await producer.send_all(
        [
            OutRecord(LISTINGS_EVENTS, b"lamp", b"junk", headers=odd),
            OutRecord(DLQ, None, b"", headers=[*odd, ("shashin-error", None)]),
        ]
    )
    await until_open(kafka, 2)
    listed_entries = await dlq("ls")
    assert listed_entries.code == 0
    assert "2 open; listings.events: 1 UnparsableRecord, 1 unknown" in listed_entries.out
    (entry,) = await until_open(kafka, 1, reason="UnparsableRecord")
    shown = await dlq("show", entry.entry_id)
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert r"[red]\x1b]0;x\x07" in shown.out
    (document,) = document_of(await dlq("show", entry.entry_id, "--json"))
    assert {"name": "trace", "value": None} in document["headers"]
    assert (await dlq("replay", entry.entry_id)).code == 0


async def test_an_id_that_is_not_open_is_one_line_and_changes_nothing(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    await producer.send_all([dead(), dead(origin=(0, 1))])
    await dlq("drop", f"{DLQ}:1")
    before = await everything(kafka)
    unknown = await dlq("replay", f"{DLQ}:0", f"{DLQ}:9")
    assert_one_line(unknown, 1, f"no such dead letter: {DLQ}:9; `shashin dlq ls --all`")
    assert_one_line(await dlq("drop", f"{DLQ}:0", f"{DLQ}:1"), 1, f"{DLQ}:1 was already dropped")
    # The record that resolves an entry is no entry.
    assert_one_line(await dlq("show", f"{DLQ}:2"), 1, f"no such dead letter: {DLQ}:2")
    assert await everything(kafka) == before


async def test_a_partition_that_does_not_exist_is_named_and_nothing_is_sent(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    await producer.send_all([dead(), dead(origin=(7, 5))])
    before = await everything(kafka)
    ended = await dlq("replay", "--all-open")
    assert_one_line(ended, 1, f"{DLQ}:1 came from listings.events[7]@5", "has 2 partitions")
    assert await everything(kafka) == before


async def test_a_terminal_user_is_asked_for_confirmation_unless_yes_is_given(
    kafka: str, producer: Producer, dlq: Dlq
) -> None:
    await producer.send_all([dead(photo=0), dead(photo=1)])
    before = await everything(kafka)
    refused = await dlq("replay", "--all-open", typed="n\n")
    assert refused.code == 1
    assert "replay 1 records, of 2 dead letters?" in refused.err
    assert await everything(kafka) == before
    assert (await dlq("replay", "--all-open", typed="y\n")).code == 0
    assert len(await records_of(kafka, LISTINGS_EVENTS)) == 1
    await producer.send_all([dead()])
    assert (await dlq("drop", "--all-open", "--yes", typed="")).code == 0
    assert await open_ids(kafka) == set()
