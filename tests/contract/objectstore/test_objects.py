"""Objects are read completely, as they were written, until they are deleted; each has a version."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest

from shashin.errors import ObjectNotFound
from shashin.objectstore.protocol import ObjectInfo, ObjectStore, Version
from tests.contract.conftest import OpenStore
from tests.contract.objectstore.conftest import streamed


async def test_a_written_object_is_read_with_its_version(store: ObjectStore) -> None:
    first = await store.write("indexes/a/manifest.json", b"one")
    assert await store.read("indexes/a/manifest.json") == (b"one", first)
    second = await store.write("indexes/a/manifest.json", b"another")
    assert second != first
    assert await store.read("indexes/a/manifest.json") == (b"another", second)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\r\n\xff", b"\x1f\x8b\x08 is no gzip", b'{"a":'])
async def test_bytes_are_not_interpreted(store: ObjectStore, data: bytes) -> None:
    await store.write("a", data)
    assert (await store.read("a"))[0] == data
    assert b"".join(await streamed(store, "a")) == data


async def test_one_process_reads_what_another_writes(open_store: OpenStore) -> None:
    version = await open_store().write("a/b", b"data")
    assert await open_store().read("a/b") == (b"data", version)
    await open_store().delete("a/b")
    with pytest.raises(ObjectNotFound):
        await open_store().stat("a/b")


@pytest.mark.parametrize("key", ["a", "a/b", "a/b/c", "b"])
async def test_a_missing_object_is_named(store: ObjectStore, key: str) -> None:
    await store.write("a/bc", b"a neighbour")
    looks = (store.stat, store.read, partial(streamed, store))
    for look in looks:
        with pytest.raises(ObjectNotFound, match=f"no object {key} in ") as refused:
            await look(key)
        assert not refused.value.retryable


async def test_every_content_has_its_own_version_however_fast_the_writes(
    store: ObjectStore,
) -> None:
    # Most of these are within the same millisecond as the previous one.
    versions = []
    for number in range(50):
        versions.append(await store.write("a", bytes([number])))
        if number % 2:
            await store.delete("a")
    assert len(set(versions)) == len(versions)


async def test_stat_describes_the_current_version(store: ObjectStore) -> None:
    for data in (b"first", b"the second"):
        version = await store.write("a/b", data)
        assert await store.stat("a/b") == ObjectInfo("a/b", len(data), version)


async def test_a_deleted_object_is_gone_and_its_neighbours_are_not(
    store: ObjectStore, tmp_path: Path
) -> None:
    for key in ("a/b/1", "a/b/2", "a/bc"):
        await store.write(key, b"data")
    await store.delete("a/b/1")
    looks = (store.stat, store.read, partial(streamed, store))
    for look in looks:
        with pytest.raises(ObjectNotFound, match="no object a/b/1 in "):
            await look("a/b/1")
    with pytest.raises(ObjectNotFound, match="no object a/b/1 in "):
        await store.download("a/b/1", tmp_path / "down")
    assert [info.key for info in await store.list_objects("")] == ["a/b/2", "a/bc"]


@pytest.mark.parametrize("key", ["a", "a/b", "a/b/c", "z/y/x"])
async def test_deleting_a_missing_object_is_not_an_error(store: ObjectStore, key: str) -> None:
    await store.delete(key)  # in a store that was never written to
    await store.write("a/bc", b"a neighbour")
    await store.delete(key)
    assert [info.key for info in await store.list_objects("")] == ["a/bc"]


async def test_a_key_can_be_reused_once_nothing_is_below_it(store: ObjectStore) -> None:
    await store.write("a/b/c", b"data")
    await store.delete("a/b/c")
    await store.write("a", b"where a folder was")
    assert [info.key for info in await store.list_objects("")] == ["a"]


async def test_a_reader_sees_complete_objects_during_overwrites(
    open_store: OpenStore,
) -> None:
    writer, reader = open_store(), open_store()
    written: dict[Version, bytes] = {}

    async def write(number: int) -> None:
        data = bytes([number]) * (300_000 + 10_000 * number)
        written[await writer.write("a", data)] = data

    async def overwrite() -> None:
        for number in range(1, 25):
            await write(number)

    await write(0)
    writing = asyncio.ensure_future(overwrite())
    read: list[tuple[bytes, Version]] = [await reader.read("a")]
    while not writing.done():
        read.append(await reader.read("a"))
    await writing
    assert all(written[version] == data for data, version in read)


async def test_a_large_object_comes_back_to_the_byte(store: ObjectStore) -> None:
    data = random.Random(1).randbytes(20 * 1024 * 1024)
    version = await store.write("large", data)
    assert await store.read("large") == (data, version)
    assert await store.list_objects("large") == [ObjectInfo("large", len(data), version)]
