"""A write under a condition happens only where it holds, and only once where many try."""

from __future__ import annotations

import asyncio

import pytest

from shashin.errors import ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectStore
from tests.contract.objectstore.conftest import OpenStore

WRITERS = 8


async def test_generation_zero_writes_only_where_nothing_is(store: ObjectStore) -> None:
    generation = await store.write("a", b"first", if_generation_match=0)
    with pytest.raises(PreconditionFailed, match="object a ") as refused:
        await store.write("a", b"second", if_generation_match=0)
    assert not refused.value.retryable
    assert await store.read("a") == (b"first", generation)


async def test_a_generation_is_written_over_only_while_it_lasts(store: ObjectStore) -> None:
    first = await store.write("a", b"first")
    second = await store.write("a", b"second", if_generation_match=first)
    with pytest.raises(PreconditionFailed):
        await store.write("a", b"third", if_generation_match=first)
    assert await store.read("a") == (b"second", second)
    assert await store.write("a", b"third", if_generation_match=second) != second


async def test_a_generation_is_not_written_where_nothing_is(store: ObjectStore) -> None:
    generation = await store.write("a", b"data")
    with pytest.raises(PreconditionFailed):
        await store.write("b", b"data", if_generation_match=generation)
    with pytest.raises(ObjectNotFound):
        await store.read("b")


async def test_a_write_without_a_condition_always_happens(store: ObjectStore) -> None:
    for data in (b"first", b"second"):
        await store.write("a", data)
        assert (await store.read("a"))[0] == data


async def test_of_many_writers_at_the_same_time_exactly_one_wins(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(WRITERS)]
    generation = 0
    for _ in range(4):  # where nothing is, then over what won
        results = await asyncio.gather(
            *(
                store.write("pointer", bytes([number]), if_generation_match=generation)
                for number, store in enumerate(stores)
            ),
            return_exceptions=True,
        )
        (winner,) = [n for n, result in enumerate(results) if isinstance(result, int)]
        lost = [result for result in results if isinstance(result, PreconditionFailed)]
        assert len(lost) == WRITERS - 1, results
        data, generation = await stores[0].read("pointer")
        assert (data, generation) == (bytes([winner]), results[winner])


async def test_no_change_is_lost_when_all_write_over_what_they_read(open_store: OpenStore) -> None:
    await open_store().write("counter", b"0")

    async def count(times: int) -> None:
        store = open_store()
        while times:
            data, generation = await store.read("counter")
            try:
                await store.write(
                    "counter", str(int(data) + 1).encode(), if_generation_match=generation
                )
            except PreconditionFailed:
                continue  # another was quicker
            times -= 1

    await asyncio.gather(*(count(5) for _ in range(4)))
    assert (await open_store().read("counter"))[0] == b"20"
