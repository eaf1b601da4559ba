"""Objects are read as they were written, whole, and every write has a generation."""

from __future__ import annotations

import asyncio
import random

import pytest

from shashin.errors import ObjectNotFound
from shashin.objectstore.protocol import ObjectStore
from tests.contract.objectstore.conftest import OpenStore


async def test_what_is_written_is_read_with_its_generation(store: ObjectStore) -> None:
    first = await store.write("indexes/a/manifest.json", b"one")
    assert first > 0, "0 stands for an object that does not exist"
    assert await store.read("indexes/a/manifest.json") == (b"one", first)
    second = await store.write("indexes/a/manifest.json", b"another")
    assert second != first
    assert await store.read("indexes/a/manifest.json") == (b"another", second)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\r\n\xff", b"\x1f\x8b\x08 is no gzip", b'{"a":'])
async def test_bytes_are_not_interpreted(store: ObjectStore, data: bytes) -> None:
    await store.write("a", data)
    assert (await store.read("a"))[0] == data


async def test_what_one_process_writes_another_reads(open_store: OpenStore) -> None:
    generation = await open_store().write("a/b", b"data")
    assert await open_store().read("a/b") == (b"data", generation)


@pytest.mark.parametrize("key", ["a", "a/b", "a/b/c", "b"])
async def test_a_missing_object_is_named(store: ObjectStore, key: str) -> None:
    await store.write("a/bc", b"a neighbour")
    with pytest.raises(ObjectNotFound, match=f"no object {key} in ") as refused:
        await store.read(key)
    assert not refused.value.retryable


async def test_every_write_has_a_generation_of_its_own_however_fast_they_come(
    store: ObjectStore,
) -> None:
    # Most of these fall within the same millisecond as the one before.
    generations = [await store.write("a", b"same bytes") for _ in range(50)]
    assert len(set(generations)) == len(generations)


async def test_a_reader_sees_whole_objects_while_they_are_written_over(
    open_store: OpenStore,
) -> None:
    writer, reader = open_store(), open_store()
    written: dict[int, bytes] = {}

    async def write(number: int) -> None:
        data = bytes([number]) * (300_000 + 10_000 * number)
        written[await writer.write("a", data)] = data

    async def write_over() -> None:
        for number in range(1, 25):
            await write(number)

    await write(0)
    writing = asyncio.ensure_future(write_over())
    read: list[tuple[bytes, int]] = [await reader.read("a")]
    while not writing.done():
        read.append(await reader.read("a"))
    await writing
    assert all(written[generation] == data for data, generation in read)


async def test_a_large_object_comes_back_to_the_byte(store: ObjectStore) -> None:
    data = random.Random(1).randbytes(20 * 1024 * 1024)
    generation = await store.write("large", data)
    assert await store.read("large") == (data, generation)
    (listed,) = await store.list_objects("large")
    assert (listed.size, listed.generation) == (len(data), generation)
