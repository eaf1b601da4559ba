"""Thumbnails are read once for all who ask at the same time, and kept in memory up to a bound."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shashin.errors import ObjectStoreUnavailable, UserError
from shashin.thumbnails.reader import ThumbnailReader, opened_thumbnails
from tests.support.waiting import until
from tests.unit.thumbnails.stores import OddStore, unavailable

SIZES = {0: 10, 1: 20, 2: 30, 3: 40, 4: 200}
"""Bytes of the thumbnail of each photo; the last one fits no cache here."""


def name_of(number: int) -> str:
    return f"{number:016x}"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # thumbnails never change
)
@given(asked=st.lists(st.sampled_from([*SIZES, 9]), max_size=30), limit=st.integers(0, 100))
async def test_it_reads_what_a_cache_of_this_size_has_not(
    tmp_path: Path, asked: list[int], limit: int
) -> None:
    store = OddStore(tmp_path)
    for number, size in SIZES.items():
        await store.write(name_of(number), bytes([number]) * size)
    store.calls = expected = 0
    reader = ThumbnailReader(store, cache_bytes=limit)
    kept: OrderedDict[int, int] = OrderedDict()
    for number in asked:
        found = await reader.read(name_of(number))
        assert found == (bytes([number]) * SIZES[number] if number in SIZES else None)
        if number in kept:
            kept.move_to_end(number)
        else:
            expected += 1
            if SIZES.get(number, limit + 1) <= limit:
                kept[number] = SIZES[number]
            while sum(kept.values()) > limit:
                kept.popitem(last=False)
        assert reader.cached_bytes == sum(kept.values())
    assert store.calls == expected


async def test_all_who_ask_for_one_wait_for_the_same_read_and_one_that_stops_ends_no_others(
    tmp_path: Path,
) -> None:
    store = OddStore(tmp_path)
    await store.write(name_of(1), b"thumbnail")
    store.calls = 0
    store.open.clear()
    reader = ThumbnailReader(store, cache_bytes=100)
    waiting = [asyncio.ensure_future(reader.read(name_of(1))) for _ in range(10)]
    await until(lambda: store.calls == 1, "it is read")
    for impatient in waiting[:5]:
        impatient.cancel()
        with suppress(asyncio.CancelledError):
            await impatient
    store.open.set()
    assert await asyncio.gather(*waiting[5:]) == [b"thumbnail"] * 5
    assert await reader.read(name_of(1)) == b"thumbnail"
    assert store.calls == 1


async def test_a_read_that_fails_fails_for_all_and_is_tried_again_by_the_next(
    tmp_path: Path,
) -> None:
    store = OddStore(tmp_path)
    await store.write(name_of(1), b"thumbnail")
    store.calls, store.errors = 0, [unavailable()]
    reader = ThumbnailReader(store, cache_bytes=100)
    found = await asyncio.gather(
        *(reader.read(name_of(1)) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(error, ObjectStoreUnavailable) for error in found)
    assert store.calls == 1
    assert await reader.read(name_of(1)) == b"thumbnail"


async def test_one_that_is_missing_is_found_once_it_is_written(tmp_path: Path) -> None:
    store = OddStore(tmp_path)
    reader = ThumbnailReader(store, cache_bytes=100)
    assert await reader.read(name_of(1)) is None
    await store.write(name_of(1), b"thumbnail")
    assert await reader.read(name_of(1)) == b"thumbnail"


async def test_what_is_no_hash_is_refused(tmp_path: Path) -> None:
    reader = ThumbnailReader(OddStore(tmp_path), cache_bytes=100)
    with pytest.raises(UserError, match="expected 16 hexadecimal digits"):
        await reader.read("../../etc/passwd")


async def test_closing_ends_reads_that_hang(tmp_path: Path) -> None:
    store = OddStore(tmp_path)
    store.open.clear()
    reader = ThumbnailReader(store, cache_bytes=100)
    hanging = asyncio.ensure_future(reader.read(name_of(1)))
    await until(lambda: store.calls == 1, "it reads")
    await reader.close()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_a_store_is_opened_by_its_uri(tmp_path: Path) -> None:
    store = OddStore(tmp_path / "the store")
    await store.write(name_of(1), b"thumbnail")
    async with opened_thumbnails((tmp_path / "the store").as_uri(), cache_bytes=100) as reader:
        assert await reader.read(name_of(1)) == b"thumbnail"
