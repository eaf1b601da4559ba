"""Photos in buckets, behind the Protocol of object stores; a folder stands for the bucket here.

Real servers are in tests/contract/objectstore and tests/integration.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shashin.errors import (
    ObjectStoreError,
    ObjectStoreUnavailable,
    PhotoEmpty,
    PhotoError,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
    PreconditionFailed,
    ShashinError,
)
from shashin.objectstore.open import open_object_store
from shashin.objectstore.protocol import ObjectStore, OpenedObject, Version
from shashin.originals import SourceVersion
from shashin.photo_sources.byte_budget import ByteBudget, Lease
from shashin.photo_sources.object_store import ObjectStoreSource
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.source import SourcePhoto

MAX_BYTES = 1000
BUCKET = "s3://photos"


class Failing:
    """A store that fails when an object is opened, or when it is read."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.open_error: ShashinError | None = None
        self.read_error: ShashinError | None = None
        self.read_bytes: bytes | None = None
        self.hangs = False

    @asynccontextmanager
    async def opened(
        self, key: str, *, unless: Version | None = None
    ) -> AsyncIterator[OpenedObject | None]:
        if self.open_error is not None:
            raise self.open_error
        async with self._store.opened(key, unless=unless) as found:
            yield found and replace(found, chunks=self._chunks(found.chunks))

    async def _chunks(self, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        if self.read_bytes is not None:
            yield self.read_bytes
        else:
            async for chunk in chunks:
                yield chunk
        if self.read_error is not None:
            raise self.read_error
        if self.hangs:
            await asyncio.Event().wait()

    async def close(self) -> None:
        await self._store.close()


class Bucket:
    """A source that reads one bucket."""

    def __init__(self, folder: Path, seconds: float = 30.0) -> None:
        self.store = open_object_store(folder.as_uri())
        self.failing = Failing(self.store)
        self.requests = RequestLimits(total=4, per_host=4)
        self.opened: list[str] = []
        self.budget = ByteBudget(MAX_BYTES)
        self.source = ObjectStoreSource(
            [BUCKET, "gs://more"],
            self.requests,
            max_bytes=MAX_BYTES,
            total_seconds=seconds,
            open_store=self._open,
        )

    def _open(self, uri: str) -> ObjectStore:
        self.opened.append(uri)
        return self.failing  # type: ignore[return-value]

    async def fetch(self, uri: str, known: SourceVersion | None = None) -> SourcePhoto | None:
        with self.budget.lease() as lease:
            return await self.source.fetch(uri, lease, known)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "bucket")


async def test_an_object_is_read_with_its_version(bucket: Bucket) -> None:
    version = await bucket.store.write("2026/a b%20#1.jpg", b"photo")
    found = await bucket.fetch(f"{BUCKET}/2026/a b%20#1.jpg")
    assert found == SourcePhoto(b"photo", SourceVersion(version))
    assert await bucket.fetch("gs://more/2026/a b%20#1.jpg") == found
    assert bucket.opened == [BUCKET, "gs://more"]


async def test_a_known_version_is_not_read_again_and_another_one_is(bucket: Bucket) -> None:
    version = await bucket.store.write("a.jpg", b"photo")
    assert await bucket.fetch(f"{BUCKET}/a.jpg", SourceVersion(version)) is None
    await bucket.store.write("a.jpg", b"other photo")
    found = await bucket.fetch(f"{BUCKET}/a.jpg", SourceVersion(version))
    assert found is not None
    assert found.data == b"other photo"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://other/a.jpg", "s3://other, which is not in SHASHIN_PHOTO_BUCKETS"),
        ("gs://photos/a.jpg", "gs://photos, which is not in"),
        ("s3://PHOTOS/a.jpg", "which is not in"),
        ("s3://me:secret@photos/a.jpg", "which is not in"),
        ("s3://photos", "names no object"),
        ("s3://photos/", "names no object"),
        ("s3://photos/../other/a.jpg", "is not a relative path"),
        ("s3://photos//a.jpg", "is not a relative path"),
    ],
)
async def test_other_buckets_and_odd_keys_are_forbidden(
    bucket: Bucket, uri: str, message: str
) -> None:
    with pytest.raises(PhotoForbidden, match=message):
        await bucket.fetch(uri)


async def test_a_missing_object_is_named(bucket: Bucket) -> None:
    with pytest.raises(PhotoMissing, match=r"there is no photo at s3://photos/a\.jpg"):
        await bucket.fetch(f"{BUCKET}/a.jpg")


async def test_an_object_is_refused_by_its_size_before_it_is_read(bucket: Bucket) -> None:
    await bucket.store.write("a.jpg", bytes(MAX_BYTES + 1))
    bucket.failing.read_error = AssertionError("it was read")  # type: ignore[assignment]
    with pytest.raises(PhotoTooLarge, match="has 1001 bytes; at most 1000"):
        await bucket.fetch(f"{BUCKET}/a.jpg")
    await bucket.store.write("b.jpg", b"")
    with pytest.raises(PhotoEmpty):
        await bucket.fetch(f"{BUCKET}/b.jpg")
    assert bucket.budget.taken == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ObjectStoreUnavailable("slow down"), PhotoUnavailable),
        (ObjectStoreError("access denied"), PhotoForbidden),
        (ObjectStoreError("there is no bucket photos"), PhotoForbidden),
    ],
)
async def test_a_store_s_error_is_a_photo_s_error_with_its_reason(
    bucket: Bucket, error: ShashinError, expected: type[PhotoError]
) -> None:
    await bucket.store.write("a.jpg", b"photo")
    bucket.failing.open_error = error
    with pytest.raises(expected, match=error.message):
        await bucket.fetch(f"{BUCKET}/a.jpg")


@pytest.mark.parametrize("streamed", [b"phot", b"photo!", bytes(10 * MAX_BYTES)])
async def test_an_object_that_changes_while_it_is_read_is_read_again(
    bucket: Bucket, streamed: bytes
) -> None:
    await bucket.store.write("a.jpg", b"photo")
    bucket.failing.read_bytes = streamed
    with pytest.raises(PhotoUnavailable, match="changed while it was read"):
        await bucket.fetch(f"{BUCKET}/a.jpg")


async def test_an_object_that_is_overwritten_while_it_is_read_is_read_again(
    bucket: Bucket,
) -> None:
    await bucket.store.write("a.jpg", b"photo")
    bucket.failing.read_error = PreconditionFailed("overwritten")
    with pytest.raises(PhotoUnavailable, match="changed while it was read: overwritten"):
        await bucket.fetch(f"{BUCKET}/a.jpg")


async def test_a_photo_that_never_ends_is_given_up_after_the_total_time(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path / "bucket", seconds=0.2)
    await bucket.store.write("a.jpg", b"photo")
    bucket.failing.hangs = True
    with pytest.raises(PhotoUnavailable, match="was not complete after"):
        await bucket.fetch(f"{BUCKET}/a.jpg")
    assert bucket.budget.taken == 0


async def test_the_size_is_reserved_before_the_object_is_read(bucket: Bucket) -> None:
    await bucket.store.write("a.jpg", b"photo")
    held = []

    class Watched(Lease):
        async def hold(self, size: int) -> None:
            held.append(size)

    await bucket.source.fetch(f"{BUCKET}/a.jpg", Watched(bucket.budget))
    assert held == [5]
