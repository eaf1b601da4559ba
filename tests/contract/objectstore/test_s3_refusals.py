"""What an S3 server may answer: which errors are retryable, and what is done about each."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.protocol import OnlyIf, Version
from shashin.objectstore.s3 import PART_BYTES, S3ObjectStore, part_bytes
from tests.contract.objectstore.conftest import names_in, streamed

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

pytestmark = pytest.mark.usefixtures("few_retries")

VERSION = Version('"an etag"')


@asynccontextmanager
async def answering(answer: Answer, patch: pytest.MonkeyPatch) -> AsyncIterator[S3ObjectStore]:
    """A store whose requests all get this response."""
    app = web.Application(client_max_size=2 * PART_BYTES)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    store = S3ObjectStore("bucket")
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{runner.addresses[0][1]}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield store
    finally:
        await store.close()
        await runner.cleanup()


def refusal(status: int, code: str) -> web.Response:
    xml = f"<Error><Code>{code}</Code><Message>says the store</Message></Error>"
    return web.Response(status=status, text=xml, content_type="application/xml")


def refusing(status: int, code: str) -> Answer:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        return refusal(status, code)

    return refuse


def operations(store: S3ObjectStore, folder: Path) -> list[Callable[[], Awaitable[object]]]:
    (folder / "up").write_bytes(b"data")
    return [
        lambda: store.stat("a"),
        lambda: store.read("a"),
        lambda: streamed(store, "a"),
        lambda: store.download("a", folder / "down"),
        lambda: store.write("a", b"data"),
        lambda: store.upload("a", folder / "up"),
        lambda: store.delete("a"),
        lambda: store.delete("a", only_if=OnlyIf.absent()),
        lambda: store.list_objects("a"),
    ]


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, "ExpiredToken", "the credentials are wrong or have expired: renew them"),
        (403, "InvalidAccessKeyId", "the credentials are wrong or have expired: renew them"),
        (403, "AccessDenied", "allow these credentials to get, put, delete and list objects"),
        (403, "RequestTimeTooSkewed", "set this machine's clock"),
        (400, "InvalidRequest", "status 400"),
        (501, "NotImplemented", "status 501"),
    ],
)
async def test_a_refusal_says_what_to_do_and_is_not_retryable(
    status: int, code: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also for HEAD, whose response has no code.
    async with answering(refusing(status, code), monkeypatch) as store:
        for operate in operations(store, tmp_path):
            with pytest.raises(ObjectStoreError, match=remedy) as refused:
                await operate()
            assert f"{code}: says the store" in refused.value.message
            assert "object a in s3://bucket" in refused.value.message
            assert not refused.value.retryable


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_store_in_trouble_can_be_retried(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(refusing(status, "SlowDown"), monkeypatch) as store:
        for operate in operations(store, tmp_path):
            with pytest.raises(ObjectStoreUnavailable, match="object a in s3://bucket") as failed:
                await operate()
            assert failed.value.retryable
    assert names_in(tmp_path) == ["up"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "RequestTimeout"), (400, "BadDigest"), (409, "ConditionalRequestConflict")],
)
async def test_a_refusal_that_does_not_last_can_be_retried(
    status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(refusing(status, code), monkeypatch) as store:
        with pytest.raises(ObjectStoreUnavailable, match=f"object a in s3://bucket: {code}"):
            await store.write("a", b"data", only_if=OnlyIf.absent())


async def test_a_throttled_request_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [refusal(503, "SlowDown"), refusal(429, "SlowDown"), web.Response(status=500)]

    async def answer(_request: web.Request) -> web.StreamResponse:
        return answers.pop() if answers else web.Response(headers={"ETag": VERSION})

    monkeypatch.setattr("shashin.objectstore.s3_client.RETRY_SECONDS", 10.0)
    async with answering(answer, monkeypatch) as store:
        assert await store.write("a", b"data") == VERSION
    assert answers == []


async def test_without_list_permission_a_missing_object_is_still_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        # Only a listing can tell a missing object from a missing bucket.
        listing = "list-type" in request.query
        return refusal(403, "AccessDenied") if listing else refusal(404, "NoSuchKey")

    async with answering(answer, monkeypatch) as store:
        for look in (store.stat, store.read):
            with pytest.raises(ObjectNotFound, match="no object a in s3://bucket"):
                await look("a")


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchKey"), (412, "PreconditionFailed")])
async def test_a_missing_object_is_another_version_than_expected(
    status: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # AWS says 404, other servers 412.
    conditions: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if "uploads" in request.query:
            xml = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            return web.Response(text=xml, content_type="application/xml")
        if "partNumber" in request.query:
            return web.Response(headers={"ETag": '"part"'})
        if request.method == "DELETE" and "uploadId" in request.query:
            return web.Response(status=204)
        conditions.append(request.headers.get("If-Match"))
        return refusal(status, code)

    with (tmp_path / "large").open("wb") as large:
        large.truncate(PART_BYTES + 1)
    only_if = OnlyIf.unchanged(VERSION)
    async with answering(answer, monkeypatch) as store:
        for operate in (
            lambda: store.write("a", b"data", only_if=only_if),
            lambda: store.upload("a", tmp_path / "large", only_if=only_if),
            lambda: store.delete("a", only_if=only_if),
        ):
            with pytest.raises(PreconditionFailed, match="object a in s3://bucket"):
                await operate()
    assert conditions == [VERSION] * 3


async def test_an_upload_whose_parts_are_lost_can_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "uploads" in request.query:
            xml = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            return web.Response(text=xml, content_type="application/xml")
        return refusal(404, "NoSuchUpload")

    with (tmp_path / "large").open("wb") as large:
        large.truncate(PART_BYTES + 1)
    async with answering(answer, monkeypatch) as store:
        with pytest.raises(ObjectStoreUnavailable, match=r"object a in .*NoSuchUpload"):
            await store.upload("a", tmp_path / "large")


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


DATA, DAMAGED = b"as it was written", b"as it was wriTTen"


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": VERSION, "x-amz-checksum-crc32": crc32(DATA)},
        {"ETag": md5(DATA)},
    ],
    ids=["CRC32", "MD5"],
)
async def test_damaged_bytes_are_never_returned(
    headers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = DATA

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers=headers)

    async with answering(answer, monkeypatch) as store:
        assert (await store.read("a"))[0] == DATA
        body = DAMAGED
        with pytest.raises(ObjectStoreUnavailable, match="checksum mismatch"):
            await store.read("a")
        with pytest.raises(ObjectStoreUnavailable, match="checksum mismatch"):
            await store.download("a", tmp_path / "down")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"0123456789abcdef0123456789abcdef-2"'},
        {"ETag": md5(b"encrypted"), "x-amz-server-side-encryption": "aws:kms"},
        {
            "ETag": VERSION,
            "x-amz-checksum-crc32": f"{crc32(b'of parts')}-2",
            "x-amz-checksum-type": "COMPOSITE",
        },
    ],
    ids=["in parts", "encrypted", "composite"],
)
async def test_what_is_no_checksum_of_the_object_is_not_taken_for_one(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=DATA, headers=headers)

    async with answering(answer, monkeypatch) as store:
        assert await store.read("a") == (DATA, headers["ETag"])


async def cut_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "ETag": VERSION})
    await response.prepare(request)
    await response.write(bytes(500))
    assert request.transport is not None
    request.transport.close()
    return response


async def test_a_server_that_ignores_ranges_is_refused_rather_than_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(cut_in_the_middle, monkeypatch) as store:
        for operate in (
            lambda: store.read("a"),
            lambda: streamed(store, "a"),
            lambda: store.download("a", tmp_path / "down"),
        ):
            with pytest.raises(ObjectStoreError, match="does not support ranged reads"):
                await operate()
    assert names_in(tmp_path) == []


async def test_a_listing_has_all_pages_and_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        page = int(request.query.get("continuation-token", "0"))
        contents = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;{key}&quot;</ETag></Contents>"
            for key in (f"a/{page}", f"a/{page}/")
        )
        more = f"<NextContinuationToken>{page + 1}</NextContinuationToken>" if page < 3 else ""
        xml = (
            f"<ListBucketResult>{contents}<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
            f"{more}</ListBucketResult>"
        )
        return web.Response(text=xml, content_type="application/xml")

    async with answering(answer, monkeypatch) as store:
        listed = await store.list_objects("a/")
    assert [info.key for info in listed] == ["a/0", "a/1", "a/2", "a/3"]


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 80_000 * 1024 * 1024, 5 * 1024**4])
def test_no_file_has_too_many_parts(size: int) -> None:
    assert part_bytes(size) >= PART_BYTES
    assert size / part_bytes(size) <= 10_000
