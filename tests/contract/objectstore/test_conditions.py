"""Conditional operations succeed only if the precondition holds, and only for one of many writers."""

from __future__ import annotations

import asyncio

import pytest

from shashin.errors import ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectStore, OnlyIf
from tests.contract.conftest import OpenStore

WRITERS = 8


async def test_a_write_only_if_absent_creates_an_object_and_replaces_none(
    store: ObjectStore,
) -> None:
    version = await store.write("a", b"first", only_if=OnlyIf.absent())
    with pytest.raises(PreconditionFailed, match="object a ") as refused:
        await store.write("a", b"second", only_if=OnlyIf.absent())
    assert not refused.value.retryable
    assert await store.read("a") == (b"first", version)


async def test_a_write_only_if_unchanged_replaces_the_version_that_was_read(
    store: ObjectStore,
) -> None:
    first = await store.write("a", b"first")
    second = await store.write("a", b"second", only_if=OnlyIf.unchanged(first))
    with pytest.raises(PreconditionFailed):
        await store.write("a", b"third", only_if=OnlyIf.unchanged(first))
    assert await store.read("a") == (b"second", second)
    assert await store.write("a", b"third", only_if=OnlyIf.unchanged(second)) != second


async def test_a_write_only_if_unchanged_creates_no_object(store: ObjectStore) -> None:
    version = await store.write("a", b"data")
    with pytest.raises(PreconditionFailed):
        await store.write("b", b"data", only_if=OnlyIf.unchanged(version))
    with pytest.raises(ObjectNotFound):
        await store.read("b")


async def test_a_delete_only_if_unchanged_deletes_the_version_that_was_read(
    store: ObjectStore,
) -> None:
    first = await store.write("a", b"first")
    second = await store.write("a", b"second")
    for stale in (OnlyIf.unchanged(first), OnlyIf.absent()):
        with pytest.raises(PreconditionFailed, match="object a ") as refused:
            await store.delete("a", only_if=stale)
        assert not refused.value.retryable
    assert await store.read("a") == (b"second", second)
    await store.delete("a", only_if=OnlyIf.unchanged(second))
    with pytest.raises(PreconditionFailed):
        await store.delete("a", only_if=OnlyIf.unchanged(second))
    await store.delete("a", only_if=OnlyIf.absent())


async def test_a_deleted_version_is_never_reused(store: ObjectStore) -> None:
    # Otherwise a writer that read the first content would overwrite one that it never saw.
    first = await store.write("a", b"first")
    await store.delete("a")
    second = await store.write("a", b"other")
    assert second != first
    with pytest.raises(PreconditionFailed):
        await store.write("a", b"third", only_if=OnlyIf.unchanged(first))
    assert await store.read("a") == (b"other", second)


async def test_a_write_without_a_condition_always_happens(store: ObjectStore) -> None:
    for data in (b"first", b"second"):
        await store.write("a", data)
        assert (await store.read("a"))[0] == data


async def test_exactly_one_of_many_concurrent_writers_wins(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(WRITERS)]
    only_if = OnlyIf.absent()
    for turn in range(4):  # first without an object, then over the previous winner
        results = await asyncio.gather(
            *(
                # Never the same bytes again: they may keep the version, so that two may write.
                store.write("pointer", bytes([turn, number]), only_if=only_if)
                for number, store in enumerate(stores)
            ),
            return_exceptions=True,
        )
        (winner,) = [n for n, result in enumerate(results) if isinstance(result, str)]
        lost = [result for result in results if isinstance(result, PreconditionFailed)]
        assert len(lost) == WRITERS - 1, results
        data, version = await stores[0].read("pointer")
        assert (data, version) == (bytes([turn, winner]), results[winner])
        only_if = OnlyIf.unchanged(version)


async def test_no_update_is_lost_with_concurrent_read_modify_write(open_store: OpenStore) -> None:
    await open_store().write("counter", b"0")

    async def count(times: int) -> None:
        store = open_store()
        while times:
            data, version = await store.read("counter")
            more = str(int(data) + 1).encode()
            try:
                await store.write("counter", more, only_if=OnlyIf.unchanged(version))
            except PreconditionFailed:
                continue  # another one was faster
            times -= 1

    await asyncio.gather(*(count(5) for _ in range(4)))
    assert (await open_store().read("counter"))[0] == b"20"
