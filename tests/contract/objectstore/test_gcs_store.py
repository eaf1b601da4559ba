"""Failure modes of a remote store: it is unavailable, has no bucket, or returns corrupt bytes."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shashin.errors import ObjectStoreError, ObjectStoreUnavailable
from shashin.objectstore.gcs import EMULATOR_VARIABLE, GcsObjectStore
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import OnlyIf
from tests.contract.objectstore.conftest import names_in, streamed
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.fake_gcs import BUCKET, FakeGcs
from tests.support.waiting import until

MIB = 1024 * 1024
LARGE = 20 * MIB + 77


@pytest.fixture
def emulator(gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> FakeGcs:
    monkeypatch.setenv(EMULATOR_VARIABLE, gcs.url)
    return gcs


async def test_an_unavailable_store_is_retryable_and_works_again_when_it_is_back(
    lasting_gcs: FakeGcs, few_retries: None, tmp_path: Path
) -> None:
    store = GcsObjectStore(BUCKET, "a folder")
    version = await store.write("a", b"data")
    (tmp_path / "up").write_bytes(b"data")
    await lasting_gcs.kill()
    failures = await asyncio.gather(
        store.stat("a"),
        store.read("a"),
        streamed(store, "a"),
        store.download("a", tmp_path / "down"),
        store.write("a", b"more"),
        store.upload("a", tmp_path / "up"),
        store.delete("a"),
        store.delete("a", only_if=OnlyIf.absent()),
        store.list_objects(""),
        return_exceptions=True,
    )
    for failure in failures:
        assert isinstance(failure, ObjectStoreUnavailable), failure
        assert failure.retryable
        assert f"gs://{BUCKET}/a folder" in failure.message
    assert names_in(tmp_path) == ["up"]
    await lasting_gcs.start()
    assert await store.read("a") == (b"data", version)
    assert await store.write("a", b"more", only_if=OnlyIf.unchanged(version)) != version


async def test_every_operation_reports_a_missing_bucket(emulator: FakeGcs, tmp_path: Path) -> None:
    # A reader must not mistake a mistyped bucket for an empty one.
    (tmp_path / "up").write_bytes(b"data")
    store = GcsObjectStore("mistyped", "a folder")
    refusals = await asyncio.gather(
        store.stat("a"),
        store.read("a"),
        streamed(store, "a"),
        store.download("a", tmp_path / "down"),
        store.write("a", b"data"),
        store.upload("a", tmp_path / "up"),
        store.delete("a"),
        store.delete("a", only_if=OnlyIf.absent()),
        store.list_objects(""),
        return_exceptions=True,
    )
    for refusal in refusals:
        assert type(refusal) is ObjectStoreError, refusal
        assert "there is no bucket mistyped" in refusal.message
        assert not refusal.retryable


async def test_corrupt_bytes_are_never_returned(
    lasting_gcs: FakeGcs, few_retries: None, tmp_path: Path
) -> None:
    store = GcsObjectStore(BUCKET)
    await store.write("a", b"as it was written")
    (stored,) = lasting_gcs.files_of("a")
    stored.write_bytes(b"as it was wriTTen")
    with pytest.raises(ObjectStoreUnavailable, match="Checksum mismatch"):
        await store.read("a")
    with pytest.raises(ObjectStoreUnavailable, match="Checksum mismatch"):
        await store.download("a", tmp_path / "down")
    assert names_in(tmp_path) == []


async def test_a_store_is_one_folder_of_its_bucket(emulator: FakeGcs) -> None:
    folder = uuid.uuid4().hex
    whole, one, two = (
        GcsObjectStore(BUCKET, prefix) for prefix in ("", folder, f"{folder}-and-more")
    )
    await one.write("a", b"one")
    await two.write("a", b"two")
    assert (await one.read("a"))[0] == b"one"
    assert [info.key for info in await one.list_objects("")] == ["a"]
    assert {info.key for info in await whole.list_objects(folder)} == {
        f"{folder}/a",
        f"{folder}-and-more/a",
    }


async def test_every_write_gets_its_own_version_even_for_the_same_bytes(
    emulator: FakeGcs,
) -> None:
    store = GcsObjectStore(BUCKET, uuid.uuid4().hex)
    versions = [await store.write("a", b"same bytes") for _ in range(50)]
    assert len(set(versions)) == len(versions)


async def test_a_listing_has_more_than_one_page(emulator: FakeGcs) -> None:
    store = GcsObjectStore(BUCKET, uuid.uuid4().hex)
    keys = [f"shard-{number:04}" for number in range(1003)]  # a page has 1,000
    await asyncio.gather(*(store.write(key, b"") for key in keys))
    assert [info.key for info in await store.list_objects("shard-")] == keys


@pytest.fixture
async def proxy(gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CuttingProxy]:
    """A proxy that the stores opened after this use."""
    async with cutting_proxy(gcs.port) as proxy:
        monkeypatch.setenv(EMULATOR_VARIABLE, proxy.url)
        yield proxy


async def test_a_download_continues_where_it_was_cut(proxy: CuttingProxy, tmp_path: Path) -> None:
    async with opened_object_store(f"gs://{BUCKET}/{uuid.uuid4().hex}") as store:
        data = random.Random(1).randbytes(LARGE)
        await store.write("large", data)
        before = proxy.received_bytes
        for after in (0, 1 * MIB, 5 * MIB):
            proxy.cut("received", after=after)
        await store.download("large", tmp_path / "down")
        assert proxy.cut_connections == 3
        assert (tmp_path / "down").read_bytes() == data
        assert proxy.received_bytes - before < LARGE + 8 * MIB, "nothing much comes twice"
        for after in (0, 1 * MIB, 5 * MIB):
            proxy.cut("received", after=after)
        assert b"".join(await streamed(store, "large")) == data
        assert proxy.cut_connections == 6
        assert names_in(tmp_path) == ["down"]


async def test_a_download_that_is_cut_begins_again_if_its_object_was_overwritten(
    emulator: FakeGcs, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = f"gs://{BUCKET}/{uuid.uuid4().hex}"
    newer = b"1" * LARGE
    async with opened_object_store(uri) as cut_store, opened_object_store(uri) as store:
        await cut_store.write("large", bytes(LARGE))
        monkeypatch.setenv(EMULATOR_VARIABLE, emulator.url)
        proxy.cut("received", after=LARGE // 2)
        for _ in range(1000):
            proxy.cut("received", after=0)
        downloading = asyncio.ensure_future(cut_store.download("large", tmp_path / "down"))
        await until(lambda: proxy.cut_connections, "it is cut")
        await store.write("large", newer)
        proxy.stop_cutting()
        await downloading
    assert (tmp_path / "down").read_bytes() == newer
    assert names_in(tmp_path) == ["down"]
