"""Searches at the same time share calls to an endpoint, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from services.router.sharing import CALLS_AT_ONCE
from shashin.codecs.limits import SHARED_QUERIES
from shashin.codecs.unit_vectors import unit_length
from shashin.shards.format.row import RowAttributes
from shashin.v1 import index_pb2, search_pb2
from tests.support.running_router import (
    DIMENSIONS,
    HeldBackEndpoint,
    Listing,
    System,
    Vector,
    hits,
    shard_of,
    vector_of,
)
from tests.support.waiting import until

NAMES = [f"listing-{number}" for number in range(40)]


class WatchedEndpoint(HeldBackEndpoint):
    """Notes the requests that arrive, and answers them once it is released."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[index_pb2.IndexSearchRequest] = []
        self.cancelled: list[int] = []
        """How many queries each cancelled request had."""

    async def Search(  # noqa: N802
        self, request: index_pb2.IndexSearchRequest, context: Any
    ) -> index_pb2.IndexSearchResponse:
        self.requests.append(request)
        try:
            return await super().Search(request, context)
        except asyncio.CancelledError:
            self.cancelled.append(len(request.queries) // (4 * DIMENSIONS))
            raise

    @property
    def batches(self) -> list[int]:
        """How many queries each request has."""
        return [len(request.queries) // (4 * DIMENSIONS) for request in self.requests]


@pytest.fixture
async def watched(system: System) -> WatchedEndpoint:
    shard = shard_of(
        Listing(name, attributes=RowAttributes("even" if n % 2 == 0 else "odd"))
        for n, name in enumerate(NAMES)
    )
    started = await system.index("indexer", "live", shard, kind=WatchedEndpoint)
    await system.until_described()
    handlers: WatchedEndpoint = started.handlers
    return handlers


async def searching(
    system: System, names: list[str], **fields: Any
) -> list[asyncio.Task[search_pb2.SearchResponse]]:
    """Start a search for each listing's vector."""
    return [asyncio.ensure_future(system.search(vector_of(name), **fields)) for name in names]


async def test_searches_at_the_same_time_share_calls_and_each_gets_its_own_hits(
    system: System, watched: WatchedEndpoint
) -> None:
    running = await searching(system, NAMES[:1], k=3)
    await until(watched.searching.is_set, "the search is at its endpoint")
    running += await searching(system, NAMES[1:], k=3)
    await until(lambda: sum(watched.batches) == len(NAMES), "all have arrived")
    assert watched.batches[0] == 1, "the first one waits for nobody"
    assert len(watched.batches) < len(NAMES), "others share calls"
    watched.released.set()
    for name, answer in zip(NAMES, await asyncio.gather(*running), strict=True):
        assert len(answer.hits) == 3
        assert hits(answer)[0] == (name, 1, 0)
        assert answer.coverage.complete
        assert all(hit.attributes.category for hit in answer.hits)


async def test_only_searches_that_want_the_same_share_a_call(
    system: System, watched: WatchedEndpoint
) -> None:
    running = await searching(system, NAMES[:1], k=3)
    await until(watched.searching.is_set, "the search is at its endpoint")
    even = index_pb2.Filter(categories=["even"])
    running += await searching(system, NAMES[:10], k=3, filter=even)
    running += await searching(system, NAMES[:10], k=5)
    running += await searching(system, NAMES[:10], k=3)
    await until(lambda: sum(watched.batches) == 31, "all have arrived")
    watched.released.set()
    answers = await asyncio.gather(*running)
    assert [len(answer.hits) for answer in answers] == [3] + [3] * 10 + [5] * 10 + [3] * 10
    for answer in answers[1:11]:
        assert {hit.attributes.category for hit in answer.hits} == {"even"}
    wanted = {(request.k, tuple(request.filter.categories)) for request in watched.requests}
    assert len(wanted) == 3


async def test_a_search_whose_deadline_passes_ends_alone(
    system: System, watched: WatchedEndpoint
) -> None:
    running: list[asyncio.Task[search_pb2.SearchResponse]] = []
    for number, name in enumerate(NAMES[:CALLS_AT_ONCE], 1):
        running += await searching(system, [name])
        await until(lambda: len(watched.batches) == number, "the search is at its endpoint")  # noqa: B023
    (hasty,) = await searching(system, NAMES[6:7], deadline_ms=200)
    running += await searching(system, NAMES[CALLS_AT_ONCE:6])
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await hasty
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    watched.released.set()
    assert watched.batches == [1] * CALLS_AT_ONCE + [7 - CALLS_AT_ONCE], "it shares its call"
    answers = await asyncio.gather(*running)
    assert [hits(answer)[0][0] for answer in answers] == NAMES[:6]


async def test_a_search_that_is_given_up_leaves_the_others(
    system: System, watched: WatchedEndpoint
) -> None:
    running = await searching(system, NAMES[:1])
    await until(watched.searching.is_set, "the search is at its endpoint")
    (given_up,) = await searching(system, NAMES[1:2])
    running += await searching(system, NAMES[2:6])
    await until(lambda: sum(watched.batches) == 6, "all have arrived")
    given_up.cancel()
    watched.released.set()
    answers = await asyncio.gather(*running)
    assert [hits(answer)[0][0] for answer in answers] == [NAMES[0], *NAMES[2:6]]


async def test_a_call_for_which_nobody_waits_any_more_is_cancelled(
    system: System, watched: WatchedEndpoint
) -> None:
    (only,) = await searching(system, NAMES[:1])
    await until(watched.searching.is_set, "the search is at its endpoint")
    searches: dict[str, asyncio.Task[search_pb2.SearchResponse]] = {}
    # A busy machine may bring two to the router too far apart for one call.
    while not any(batch > 1 for batch in watched.batches):
        names = NAMES[1 + len(searches) :][:4]
        assert names, "no two searches shared a call"
        searches.update(zip(names, await searching(system, names), strict=True))
        await until(lambda: sum(watched.batches) == 1 + len(searches), "all have arrived")
    shared = next(request for request in watched.requests if len(request.queries) > 4 * DIMENSIONS)
    given_up, *kept = [name for name in searches if vector_of(name).tobytes() in shared.queries]
    only.cancel()
    searches.pop(given_up).cancel()
    await until(lambda: watched.cancelled == [1], "the call of the first one alone is cancelled")
    watched.released.set()
    assert kept
    for name, search in searches.items():
        assert hits(await search)[0][0] == name
    assert watched.cancelled == [1]


async def test_a_query_of_one_vector_does_not_share_a_call_with_one_of_many(
    system: System, watched: WatchedEndpoint
) -> None:
    album = Listing("album", photos=SHARED_QUERIES + 4)
    await system.index("server", "hourly", shard_of([album], from_offset=len(NAMES)))
    await system.until_described()
    running = await searching(system, NAMES[:1], k=3)
    await until(watched.searching.is_set, "the search is at its endpoint")
    running.append(asyncio.ensure_future(system.search(listing_id="album", k=3)))
    await until(lambda: SHARED_QUERIES + 4 in watched.batches, "it waits for no other call")
    running += await searching(system, NAMES[1:5], k=3)
    await until(lambda: sum(watched.batches) == SHARED_QUERIES + 4 + 5, "all have arrived")
    assert all(batch <= 4 or batch == SHARED_QUERIES + 4 for batch in watched.batches)
    watched.released.set()
    first, album_answer, *answers = await asyncio.gather(*running)
    assert [hits(answer)[0][0] for answer in (first, *answers)] == NAMES[:5]
    assert len(album_answer.hits) == 3
    assert album_answer.coverage.complete


async def test_hits_that_come_into_the_list_late_have_their_attributes_too(system: System) -> None:
    # The nearest twenty are outdated, as another endpoint knows, where they are far away.
    query = np.zeros(DIMENSIONS, dtype=np.float32)
    query[0] = 1
    far = np.zeros(DIMENSIONS, dtype=np.float32)
    far[1] = 1

    def near(number: int) -> Vector:
        vector = query + far * (0.01 * number)
        (unit,) = unit_length(vector[None])
        return np.asarray(unit, dtype=np.float32)

    old = [Listing(f"l-{n:02}", 1, vectors=(near(n),)) for n in range(40)]
    new = [
        Listing(f"l-{n:02}", 2, vectors=(far,), attributes=RowAttributes("new")) for n in range(20)
    ]
    await system.index("server", "hourly", shard_of(old))
    await system.index("indexer", "live", shard_of(new, from_offset=40))
    await system.until_described()
    answer = await system.search(query, k=20)
    assert [hit.listing_id for hit in answer.hits] == [f"l-{n:02}" for n in range(20, 40)]
    assert {hit.attributes.category for hit in answer.hits} == {"shoes"}
