"""A large file is uploaded to Google Cloud Storage although connections break."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from shashin.errors import ObjectStoreUnavailable, PreconditionFailed
from shashin.objectstore.gcs import EMULATOR_VARIABLE, GcsObjectStore
from shashin.objectstore.gcs_upload import CHUNK_BYTES
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import OnlyIf, Version
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.resumable_gcs import KEPT_MULTIPLE, ResumableGcs, resumable_gcs

SIZE = 3 * CHUNK_BYTES + 77
FIRST_CHUNK = f"bytes 0-{CHUNK_BYTES - 1}/{SIZE}"


@pytest.fixture
async def bucket() -> AsyncIterator[ResumableGcs]:
    async with resumable_gcs() as bucket:
        yield bucket


@pytest.fixture
async def proxy(
    bucket: ResumableGcs, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CuttingProxy]:
    async with cutting_proxy(bucket.port) as proxy:
        monkeypatch.setenv(EMULATOR_VARIABLE, proxy.url)
        yield proxy


@pytest.fixture
async def store(proxy: CuttingProxy) -> AsyncIterator[GcsObjectStore]:
    async with opened_object_store("gs://bucket") as store:
        assert isinstance(store, GcsObjectStore)
        yield store


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """What is in the file to upload."""
    data = random.Random(1).randbytes(SIZE)
    (tmp_path / "up").write_bytes(data)
    return data


async def test_a_file_is_sent_in_chunks(
    bucket: ResumableGcs, store: GcsObjectStore, data: bytes, tmp_path: Path
) -> None:
    assert await store.upload("large", tmp_path / "up", only_if=OnlyIf.absent()) == "1"
    assert bucket.content == data
    assert bucket.ranges[0] == FIRST_CHUNK
    assert len(bucket.ranges) == 4


@pytest.mark.parametrize("after", [0, KEPT_MULTIPLE + 5_000, CHUNK_BYTES // 2])
async def test_an_upload_continues_from_what_the_store_kept(
    bucket: ResumableGcs,
    store: GcsObjectStore,
    proxy: CuttingProxy,
    data: bytes,
    tmp_path: Path,
    after: int,
) -> None:
    proxy.cut("sent", after=after)
    proxy.cut("sent", after=CHUNK_BYTES + after)
    await store.upload("large", tmp_path / "up", only_if=OnlyIf.absent())
    assert proxy.cut_connections == 2
    assert bucket.content == data
    assert f"bytes */{SIZE}" in bucket.ranges  # asks before it sends more


async def test_a_lost_response_to_the_last_chunk_is_no_failed_precondition(
    bucket: ResumableGcs,
    store: GcsObjectStore,
    proxy: CuttingProxy,
    data: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    completed = bucket._complete

    def cut_response(*arguments: object) -> object:
        proxy.cut("received", after=0)
        return completed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bucket, "_complete", cut_response)
    version = await store.upload("large", tmp_path / "up", only_if=OnlyIf.absent())
    assert proxy.cut_connections == 1
    assert (version, bucket.content) == ("1", data)


async def test_a_condition_that_does_not_hold_is_refused(
    bucket: ResumableGcs, store: GcsObjectStore, data: bytes, tmp_path: Path
) -> None:
    await store.upload("large", tmp_path / "up")
    for only_if in (OnlyIf.absent(), OnlyIf.unchanged(Version("7"))):
        with pytest.raises(PreconditionFailed, match="object large in gs://bucket"):
            await store.upload("large", tmp_path / "up", only_if=only_if)
    assert bucket.generation == 1


async def test_a_store_that_lost_the_session_can_be_retried(
    bucket: ResumableGcs,
    store: GcsObjectStore,
    data: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = bucket._keep

    async def keep_and_forget(*arguments: object) -> None:
        await keep(*arguments)  # type: ignore[arg-type]
        bucket.sessions.clear()

    monkeypatch.setattr(bucket, "_keep", keep_and_forget)
    with pytest.raises(ObjectStoreUnavailable, match=f"lost an upload after {CHUNK_BYTES} of"):
        await store.upload("large", tmp_path / "up")
    monkeypatch.undo()


async def test_a_store_that_keeps_nothing_is_unavailable(
    bucket: ResumableGcs,
    store: GcsObjectStore,
    few_retries: None,
    data: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def keep_nothing(_session: object, request: web.Request, _start: int) -> None:
        await request.read()

    monkeypatch.setattr(bucket, "_keep", keep_nothing)
    with pytest.raises(ObjectStoreUnavailable, match="object large in gs://bucket"):
        await store.upload("large", tmp_path / "up")
