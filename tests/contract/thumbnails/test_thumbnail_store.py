"""Thumbnails on every object store: written once, found by their photo's hash."""

from __future__ import annotations

import asyncio

import pytest

from shashin.errors import UserError
from shashin.objectstore.protocol import ObjectStore
from shashin.thumbnails.keys import thumbnail_key
from shashin.thumbnails.store import ThumbnailStore
from tests.contract.conftest import OpenStore

NAME, OTHER = "0123456789abcdef", "0123456789abcdee"


async def test_a_thumbnail_is_found_by_its_hash_and_no_other_is(store: ObjectStore) -> None:
    thumbnails = ThumbnailStore(store)
    assert await thumbnails.read(NAME) is None
    assert not await thumbnails.has(NAME)
    assert await thumbnails.write(NAME, b"\xff\xd8thumbnail")
    assert await thumbnails.read(NAME) == b"\xff\xd8thumbnail"
    assert await thumbnails.has(NAME)
    assert await thumbnails.read(OTHER) is None
    assert [info.key for info in await store.list_objects("")] == [thumbnail_key(NAME)]


async def test_a_second_write_changes_nothing(store: ObjectStore) -> None:
    thumbnails = ThumbnailStore(store)
    assert await thumbnails.write(NAME, b"first")
    before = await store.stat(thumbnail_key(NAME))
    assert not await thumbnails.write(NAME, b"second")
    assert await store.stat(thumbnail_key(NAME)) == before
    assert await thumbnails.read(NAME) == b"first"


async def test_one_of_many_writers_writes_it(open_store: OpenStore) -> None:
    written = await asyncio.gather(
        *(ThumbnailStore(open_store()).write(NAME, b"thumbnail") for _ in range(8))
    )
    assert written.count(True) <= 1, "the answer of the first may have been lost"
    assert await ThumbnailStore(open_store()).read(NAME) == b"thumbnail"


async def test_nothing_but_thumbnails_can_be_asked_for(store: ObjectStore) -> None:
    await store.write("secret", b"secret")
    thumbnails = ThumbnailStore(store)
    for name in ("secret", "../secret", "thumbnails/01/" + NAME, NAME.upper(), ""):
        with pytest.raises(UserError, match="expected 16 hexadecimal digits"):
            await thumbnails.read(name)
