"""The downloader as a process: photos from a web server, a bucket and a folder, and from its cache."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aioboto3
import pytest

from shashin.client.listing_events import LISTED, UPDATED, listing_event, record_of
from shashin.kafka.producer import Producer
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.v1 import events_pb2
from tests.support.photo_server import PhotoServer
from tests.support.rendered_listings import photo_of
from tests.support.running_service import RunningService
from tests.support.seaweed import ACCESS_KEY, BUCKET, SECRET, SeaweedFs
from tests.support.topic_records import records_of
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]
MEGABYTE = 1_000_000


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PhotoServer]:
    async with PhotoServer() as started:
        started.write_authority(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        yield started


@pytest.fixture
async def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SeaweedFs]:
    seaweed = SeaweedFs(tmp_path / "seaweed")
    try:
        await seaweed.start()
        for name, value in seaweed.environment.items():
            monkeypatch.setenv(name, value)
        yield seaweed
    finally:
        await seaweed.kill()


async def put(seaweed: SeaweedFs, key: str, data: bytes) -> str:
    session = aioboto3.Session(ACCESS_KEY, SECRET, region_name="us-east-1")
    async with session.client("s3", endpoint_url=seaweed.url) as client:
        await client.put_object(Bucket=BUCKET, Key=key, Body=data)
    return f"s3://{BUCKET}/{key}"


def settings_of(server: PhotoServer, folder: Path) -> dict[str, object]:
    return {
        "photo_hosts": f"localhost:{server.port}",
        "photo_private_networks": "127.0.0.0/8",
        "photo_buckets": f"s3://{BUCKET}",
        "photo_roots": folder / "photos",
        "cache_folder": folder / "cache",
    }


async def publish(
    producer: Producer, listing_id: str, uris: list[str], *, version: int = 1
) -> None:
    kind = LISTED if version == 1 else UPDATED
    event = listing_event(listing_id, version, kind, photo_uris=uris)
    await producer.send_all([record_of(event)])


async def downloaded(kafka: str, listing_id: str, version: int = 1) -> events_pb2.DownloadedListing:
    """Wait for a version of a listing with its thumbnails."""

    async def there() -> list[events_pb2.DownloadedListing]:
        records = await records_of(kafka, IMAGES_DOWNLOADED)
        listings = [events_pb2.DownloadedListing.FromString(record.value) for record in records]
        return [li for li in listings if (li.listing_id, li.version) == (listing_id, version)]

    found: list[events_pb2.DownloadedListing] = await until(there, f"{listing_id} is downloaded")
    return found[0]


def digests(*photos: bytes) -> list[bytes]:
    return [hashlib.sha256(photo).digest() for photo in photos]


async def test_photos_of_every_source_are_read_and_then_cached_with_the_sources_gone(
    start_service: StartService,
    kafka: str,
    producer: Producer,
    server: PhotoServer,
    bucket: SeaweedFs,
    tmp_path: Path,
) -> None:
    on_web, in_bucket, in_folder = (photo_of(number) for number in range(400, 403))
    server.has("a.jpg", on_web, ETag='"1"')
    file = tmp_path / "photos" / "a.jpg"
    file.parent.mkdir()
    file.write_bytes(in_folder)
    uris = [server.url("a.jpg"), await put(bucket, "2026/a.jpg", in_bucket), file.as_uri()]
    expected = digests(on_web, in_bucket, in_folder)
    service = await start_service("downloader", **settings_of(server, tmp_path))

    await publish(producer, "first", uris)
    first = await downloaded(kafka, "first")
    assert [photo.content_sha256 for photo in first.photos] == expected
    assert all(photo.thumbnail for photo in first.photos)

    await server.stop()
    await bucket.kill()
    file.unlink()
    await publish(producer, "second", uris)
    second = await downloaded(kafka, "second")
    assert [p.thumbnail for p in second.photos] == [p.thumbnail for p in first.photos]
    assert len(server.requests) == 1
    assert await service.metric('shashin_cache_lookups_total{outcome="hit"}') == 3
    assert not await records_of(kafka, LISTINGS_EVENTS + DEAD_LETTER_SUFFIX)

    await service.kill()  # the cache outlives its process
    await service.start()
    await service.until_ready()
    await publish(producer, "third", uris)
    third = await downloaded(kafka, "third")
    assert [photo.content_sha256 for photo in third.photos] == expected


async def test_a_photo_that_changed_under_its_uri_is_noticed_with_the_next_update(
    start_service: StartService,
    kafka: str,
    producer: Producer,
    server: PhotoServer,
    bucket: SeaweedFs,
    tmp_path: Path,
) -> None:
    before, after = photo_of(410), photo_of(411)
    server.has("a.jpg", before, ETag='"1"')
    uris = [server.url("a.jpg"), await put(bucket, "a.jpg", before)]
    service = await start_service("downloader", **settings_of(server, tmp_path))
    await publish(producer, "lamp", uris)
    await downloaded(kafka, "lamp")

    server.has("a.jpg", after, ETag='"2"')
    await put(bucket, "a.jpg", after)
    await publish(producer, "lamp", uris, version=2)
    updated = await downloaded(kafka, "lamp", 2)
    assert [photo.content_sha256 for photo in updated.photos] == digests(after, after)
    assert await service.metric('shashin_downloader_confirmations_total{outcome="changed"}') == 2
    assert service.log().count("photo changed under its URI") == 2

    await publish(producer, "lamp", uris, version=3)
    await downloaded(kafka, "lamp", 3)
    unchanged = 'shashin_downloader_confirmations_total{outcome="unchanged"}'
    assert await service.metric(unchanged) == 2
    assert server.requests[-1].headers["If-None-Match"] == '"2"'


@pytest.mark.skipif(sys.platform != "linux", reason="changes the limits of another process")
async def test_a_full_cache_is_said_and_fails_no_photo(
    start_service: StartService, kafka: str, producer: Producer, server: PhotoServer, tmp_path: Path
) -> None:
    # JPEG decoders skip what follows the end of the image.
    large = photo_of(420) + os.urandom(2 * MEGABYTE)
    server.has("a.jpg", large)
    service = await start_service("downloader", **settings_of(server, tmp_path))
    limits = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (MEGABYTE, limits[1]))
    await publish(producer, "first", [server.url("a.jpg")])
    first = await downloaded(kafka, "first")
    assert [photo.content_sha256 for photo in first.photos] == digests(large)

    async def is_said() -> bool:
        return "photos are not cached" in await service.probe("healthz")

    await until(is_said, "/healthz says that nothing is cached")
    assert await service.metric('shashin_cache_errors_total{what="write"}') == 1

    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, limits)
    number = 0

    async def is_cached_again() -> bool:
        nonlocal number
        number += 1
        server.has(f"{number}.jpg", photo_of(421))
        await publish(producer, f"later-{number}", [server.url(f"{number}.jpg")])
        await downloaded(kafka, f"later-{number}")
        return await service.get("healthz") is not None

    await until(is_cached_again, "it is cached again")
    assert await service.metric("shashin_cache_written_bytes_total") == len(photo_of(421))


async def test_a_photo_that_may_not_be_read_is_a_dead_letter_and_the_others_go_on(
    start_service: StartService, kafka: str, producer: Producer, server: PhotoServer, tmp_path: Path
) -> None:
    server.has("a.jpg", photo_of(430))
    server.answers("gone.jpg", 410)
    service = await start_service("downloader", **settings_of(server, tmp_path))
    uris = [
        server.url("a.jpg"),
        server.url("gone.jpg"),
        "https://169.254.169.254/latest/meta-data",
        f"http://localhost:{server.port}/a.jpg",
        "s3://another-bucket/a.jpg",
    ]
    await publish(producer, "lamp", uris)
    found = await downloaded(kafka, "lamp")
    assert [photo.failure.reason for photo in found.photos] == [
        "",
        "PhotoMissing",
        "PhotoForbidden",
        "PhotoForbidden",
        "PhotoForbidden",
    ]
    assert await service.metric('shashin_downloader_photos_total{outcome="PhotoForbidden"}') == 3
