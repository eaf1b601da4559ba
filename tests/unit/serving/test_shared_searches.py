"""Searches of an endpoint at the same time: they share turns, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from shashin.codecs.hit_lists import hits_in
from shashin.codecs.limits import MAX_QUERIES, SHARED_QUERIES
from shashin.offsets.coverage import LiveReport
from shashin.serving.quick_searches import RECENT
from shashin.serving.served_shards import ServedShards
from shashin.serving.shared_searches import Found, SharedSearches
from shashin.shards.kinds.protocol import Hits, Vectors
from shashin.shards.row_filter import RowFilter
from tests.support.collector import collecting
from tests.support.hit_columns import hit_columns
from tests.support.made_shards import new_row, open_shard, vector_of
from tests.support.traced import tracing_on
from tests.support.waiting import until

NAMES = [f"listing-{number}" for number in range(MAX_QUERIES)]
EVERY_ROW = RowFilter()


class Watched:
    """Notes what is searched in one go; the search itself is the real one, once it is released."""

    def __init__(self, served: ServedShards) -> None:
        self.goes: list[Vectors] = []
        self.threads: list[threading.Thread] = []
        self.released = threading.Semaphore(0)
        self.failing: Vectors | None = None
        """A vector with which every search fails."""
        shards = served.snapshot().searched
        self._search = shards.search
        shards.search = self.search  # type: ignore[method-assign]

    @property
    def sizes(self) -> list[int]:
        """How many vectors each go had so far."""
        return [len(vectors) for vectors in self.goes]

    def search(self, queries: Vectors, k: int, row_filter: RowFilter) -> Hits:
        self.goes.append(queries)
        self.threads.append(threading.current_thread())
        assert self.released.acquire(timeout=60)
        if self.failing is not None and (queries == self.failing).all(axis=1).any():
            raise MemoryError("no memory for this one")
        return self._search(queries, k, row_filter)


@pytest.fixture
def served() -> ServedShards:
    served = ServedShards()
    served.hidden_loaded = True
    served.serve([open_shard([new_row(name) for name in NAMES])])
    return served


@pytest.fixture
def watched(served: ServedShards) -> Watched:
    return Watched(served)


@pytest.fixture
def searches(served: ServedShards, watched: Watched) -> Iterator[SharedSearches]:
    with ThreadPoolExecutor(1) as executor:
        yield SharedSearches(served, executor, lambda _: LiveReport(), workers=1)
        watched.released.release(1_000)


def vectors_of(*names: str) -> Vectors:
    return np.stack([vector_of(name) for name in names])


def start(
    searches: SharedSearches,
    *names: str,
    row_filter: RowFilter = EVERY_ROW,
    seconds: float | None = None,
) -> asyncio.Task[Found]:
    return asyncio.ensure_future(searches.search(vectors_of(*names), 3, row_filter, seconds))


def nearest(found: Found, queries: int) -> list[str]:
    """Return the first hit of each query."""
    columns = hit_columns(found.parts, found.searched.snapshot.shards, 1)
    return [one.listing_ids[0] for one in hits_in(columns, queries, 1).each_of([1] * queries)]


async def test_searches_that_wait_share_a_turn_and_each_gets_its_own_hits(
    searches: SharedSearches, watched: Watched
) -> None:
    running = [start(searches, NAMES[0])]
    await until(lambda: watched.sizes == [1], "the first one waits for nobody")
    running += [start(searches, name) for name in NAMES[1:6]]
    running.append(start(searches, *NAMES[6:9]))
    await asyncio.sleep(0)
    watched.released.release(2)
    answers = await asyncio.gather(*running)
    assert watched.sizes == [1, 8]
    assert [nearest(answer, 1) for answer in answers[:-1]] == [[name] for name in NAMES[:6]]
    assert nearest(answers[-1], 3) == NAMES[6:9]


async def test_a_query_of_one_vector_does_not_wait_for_one_of_many(
    searches: SharedSearches, watched: Watched
) -> None:
    many = start(searches, *NAMES)
    await until(lambda: watched.sizes == [SHARED_QUERIES], "a part of it is being searched")
    one = start(searches, NAMES[7])
    await asyncio.sleep(0)
    watched.released.release(2)
    assert nearest(await one, 1) == [NAMES[7]]
    assert not many.done()
    watched.released.release(3)
    found = await many
    assert nearest(found, len(NAMES)) == NAMES
    assert watched.sizes == [SHARED_QUERIES, 1] + [SHARED_QUERIES] * 3
    assert {part[0].shards.max() for part in found.parts} == {0}


async def test_a_query_of_many_vectors_finishes_while_others_keep_coming(
    searches: SharedSearches, watched: Watched
) -> None:
    many = start(searches, *NAMES)
    others: list[asyncio.Task[Found]] = []
    while not many.done():
        others.append(start(searches, NAMES[len(others) % len(NAMES)]))
        goes = len(watched.goes)
        watched.released.release()
        await until(lambda: many.done() or len(watched.goes) > goes, "the next turn")  # noqa: B023
        assert len(watched.goes) <= 3 * MAX_QUERIES // SHARED_QUERIES
    watched.released.release(len(others))
    await asyncio.gather(*others)
    assert nearest(many.result(), len(NAMES)) == NAMES


async def test_parts_of_a_search_are_of_one_snapshot_and_later_searches_of_the_next(
    searches: SharedSearches, watched: Watched, served: ServedShards
) -> None:
    many = start(searches, *NAMES)
    await until(lambda: watched.sizes == [SHARED_QUERIES], "a part of it is being searched")
    before = served.snapshot()
    served.serve([open_shard([new_row("other")])])
    later = start(searches, "other")
    watched.released.release(4)
    found = await many
    assert found.searched.snapshot is before
    assert nearest(found, len(NAMES)) == NAMES
    answer = await later
    assert answer.searched.snapshot is served.snapshot()
    assert nearest(answer, 1) == ["other"]


async def test_searches_with_different_filters_do_not_share_a_turn(
    searches: SharedSearches, watched: Watched
) -> None:
    first = start(searches, NAMES[0])
    await until(lambda: watched.sizes == [1], "one is being searched")
    none = RowFilter(categories=("bags",))
    others = [start(searches, NAMES[1]), start(searches, NAMES[2], row_filter=none)]
    watched.released.release(3)
    _, found, nothing = await asyncio.gather(first, *others)
    assert watched.sizes == [1, 1, 1]
    assert nearest(found, 1) == [NAMES[1]]
    assert list(nothing.parts[0][0].counts) == [0]


async def test_a_search_whose_caller_left_or_whose_time_is_over_is_not_searched(
    searches: SharedSearches, watched: Watched
) -> None:
    first = start(searches, NAMES[0])
    await until(lambda: watched.sizes == [1], "one is being searched")
    left, late = start(searches, NAMES[1]), start(searches, NAMES[2], seconds=0.001)
    stays = start(searches, NAMES[3])
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(TimeoutError):
        await late
    watched.released.release(2)
    await asyncio.gather(first, stays)
    assert [vectors.tolist() for vectors in watched.goes] == [
        vectors_of(NAMES[0]).tolist(),
        vectors_of(NAMES[3]).tolist(),
    ]


async def test_a_search_that_fails_does_not_fail_those_that_share_its_turn(
    searches: SharedSearches, watched: Watched
) -> None:
    first = start(searches, NAMES[0])
    await until(lambda: watched.sizes == [1], "one is being searched")
    watched.failing = vectors_of(NAMES[2])
    others = [start(searches, name) for name in NAMES[1:4]]
    watched.released.release(5)
    await first
    good, bad, also_good = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(bad, MemoryError)
    assert isinstance(good, Found)
    assert isinstance(also_good, Found)
    assert (nearest(good, 1), nearest(also_good, 1)) == ([NAMES[1]], [NAMES[3]])
    assert watched.sizes == [1, 3, 1, 1, 1]


async def test_short_searches_need_no_thread_as_long_as_nothing_else_is_running(
    searches: SharedSearches, watched: Watched
) -> None:
    watched.released.release(RECENT)
    for _ in range(RECENT):
        await start(searches, NAMES[0])
    for _ in range(RECENT):
        searches._quick.observe(searches._served.snapshot(), 0.0)
    watched.released.release()
    assert nearest(await start(searches, NAMES[1]), 1) == [NAMES[1]]
    assert watched.threads[-1] is threading.current_thread()
    many = start(searches, *NAMES)
    await until(lambda: watched.sizes[-1] == SHARED_QUERIES, "another one is running")
    one = start(searches, NAMES[2])
    watched.released.release(5)
    await asyncio.gather(many, one)
    assert watched.threads[-1] is not threading.current_thread()


async def test_a_turn_is_a_span_that_is_linked_with_all_searches_that_share_it(
    searches: SharedSearches, watched: Watched
) -> None:
    with collecting() as collector, tracing_on(collector) as tracer:

        async def search(name: str) -> None:
            with tracer.span(name):
                await start(searches, name)

        running = [asyncio.ensure_future(search(NAMES[0]))]
        await until(lambda: watched.sizes == [1], "the first one has a turn of its own")
        running += [asyncio.ensure_future(search(name)) for name in NAMES[1:4]]
        for _ in range(3):
            await asyncio.sleep(0)  # they begin to wait
        watched.released.release(2)
        await asyncio.gather(*running)
    assert watched.sizes == [1, 3]
    waiting = {name: collector.spans(name=name)[0] for name in NAMES[:4]}
    alone, shared = sorted(collector.spans(name="search shards"), key=lambda s: s.began_ns)
    assert (alone.parent_id, alone.links) == (waiting[NAMES[0]].span_id, ())
    assert shared.parent_id == waiting[NAMES[1]].span_id
    assert shared.links == tuple(waiting[name].identity for name in NAMES[2:4])
    assert all(waiting[name].links == (shared.identity,) for name in NAMES[2:4])
    assert shared.attributes == {"shashin.queries": 3}
