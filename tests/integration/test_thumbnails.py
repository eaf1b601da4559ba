"""Thumbnails for web pages: what a downloader writes, what a store that is gone costs, and filling it later."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from shashin.client.listing_events import LISTED, listing_event, record_of
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.thumbnails.fill import retained
from shashin.thumbnails.keys import thumbnail_key
from shashin.thumbnails.reader import opened_thumbnails
from shashin.v1 import events_pb2
from tests.support.deleted_records import delete_before
from tests.support.hung_endpoints import silent_sockets
from tests.support.rendered_listings import photo_of
from tests.support.running_service import RunningService
from tests.support.seaweed import BUCKET, SeaweedFs
from tests.support.shashin_command import shashin
from tests.support.topic_records import records_of
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]


def listed(folder: Path, number: int, photos: int = 1) -> tuple[OutRecord, list[bytes]]:
    """Return the event of a listing with photos in a folder, and the photos."""
    folder.mkdir(exist_ok=True)
    originals = [photo_of(600 + 10 * number + n) for n in range(photos)]
    uris = []
    for n, original in enumerate(originals):
        path = folder / f"{number}-{n}.jpg"
        path.write_bytes(original)
        uris.append(path.as_uri())
    event = listing_event(f"listing-{number}", 1, LISTED, photo_uris=uris)
    return record_of(event), originals


async def downloaded(kafka: str, listings: int) -> list[events_pb2.DownloadedPhoto]:
    """Wait until so many listings are downloaded; returns all of their photos."""

    async def all_there() -> list[events_pb2.DownloadedPhoto]:
        records = await records_of(kafka, IMAGES_DOWNLOADED)
        photos = [
            photo
            for record in records
            for photo in events_pb2.DownloadedListing.FromString(record.value).photos
        ]
        return photos if len(records) == listings else []

    found: list[events_pb2.DownloadedPhoto] = await until(all_there, "listings are downloaded")
    return found


async def stored(uri: str, original: bytes) -> bytes | None:
    """Return the thumbnail of a photo in the store."""
    async with opened_thumbnails(uri, cache_bytes=0) as thumbnails:
        return await thumbnails.read(hashlib.sha256(original).hexdigest()[:16])


async def test_the_thumbnail_of_a_listing_is_found_by_the_hash_of_its_photo(
    start_service: StartService,
    kafka: str,
    producer: Producer,
    tmp_path: Path,
) -> None:
    store = (tmp_path / "thumbnails").as_uri()
    service = await start_service("downloader", photo_roots=tmp_path / "photos", thumbnails=store)
    event, originals = listed(tmp_path / "photos", 0, photos=3)
    await producer.send_all([event])
    photos = await downloaded(kafka, 1)
    for photo, original in zip(photos, originals, strict=True):
        is_stored = partial(stored, store, original)
        assert await until(is_stored, "it is stored") == photo.thumbnail

    await producer.send_all([event])  # as after a crash
    await downloaded(kafka, 2)
    assert await service.metric("shashin_thumbnails_written_total") == 3
    assert await service.stop() == 0


async def test_thumbnails_are_written_to_a_bucket_before_the_process_ends(
    start_service: StartService,
    kafka: str,
    producer: Producer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seaweed = SeaweedFs(tmp_path / "seaweed")
    try:
        await seaweed.start()
        for name, value in seaweed.environment.items():
            monkeypatch.setenv(name, value)
        store = f"s3://{BUCKET}/web"
        service = await start_service(
            "downloader", photo_roots=tmp_path / "photos", thumbnails=store, drain_seconds=60
        )
        made = [listed(tmp_path / "photos", number) for number in range(8)]
        await producer.send_all([event for event, _ in made])
        await downloaded(kafka, 8)
        assert await service.stop() == 0
        for _, (original,) in made:
            assert await stored(store, original)
    finally:
        await seaweed.kill()


async def test_a_store_that_never_answers_costs_thumbnails_and_no_listing(
    start_service: StartService,
    kafka: str,
    producer: Producer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    made = [listed(tmp_path / "photos", number, photos=4) for number in range(6)]
    async with silent_sockets(1) as (silent,):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{silent.address}")
        service = await start_service(
            "downloader",
            photo_roots=tmp_path / "photos",
            thumbnails="s3://bucket/web",
            thumbnail_queue_bytes=64 * 1024,
            drain_seconds=0.2,
        )
        await producer.send_all([event for event, _ in made])
        photos = await downloaded(kafka, 6)
        assert all(photo.thumbnail for photo in photos)
        assert not await records_of(kafka, LISTINGS_EVENTS + DEAD_LETTER_SUFFIX)
        waiting = await service.metric("shashin_thumbnails_waiting_bytes")
        dropped = await service.metric('shashin_thumbnails_dropped_total{reason="no_room"}')
        assert 0 < waiting <= 64 * 1024
        assert 0 < dropped < 24
        assert sum(len(photo.thumbnail) for photo in photos) > 64 * 1024

        async def is_reported() -> bool:
            return "some are dropped" in await service.probe("healthz")

        await until(is_reported, "it is on /healthz")
        assert await service.get("readyz"), "nothing needs thumbnails"
        assert await service.stop() == 0


async def test_a_store_that_refuses_is_reported_and_filled_once_it_works(
    start_service: StartService, kafka: str, producer: Producer, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "thumbnails"
    in_the_way.write_bytes(b"a file where the store's folder should be")
    store = in_the_way.as_uri()
    service = await start_service("downloader", photo_roots=tmp_path / "photos", thumbnails=store)
    made = [listed(tmp_path / "photos", number, photos=2) for number in range(5)]
    await producer.send_all([event for event, _ in made])
    photos = await downloaded(kafka, 5)

    async def is_reported() -> bool:
        failed = await service.metric("shashin_thumbnails_failed_total")
        return failed == 10 and "thumbnails: are not written" in await service.probe("healthz")

    await until(is_reported, "failures are counted, and on /healthz")
    assert await service.get("readyz"), "nothing needs thumbnails"

    in_the_way.unlink()
    (first, *_), expected = photos, {p.content_sha256.hex()[:16]: p.thumbnail for p in photos}
    name = first.content_sha256.hex()[:16]
    present = tmp_path / "thumbnails" / thumbnail_key(name)
    present.parent.mkdir(parents=True)
    present.write_bytes(first.thumbnail)
    await producer.send_all([OutRecord(IMAGES_DOWNLOADED, b"broken", b"\xff\xff")])
    fill = ("thumbnails", "fill", "--thumbnails", store, "--kafka", kafka, "--json")
    filled = await shashin(*fill, state=tmp_path / "state")
    counts = ("photos", "written", "existing", "unreadable")
    assert [filled.document[count] for count in counts] == [10, 9, 1, 1]
    async with opened_thumbnails(store, cache_bytes=0) as thumbnails:
        assert {name: await thumbnails.read(name) for name in expected} == expected

    again = await shashin(*fill, state=tmp_path / "state")
    assert (again.document["written"], again.document["existing"]) == (0, 10)
    assert filled.document["offsets"] == filled.document["all_offsets"]


async def test_a_fill_without_a_store_says_what_to_name(tmp_path: Path) -> None:
    failed = await shashin("thumbnails", "fill", state=tmp_path / "state", ends_with=2)
    assert "nothing has been started" in failed.error


async def test_what_retention_deletes_during_a_fill_is_passed_over(
    kafka: str, producer: Producer, tmp_path: Path
) -> None:
    listings = [
        events_pb2.DownloadedListing(
            listing_id=f"listing-{number}",
            photos=[
                events_pb2.DownloadedPhoto(
                    content_sha256=hashlib.sha256(bytes([number])).digest(), thumbnail=b"thumbnail"
                )
            ],
        )
        for number in range(10)
    ]
    records = [
        OutRecord(IMAGES_DOWNLOADED, b"key", listing.SerializeToString(), partition=0)
        for listing in listings
    ]
    await producer.send_all(records)
    async with LogReader(kafka, IMAGES_DOWNLOADED, client_id="test") as reader:
        partitions = await reader.partitions()
        at = await reader.begin_offsets(partitions)
        ends = await reader.end_offsets(partitions)
        await delete_before(kafka, IMAGES_DOWNLOADED, at[0] + 4)
        seen = [
            events_pb2.DownloadedListing.FromString(record.value).listing_id
            async for record in retained(reader, at, ends)
        ]
    assert seen == [listing.listing_id for listing in listings[4:]]
    assert at == ends
