"""DownloadStage: listing events with good, bad, missing or unavailable photos."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from services.downloader.handlers import DownloadStage
from services.downloader.versions import NewestVersions
from shashin.errors import (
    PhotoEmpty,
    PhotoError,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
)
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome
from shashin.originals import OriginalsCache, SourceVersion
from shashin.photo_sources.byte_budget import ByteBudget, Lease
from shashin.photo_sources.fetching import PhotoFetcher
from shashin.photo_sources.files import FileSource
from shashin.photo_sources.originals import Originals
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.source import PhotoSource, SourcePhoto, Sources
from shashin.photos import DecodeBudget
from shashin.v1 import events_pb2

MAX_BYTES = 200_000
ORIGINAL_BYTES = 4 * MAX_BYTES


def jpeg(colour: str = "red", size: tuple[int, int] = (400, 300)) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, colour).save(made, "JPEG")
    return made.getvalue()


def record(
    listing_id: str = "lamp",
    version: int = 1,
    *,
    photos: list[str] | None = None,
    kind: int = events_pb2.LISTING_KIND_LISTED,
    offset: int = 0,
) -> InRecord:
    event = events_pb2.ListingEvent(
        listing_id=listing_id,
        version=version,
        kind=kind,  # type: ignore[arg-type]
        photo_uris=photos or [],
        attributes=events_pb2.Attributes(category="lamps"),
    )
    event.occurred_at.seconds = 1234
    return InRecord("listings.events", 3, offset, 0, listing_id.encode(), event.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    (root / "good.jpg").write_bytes(jpeg())
    (root / "with space ü.jpg").write_bytes(jpeg("blue"))
    (root / "empty.jpg").touch()
    (root / "text.jpg").write_bytes(b"no photo")
    (root / "large.jpg").write_bytes(b"x" * (MAX_BYTES + 1))
    (root / "folder.jpg").mkdir()
    os.mkfifo(root / "pipe.jpg")
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    (root / "link-out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "link-in.jpg").symlink_to(root / "good.jpg")
    return root


def stage_of(
    source: PhotoSource, executor: ThreadPoolExecutor, decode_bytes: int = 64_000_000
) -> DownloadStage:
    fetcher = PhotoFetcher(
        Originals(source, None, confirm_after_seconds=0),
        originals_budget=ByteBudget(ORIGINAL_BYTES),
        executor=executor,
        decode_budget=DecodeBudget(decode_bytes),
    )
    return DownloadStage(fetcher, NewestVersions(1000))


def files_in(folder: Path) -> Sources:
    limits = RequestLimits(total=8, per_host=4)
    return Sources({"file": FileSource([folder], max_bytes=MAX_BYTES, limits=limits)})


@pytest.fixture
async def stage(folder: Path) -> AsyncIterator[DownloadStage]:
    with ThreadPoolExecutor(1) as executor:
        yield stage_of(files_in(folder), executor)


def downloaded(outcome: Outcome) -> events_pb2.DownloadedListing:
    (output,) = outcome.outputs
    assert output.topic == "images.downloaded"
    return events_pb2.DownloadedListing.FromString(output.value)


async def test_a_listing_is_forwarded_with_thumbnails_on_its_own_partition(
    stage: DownloadStage, folder: Path
) -> None:
    uris = [(folder / name).as_uri() for name in ("good.jpg", "with space ü.jpg", "link-in.jpg")]
    (outcome,) = await stage.process([record(photos=uris)])
    listing = downloaded(outcome)
    assert (listing.listing_id, listing.version, listing.occurred_at.seconds) == ("lamp", 1, 1234)
    assert listing.attributes.category == "lamps"
    assert [photo.photo_number for photo in listing.photos] == [0, 1, 2]
    assert [photo.uri for photo in listing.photos] == uris
    assert all(len(photo.content_sha256) == 32 for photo in listing.photos)
    with Image.open(io.BytesIO(listing.photos[0].thumbnail)) as image:
        assert image.size == (341, 256)
    assert (outcome.outputs[0].partition, outcome.outputs[0].key) == (3, b"lamp")
    assert not outcome.dead_letters


async def test_a_photo_whose_name_is_not_utf8_is_read(stage: DownloadStage, folder: Path) -> None:
    photo = folder / os.fsdecode(b"caf\xe9.jpg")
    photo.write_bytes(jpeg())
    (outcome,) = await stage.process([record(photos=[photo.as_uri()])])
    assert downloaded(outcome).photos[0].thumbnail


@pytest.mark.parametrize("uri", ["http://[::1/a.jpg", "file://[x/a.jpg", "http://a\u2100b/a.jpg"])
async def test_a_malformed_uri_is_said_to_be_one(
    stage: DownloadStage, folder: Path, uri: str
) -> None:
    (outcome,) = await stage.process([record(photos=[(folder / "good.jpg").as_uri(), uri])])
    (dead_letter,) = outcome.dead_letters
    assert dead_letter.error.reason == "PhotoForbidden"
    assert f"{uri!r} is malformed" in dead_letter.error.message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.jpg", "PhotoMissing"),
        ("folder.jpg", "PhotoMissing"),
        ("pipe.jpg", "PhotoForbidden"),
        ("empty.jpg", "PhotoEmpty"),
        ("text.jpg", "PhotoUndecodable"),
        ("large.jpg", "PhotoTooLarge"),
        ("link-out.jpg", "PhotoForbidden"),
        ("../secret.jpg", "PhotoForbidden"),
        ("%2e%2e/secret.jpg", "PhotoForbidden"),
        ("good.jpg/deeper.jpg", "PhotoMissing"),
        ("a\0b.jpg", "PhotoMissing"),
    ],
)
async def test_a_bad_photo_is_dead_lettered_and_the_others_are_processed(
    stage: DownloadStage, folder: Path, name: str, reason: str
) -> None:
    bad, good = f"{folder.as_uri()}/{name}", (folder / "good.jpg").as_uri()
    (outcome,) = await stage.process([record(photos=[good, bad, good])])
    listing = downloaded(outcome)
    assert [p.WhichOneof("outcome") for p in listing.photos] == [
        "thumbnail",
        "failure",
        "thumbnail",
    ]
    assert listing.photos[1].failure.reason == reason
    (dead_letter,) = outcome.dead_letters
    assert (dead_letter.scope, dead_letter.photo_number, dead_letter.error.reason) == (
        "photo",
        1,
        reason,
    )


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/a.jpg", "http://example.com/a.jpg", "a.jpg", "", "file://other/a.jpg", "[://"],
)
async def test_unsupported_uris_are_forbidden(stage: DownloadStage, folder: Path, uri: str) -> None:
    (outcome,) = await stage.process([record(photos=[(folder / "good.jpg").as_uri(), uri])])
    assert downloaded(outcome).photos[1].failure.reason == "PhotoForbidden"


async def test_a_listing_without_usable_photos_is_one_dlq_entry_that_lists_each_error(
    stage: DownloadStage, folder: Path
) -> None:
    uris = [f"{folder.as_uri()}/{name}" for name in ("empty.jpg", "missing.jpg")]
    (outcome,) = await stage.process([record(photos=uris)])
    assert not outcome.outputs
    (dead_letter,) = outcome.dead_letters
    assert (dead_letter.scope, dead_letter.error.reason) == ("record", "NoUsablePhoto")
    assert "photo 0: PhotoEmpty" in dead_letter.error.message
    assert "photo 1: PhotoMissing" in dead_letter.error.message


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (events_pb2.LISTING_KIND_SOLD, events_pb2.HIDDEN_REASON_SOLD),
        (events_pb2.LISTING_KIND_REMOVED, events_pb2.HIDDEN_REASON_REMOVED),
    ],
)
async def test_a_sale_hides_the_listing_up_to_its_version(
    stage: DownloadStage, kind: int, reason: int
) -> None:
    (outcome,) = await stage.process([record(version=7, kind=kind)])
    (output,) = outcome.outputs
    hidden = events_pb2.HiddenListing.FromString(output.value)
    assert (output.topic, output.key) == ("listings.hidden", b"lamp\x008")
    assert (hidden.listing_id, hidden.below_version, hidden.reason) == ("lamp", 8, reason)


async def test_outcomes_are_in_record_order_and_bad_records_do_not_block_others(
    stage: DownloadStage, folder: Path
) -> None:
    good = [(folder / "good.jpg").as_uri()]
    records = [
        record("a", photos=good),
        InRecord("listings.events", 3, 1, 0, b"x", b"\xff\xff"),
        record("b", 2, photos=good, offset=2),
        record("b", 1, photos=good, offset=3),
        record("b", 3, kind=events_pb2.LISTING_KIND_SOLD, offset=4),
    ]
    outcomes = await stage.process(records)
    shown = [
        (
            [output.topic for output in outcome.outputs],
            [dead_letter.error.reason for dead_letter in outcome.dead_letters],
        )
        for outcome in outcomes
    ]
    assert shown == [
        (["images.downloaded"], []),
        ([], ["UnparsableRecord"]),
        (["images.downloaded"], []),
        ([], ["StaleVersion"]),
        (["listings.hidden"], []),
    ]


class Failing:
    """Fails for photos whose URI ends with "fails"."""

    def __init__(self, error: PhotoError) -> None:
        self._error = error

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto:
        if uri.endswith("fails"):
            raise self._error
        return SourcePhoto(jpeg(), SourceVersion())


async def test_a_photo_of_an_unavailable_source_is_retryable() -> None:
    unavailable = PhotoUnavailable("source down")
    with ThreadPoolExecutor(1) as executor:
        stage = stage_of(Failing(unavailable), executor)
        partial, failed, good = await stage.process(
            [
                record("a", photos=["x://good", "x://fails"]),
                record("b", photos=["x://fails"]),
                record("c", photos=["x://good"]),
            ]
        )
    assert (partial.retry_for, partial.dead_lettered) == (unavailable, False)
    assert (failed.retry_for, failed.dead_lettered) == (unavailable, True)
    assert good.retry_for is None
    (dead_letter,) = failed.dead_letters
    assert "PhotoUnavailable: source down" in dead_letter.error.message


@pytest.mark.parametrize("error", [PhotoMissing, PhotoForbidden, PhotoEmpty, PhotoTooLarge])
async def test_permanent_photo_errors_are_not_retried(error: type[PhotoError]) -> None:
    source = Failing(error("never"))
    with ThreadPoolExecutor(1) as executor:
        (outcome,) = await stage_of(source, executor).process([record(photos=["x://fails"])])
    assert outcome.dead_lettered
    assert outcome.retry_for is None


async def test_originals_in_memory_are_bounded_by_their_bytes() -> None:
    class Counting:
        held = peak = 0

        async def fetch(
            self, uri: str, lease: Lease, known: SourceVersion | None = None
        ) -> SourcePhoto:
            await lease.hold(ORIGINAL_BYTES // 3)
            self.held += 1
            self.peak = max(self.peak, self.held)
            for _ in range(5):
                await asyncio.sleep(0)
            self.held -= 1
            return SourcePhoto(jpeg(), SourceVersion())

    source = Counting()
    with ThreadPoolExecutor(1) as executor:
        await stage_of(source, executor).process(
            [record(f"listing-{i}", photos=[f"x://{i}/{n}" for n in range(5)]) for i in range(4)]
        )
    assert source.peak == 3


async def test_a_photo_that_takes_more_memory_than_decodes_may_is_dead_lettered_alone(
    folder: Path,
) -> None:
    Image.new("RGB", (3000, 3000)).save(folder / "hostile.png")
    good, hostile = (folder / "good.jpg").as_uri(), (folder / "hostile.png").as_uri()
    source = files_in(folder)
    with ThreadPoolExecutor(2) as executor:
        stage = stage_of(source, executor, decode_bytes=40_000_000)
        (outcome,) = await stage.process([record(photos=[good, hostile, good])])
    assert [p.failure.reason for p in downloaded(outcome).photos] == ["", "PhotoTooLarge", ""]
    (dead_letter,) = outcome.dead_letters
    assert "at most 40 MB are allowed" in dead_letter.error.message


async def test_hostile_photos_are_decoded_one_after_another_when_memory_has_room_for_one(
    folder: Path,
) -> None:
    Image.new("RGB", (2000, 2000)).save(folder / "hostile.png")
    uris = [(folder / "hostile.png").as_uri()] * 4
    source = files_in(folder)
    with ThreadPoolExecutor(4) as executor:
        stage = stage_of(source, executor, decode_bytes=40_000_000)
        (outcome,) = await stage.process([record(photos=uris)])
    assert all(photo.thumbnail for photo in downloaded(outcome).photos)
    assert not outcome.dead_letters


class Changing:
    """Has another photo at each request, the first of which cannot be decoded."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto:
        self.asked.append(known is not None)
        data = jpeg() if len(self.asked) > 1 else b"no photo"
        return SourcePhoto(data, SourceVersion(f'"{len(self.asked)}"'))


