"""Photos in buckets of real servers: what is read, and what each failure is called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from urllib.parse import unquote, urlsplit

import pytest
from aiohttp import web

from shashin.errors import PhotoError, PhotoForbidden, PhotoMissing, PhotoTooLarge, PhotoUnavailable
from shashin.local.ports import HOST
from shashin.objectstore import s3_client
from shashin.objectstore.open import opened_object_store
from shashin.originals import SourceVersion
from shashin.photo_sources.byte_budget import ByteBudget
from shashin.photo_sources.object_store import ObjectStoreSource
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.source import SourcePhoto
from tests.contract.conftest import ADAPTERS
from tests.support.cutting_proxy import cutting_proxy
from tests.support.seaweed import BUCKET

MAX_BYTES = 1_000_000
PHOTO = bytes(range(256)) * 2000


class Photos:
    """A source of the photos in the test's bucket."""

    def __init__(self, *buckets: str) -> None:
        self._budget = ByteBudget(MAX_BYTES)
        self.source = ObjectStoreSource(
            buckets or [f"s3://{BUCKET}"],
            RequestLimits(total=8, per_host=8),
            max_bytes=MAX_BYTES,
            total_seconds=50.0,
        )

    async def fetch(self, uri: str, known: SourceVersion | None = None) -> SourcePhoto | None:
        with self._budget.lease() as lease:
            return await self.source.fetch(uri, lease, known)


@pytest.fixture
async def uri(s3: str) -> str:
    """The URI of a photo in a folder of its own."""
    folder = urlsplit(s3).path.split("/")[1]
    async with opened_object_store(f"s3://{BUCKET}/{folder}") as store:
        await store.write("a b%20.jpg", PHOTO)
    return f"s3://{BUCKET}/{folder}/a b%20.jpg"


@pytest.fixture
async def photos(s3: str) -> AsyncIterator[Photos]:
    made = Photos()
    async with made.source:
        yield made


async def put(uri: str, data: bytes) -> None:
    _, folder, name = uri.removeprefix("s3://").split("/", 2)
    async with opened_object_store(f"s3://{BUCKET}/{folder}") as store:
        await store.write(name, data)


@pytest.mark.parametrize("store_uri", [name for name in ADAPTERS if name != "file"], indirect=True)
async def test_a_photo_is_read_once_and_again_only_after_it_has_changed(store_uri: str) -> None:
    uri = unquote(store_uri) + "/2026/a b.jpg"
    photos = Photos("/".join(uri.split("/")[:3]))
    async with opened_object_store(store_uri) as store, photos.source:
        await store.write("2026/a b.jpg", PHOTO)
        found = await photos.fetch(uri)
        assert found is not None
        assert found.data == PHOTO
        assert await photos.fetch(uri, found.version) is None
        await store.write("2026/a b.jpg", b"another photo")
        changed = await photos.fetch(uri, found.version)
        assert changed is not None
        assert (changed.data, changed.version != found.version) == (b"another photo", True)


async def test_a_large_photo_and_a_missing_one_are_named(photos: Photos, uri: str) -> None:
    await put(uri, bytes(MAX_BYTES + 1))
    with pytest.raises(PhotoTooLarge, match="has 1000001 bytes"):
        await photos.fetch(uri)
    with pytest.raises(PhotoMissing, match="there is no photo at"):
        await photos.fetch(uri + "2")


async def test_a_missing_bucket_is_named(s3: str) -> None:
    photos = Photos("s3://no-such-bucket")
    async with photos.source:
        with pytest.raises(PhotoForbidden, match="there is no bucket no-such-bucket"):
            await photos.fetch("s3://no-such-bucket/a.jpg")


async def test_wrong_credentials_are_named(
    uri: str, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    with pytest.raises(PhotoForbidden, match="SignatureDoesNotMatch"):
        await photos.fetch(uri)


async def test_a_connection_that_is_cut_in_mid_photo_is_taken_up_again(
    uri: str,
    photos: Photos,
    s3_environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = urlsplit(s3_environment["AWS_ENDPOINT_URL"]).port
    assert port is not None
    async with cutting_proxy(port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.cut("received", after=100_000)
        found = await photos.fetch(uri)
        assert found is not None
        assert found.data == PHOTO
        assert proxy.cut_connections == 1


def _error(code: str, status: int) -> web.Response:
    return web.Response(
        status=status,
        text=f"<Error><Code>{code}</Code><Message>from a test</Message></Error>",
        content_type="application/xml",
    )


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("SlowDown", 503, PhotoUnavailable),
        ("TooManyRequests", 429, PhotoUnavailable),
        ("InternalError", 500, PhotoUnavailable),
        ("ExpiredToken", 400, PhotoForbidden),
        ("AccessDenied", 403, PhotoForbidden),
    ],
)
async def test_a_refusal_is_a_photo_s_error_by_name(
    photos: Photos,
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    status: int,
    error: type[PhotoError],
) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return _error(code, status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:{runner.addresses[0][1]}")
        monkeypatch.setattr(s3_client, "RETRY_SECONDS", 0.2)
        with pytest.raises(error) as refused:
            await photos.fetch(f"s3://{BUCKET}/a.jpg")
        assert status >= 429 or code in refused.value.message
    finally:
        await runner.cleanup()
