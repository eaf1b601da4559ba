"""The memory of originals is bounded by bytes, in order, and given back however a photo ends."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import PhotoTooLarge
from shashin.photo_sources.byte_budget import ByteBudget
from tests.support.waiting import until

LIMIT = 100


@given(
    sizes=st.lists(st.integers(0, LIMIT), max_size=30),
    shrinks=st.integers(0, LIMIT),
    seed=st.integers(0, 1000),
)
def test_photos_never_hold_more_than_the_budget_and_all_of_them_get_their_turn(
    sizes: list[int], shrinks: int, seed: int
) -> None:
    rng, held, peak = random.Random(seed), 0, 0

    async def photo(budget: ByteBudget, size: int) -> None:
        nonlocal held, peak
        with budget.lease() as lease:
            await lease.hold(size)
            held += size
            peak = max(peak, held)
            await asyncio.sleep(0)
            kept = min(size, shrinks)
            lease.shrink(kept)
            held -= size - kept
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            held -= kept

    async def all_photos() -> ByteBudget:
        budget = ByteBudget(LIMIT)
        tasks = [asyncio.ensure_future(photo(budget, size)) for size in sizes]
        await asyncio.gather(*tasks)
        return budget

    budget = asyncio.run(all_photos())
    assert peak <= LIMIT
    assert (budget.taken, budget.waiting) == (0, 0)


async def test_a_large_photo_is_not_overtaken_for_ever_by_small_ones() -> None:
    budget, order = ByteBudget(LIMIT), []

    async def photo(name: str, size: int) -> None:
        with budget.lease() as lease:
            await lease.hold(size)
            order.append(name)

    with budget.lease() as first:
        await first.hold(50)
        tasks = [asyncio.ensure_future(photo("large", 90))]
        await until(lambda: budget.waiting == 1, "the large photo waits")
        tasks.append(asyncio.ensure_future(photo("small", 10)))
        await until(lambda: budget.waiting == 2, "the small photo waits")
        assert not order
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]


async def test_a_photo_that_asks_for_other_bytes_gives_back_its_own_first() -> None:
    budget = ByteBudget(LIMIT)
    with budget.lease() as lease:
        await lease.hold(60)
        await lease.hold(90)
        assert budget.taken == 90


@pytest.mark.parametrize("granted", [False, True], ids=["while it waits", "once it was granted"])
async def test_a_photo_that_is_cancelled_keeps_nothing(granted: bool) -> None:
    budget = ByteBudget(LIMIT)
    with budget.lease() as first:
        await first.hold(80)
        with budget.lease() as second:
            waiting = asyncio.ensure_future(second.hold(70))
            others = asyncio.ensure_future(budget.take(20))
            await until(lambda: budget.waiting == 2, "both wait")
            if granted:
                first.shrink(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await others
        assert budget.taken == 20 + (0 if granted else 80)
    assert (budget.taken, budget.waiting) == (20, 0)


async def test_a_photo_larger_than_the_whole_budget_is_refused_with_the_setting_to_raise() -> None:
    with (
        ByteBudget(LIMIT).lease() as lease,
        pytest.raises(PhotoTooLarge, match=r"has 101 bytes; .* 100: raise SHASHIN_ORIGINAL_BYTES"),
    ):
        # The timeout only ends the test if it waits for room that there will never be.
        await asyncio.wait_for(lease.hold(LIMIT + 1), 60)
