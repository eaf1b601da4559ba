"""A stream returns one version of an object in small chunks; large objects are never all in memory."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import aclosing
from pathlib import Path

import pytest

from shashin.errors import ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import STREAM_CHUNK_BYTES, ObjectStore
from tests.contract.conftest import OpenStore
from tests.contract.objectstore.conftest import streamed

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        STREAM_CHUNK_BYTES - 1,
        STREAM_CHUNK_BYTES,
        STREAM_CHUNK_BYTES + 1,
        8 * MIB,
        20 * MIB + 1,
    ],
)
async def test_chunks_are_small_and_add_up_to_the_object(store: ObjectStore, size: int) -> None:
    data = random.Random(size).randbytes(size)
    await store.write("a", data)
    chunks = await streamed(store, "a")
    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= STREAM_CHUNK_BYTES for chunk in chunks)


async def test_an_opened_object_tells_its_size_and_version_before_it_is_read(
    store: ObjectStore,
) -> None:
    data = random.Random(0).randbytes(3 * MIB)
    await store.write("a", data)
    async with store.opened("a") as found:
        assert found is not None
        assert found.info == await store.stat("a")
        assert b"".join([chunk async for chunk in found.chunks]) == data


async def test_an_object_is_opened_only_if_it_has_changed(store: ObjectStore) -> None:
    version = await store.write("a", b"data")
    async with store.opened("a", unless=version) as unchanged:
        assert unchanged is None
    await store.write("a", b"other data")
    async with store.opened("a", unless=version) as changed:
        assert changed is not None
        assert [chunk async for chunk in changed.chunks] == [b"other data"]
    with pytest.raises(ObjectNotFound):
        async with store.opened("b", unless=version):
            pass


async def test_an_object_that_was_opened_and_not_read_blocks_no_later_operation(
    store: ObjectStore,
) -> None:
    await store.write("a", bytes(4 * MIB))
    for _ in range(40):  # more than a store has connections
        async with store.opened("a") as found:
            assert found is not None
    assert (await store.stat("a")).size == 4 * MIB


@pytest.mark.parametrize("change", ["overwritten", "deleted", "deleted and written again"])
@pytest.mark.parametrize("after", [0, 1, 5])
async def test_an_object_that_changes_while_it_is_streamed_is_one_version_or_an_error(
    open_store: OpenStore, change: str, after: int
) -> None:
    reader, writer = open_store(), open_store()
    first = random.Random(1).randbytes(20 * MIB)
    await writer.write("a", first)
    chunks: list[bytes] = []
    refused = None
    try:
        async with aclosing(reader.stream("a")) as stream:
            while len(chunks) <= after:
                chunks.append(await anext(stream))
            if change != "overwritten":
                await writer.delete("a")
            if change != "deleted":
                await writer.write("a", random.Random(2).randbytes(20 * MIB))
            chunks += [chunk async for chunk in stream]
    except PreconditionFailed as error:
        refused = error
    streamed_bytes = b"".join(chunks)
    assert first.startswith(streamed_bytes)
    assert len(streamed_bytes) == len(first) or "object a" in str(refused)


async def test_closing_a_stream_early_does_not_block_later_operations(store: ObjectStore) -> None:
    await store.write("a", bytes(4 * MIB))
    async with aclosing(store.stream("a")) as stream:
        await anext(stream)
    await store.write("a", b"other")
    assert await streamed(store, "a") == [b"other"]
    await store.delete("a")


async def test_files_are_uploaded_and_downloaded_in_chunks(
    store: ObjectStore, tmp_path: Path
) -> None:
    size = 80 * MIB
    with (tmp_path / "up").open("wb") as file:
        file.truncate(size)
    await store.write("small", b"")  # what opening a client takes is not counted
    tracemalloc.start()
    try:
        await store.upload("large", tmp_path / "up")
        await store.download("large", tmp_path / "down")
        async with aclosing(store.stream("large")) as stream:
            streamed_bytes = sum([len(chunk) async for chunk in stream])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "down").stat().st_size == streamed_bytes == size
    assert peak < size / 2