async def test_a_photo_that_could_not_be_decoded_is_fetched_again_and_one_that_could_is_not(
    tmp_path: Path,
) -> None:
    source, progress = Changing(), []
    cache = OriginalsCache(tmp_path / "cache", max_bytes=10**6, keep_seconds=10**6)
    with ThreadPoolExecutor(1) as executor:
        fetcher = PhotoFetcher(
            Originals(source, cache, confirm_after_seconds=10**6),
            originals_budget=ByteBudget(ORIGINAL_BYTES),
            executor=executor,
            decode_budget=DecodeBudget(64_000_000),
        )
        fetcher.on_progress = lambda: progress.append(len(source.asked))
        stage = DownloadStage(fetcher, NewestVersions(1000))
        (bad,) = await stage.process([record(photos=["x://a"])])
        (good,) = await stage.process([record(photos=["x://a"])])
        (again,) = await stage.process([record(photos=["x://a"])])
        assert source.asked == [False, False]
        updated = events_pb2.LISTING_KIND_UPDATED
        (confirmed,) = await stage.process([record(version=2, photos=["x://a"], kind=updated)])
    assert bad.dead_lettered
    assert downloaded(good) == downloaded(again)
    assert downloaded(confirmed).photos[0].thumbnail
    assert source.asked == [False, False, True]
    assert progress == [1, 2, 2, 3]
