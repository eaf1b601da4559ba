"""A stream is one version of an object in small pieces; no large object is ever held in memory."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import aclosing
from pathlib import Path

import pytest

from shashin.errors import PreconditionFailed
from shashin.objectstore.protocol import STREAM_CHUNK_BYTES, ObjectStore
from tests.contract.objectstore.conftest import OpenStore, streamed

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
async def test_the_chunks_are_small_and_together_the_object(store: ObjectStore, size: int) -> None:
    data = random.Random(size).randbytes(size)
    await store.write("a", data)
    chunks = await streamed(store, "a")
    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= STREAM_CHUNK_BYTES for chunk in chunks)


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


async def test_a_stream_that_is_left_early_leaves_nothing_in_the_way(store: ObjectStore) -> None:
    await store.write("a", bytes(4 * MIB))
    async with aclosing(store.stream("a")) as stream:
        await anext(stream)
    await store.write("a", b"other")
    assert await streamed(store, "a") == [b"other"]
    await store.delete("a")


async def test_files_go_up_and_come_down_in_pieces(store: ObjectStore, tmp_path: Path) -> None:
    size = 64 * MIB
    with (tmp_path / "up").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        await store.upload("large", tmp_path / "up")
        await store.download("large", tmp_path / "down")
        async with aclosing(store.stream("large")) as stream:
            streamed_bytes = sum([len(chunk) async for chunk in stream])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "down").stat().st_size == streamed_bytes == size
    assert most < size / 2
