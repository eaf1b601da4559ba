"""Replicas behind the router: one of each group is asked, and none of them is needed for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.router.search import initial_k
from shashin.serving.endpoint import IndexEndpoint
from shashin.shards.open_shard import OpenShard
from shashin.v1 import search_pb2
from tests.support.running_router import (
    CountingEndpoint,
    HeldBackEndpoint,
    Listing,
    NoLookupEndpoint,
    RunningEndpoint,
    ShallowEndpoint,
    SwappedEndpoint,
    System,
    UndescribedEndpoint,
    hits,
    ranges,
    running_system,
    shard_of,
    unit,
    vector_of,
)
from tests.support.waiting import until

NEAR, FAR = "near", "far"


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """A router that asks replicas in zone "near" first."""
    async with running_system(tmp_path, zone=NEAR) as running:
        yield running


async def replica(
    system: System, zone: str, *shards: OpenShard, kind: type[IndexEndpoint] = CountingEndpoint
) -> RunningEndpoint:
    """Start a replica of the hourly tier's only group."""
    return await system.index(zone, "hourly", *shards, kind=kind, group="hourly-0", zone=zone)


async def live(system: System, *listings: Listing, from_offset: int) -> RunningEndpoint:
    return await system.index("indexer", "live", shard_of(listings, from_offset=from_offset))


def complete(answer: search_pb2.SearchResponse) -> bool:
    return answer.coverage.complete and not answer.failed_endpoints


def filled_gaps() -> float:
    name = "shashin_router_filled_gaps_total"
    return REGISTRY.get_sample_value(name, {"tier": "hourly"}) or 0.0


async def test_one_replica_is_asked_and_that_of_the_own_zone_if_it_works(system: System) -> None:
    near, far = [await replica(system, zone, shard_of([Listing("old")])) for zone in (NEAR, FAR)]
    await live(system, Listing("new"), from_offset=1)
    await system.until_described()
    for _ in range(5):
        answer = await system.search(vector_of("old"))
        assert [hit[0] for hit in sorted(hits(answer))] == ["new", "old"]
        assert complete(answer)
        assert answer.endpoints == 2
    assert (near.handlers.searches, far.handlers.searches) == (5, 0)
    await near.stop()
    for _ in range(5):
        answer = await system.search(vector_of("old"), k=1)
        assert (hits(answer), complete(answer)) == ([("old", 1, 0)], True)
    assert far.handlers.searches == 5


async def test_a_replica_that_does_not_respond_costs_neither_the_answer_nor_the_deadline(
    system: System,
) -> None:
    hanging = await replica(system, NEAR, shard_of([Listing("old")]), kind=HeldBackEndpoint)
    far = await replica(system, FAR, shard_of([Listing("old")]))
    await live(system, Listing("new"), from_offset=1)
    await system.until_described()
    answer = await asyncio.wait_for(
        system.search(vector_of("old"), k=1, deadline_ms=60_000, caller_seconds=60.0), 50
    )
    assert hanging.handlers.searching.is_set()
    assert far.handlers.searches == 1
    assert (hits(answer), complete(answer)) == ([("old", 1, 0)], True)


async def test_a_new_replica_is_asked_once_it_has_described_itself(system: System) -> None:
    far = await replica(system, FAR, shard_of([Listing("old")]))
    await live(system, Listing("new"), from_offset=1)
    await system.until_described()
    near = await replica(system, NEAR, shard_of([Listing("old")]), kind=UndescribedEndpoint)

    async def known() -> bool:
        return NEAR in {endpoint.name for endpoint in (await system.status()).endpoints}

    await until(known, "the new one is known")
    for _ in range(5):
        assert complete(await system.search(vector_of("old")))
    assert (near.handlers.searches, far.handlers.searches) == (0, 5)
    near.handlers.released.set()
    await system.until_described()
    assert complete(await system.search(vector_of("old")))
    assert near.handlers.searches == 1


async def test_an_over_fetch_that_another_replica_answers_replaces_the_first_answer(
    system: System,
) -> None:
    k = 2
    crowd = initial_k(k)
    towards = vector_of("towards")
    sealed = [Listing(f"moved-{i}", 1, vectors=(towards,)) for i in range(crowd)]
    sealed += [Listing(f"kept-{i}", 1, vectors=(unit(towards + 0.1 * (1 + i)),)) for i in range(k)]
    moved = [Listing(f"moved-{i}", 2, vectors=(unit(-towards),)) for i in range(crowd)]
    shallow = await replica(system, NEAR, shard_of(sealed), kind=ShallowEndpoint)
    await replica(system, FAR, shard_of(sealed))
    await live(system, *moved, from_offset=len(sealed))
    await system.until_described()
    answer = await system.search(towards, k=k)
    assert shallow.handlers.asked == initial_k(k)
    assert hits(answer) == [("kept-0", 1, 0), ("kept-1", 1, 0)]
    assert complete(answer)
    assert answer.endpoints == 2


async def test_a_replica_whose_model_changes_between_two_rounds_is_replaced(
    system: System,
) -> None:
    k = 2
    crowd = 2 * initial_k(k)
    towards = vector_of("towards")
    sealed = [Listing(f"moved-{i}", 1, vectors=(towards,)) for i in range(crowd)]
    moved = [Listing(f"moved-{i}", 2, vectors=(unit(-towards),)) for i in range(crowd)]
    await replica(system, NEAR, shard_of(sealed), kind=SwappedEndpoint)
    await replica(system, FAR, shard_of(sealed))
    await live(system, *moved, from_offset=crowd)
    await system.until_described()
    answer = await system.search(towards, k=k)
    assert complete(answer)
    assert answer.endpoints == 2


async def test_what_an_old_replica_lacks_another_one_is_asked_for(system: System) -> None:
    """The live tier has released what the old replica does not have yet."""
    first = shard_of([Listing("first"), Listing("second")])
    second = shard_of([Listing("third")], from_offset=2)
    old = await replica(system, NEAR, first)
    new = await replica(system, FAR, first, second)
    await live(system, Listing("last"), from_offset=3)
    await system.until_described()
    before = filled_gaps()
    answer = await system.search(vector_of("third"), k=10)
    assert hits(answer)[0] == ("third", 1, 0)
    assert sorted(hit[0] for hit in hits(answer)) == ["first", "last", "second", "third"]
    assert complete(answer)
    assert (old.handlers.searches, new.handlers.searches) == (1, 1)
    assert filled_gaps() == before + 1


async def test_two_replicas_that_lack_different_shards_answer_together(system: System) -> None:
    one = await replica(system, NEAR, shard_of([Listing("first")]))
    other = await replica(system, FAR, shard_of([Listing("second")], from_offset=1))
    await live(system, Listing("last"), from_offset=2)
    await system.until_described()
    answer = await system.search(vector_of("second"), k=10)
    assert sorted(hit[0] for hit in hits(answer)) == ["first", "last", "second"]
    assert complete(answer)
    assert (one.handlers.searches, other.handlers.searches) == (1, 1)


async def test_a_gap_that_nobody_can_fill_is_reported_and_costs_no_further_call(
    system: System,
) -> None:
    near, far = [
        await replica(system, zone, shard_of([Listing("old")], from_offset=5))
        for zone in (NEAR, FAR)
    ]
    await live(system, Listing("new"), from_offset=6)
    await system.until_described()
    for _ in range(3):
        answer = await system.search(vector_of("old"), k=1)
        assert ranges(answer.coverage.missing) == [(0, 0, 5)]
        assert not answer.failed_endpoints
    assert (near.handlers.searches, far.handlers.searches) == (3, 0)


async def test_a_replica_that_should_fill_a_gap_and_fails_leaves_it_open(system: System) -> None:
    first = shard_of([Listing("first")])
    await replica(system, NEAR, first)
    new = await replica(
        system, FAR, first, shard_of([Listing("second")], from_offset=1), kind=ShallowEndpoint
    )
    await live(system, Listing("last"), from_offset=2)
    await system.until_described()
    new.handlers.asked = 0
    answer = await system.search(vector_of("first"), k=10)
    assert sorted(hit[0] for hit in hits(answer)) == ["first", "last"]
    assert ranges(answer.coverage.missing) == [(0, 1, 2)]
    assert [failed.name for failed in answer.failed_endpoints] == [FAR]


async def test_a_listing_that_only_a_new_replica_has_is_looked_up_there(system: System) -> None:
    first = shard_of([Listing("first"), Listing("second")])
    old = await replica(system, NEAR, first)
    new = await replica(system, FAR, first, shard_of([Listing("third")], from_offset=2))
    await live(system, Listing("last"), from_offset=3)
    await system.until_described()
    answer = await system.search(listing_id="third", k=10)
    assert sorted(hit[0] for hit in hits(answer)) == ["first", "last", "second"]
    assert complete(answer)
    located = await system.stub.Locate(
        search_pb2.LocateRequest(listing_ids=["first", "third", "none"]), timeout=30
    )
    assert [location.listing_id for location in located.locations] == ["first", "third"]
    assert (old.handlers.lookups, new.handlers.lookups) == (2, 2)


async def test_equal_replicas_are_looked_up_once(system: System) -> None:
    near, far = [await replica(system, zone, shard_of([Listing("old")])) for zone in (NEAR, FAR)]
    await live(system, Listing("new"), from_offset=1)
    await system.until_described()
    assert [hit[0] for hit in hits(await system.search(listing_id="old"))] == ["new"]
    assert (near.handlers.lookups, far.handlers.lookups) == (1, 0)


async def test_a_replica_that_cannot_look_up_is_replaced(system: System) -> None:
    await replica(system, NEAR, shard_of([Listing("old")]), kind=NoLookupEndpoint)
    await replica(system, FAR, shard_of([Listing("old")]))
    await live(system, Listing("new"), from_offset=1)
    await system.until_described()
    answer = await system.search(listing_id="old")
    assert [hit[0] for hit in hits(answer)] == ["new"]
    assert complete(answer)


async def test_no_answer_is_incomplete_while_replicas_stop_and_new_ones_come(
    system: System,
) -> None:
    replicas = [await replica(system, zone, shard_of([Listing("old")])) for zone in (NEAR, FAR)]
    await live(system, Listing("new"), from_offset=1)
    await system.until_described()
    done = asyncio.Event()

    async def keep_searching() -> int:
        asked = 0
        while not done.is_set():
            answer = await system.search(vector_of("old"), k=1)
            assert complete(answer), str(answer).replace("\n", " ")
            assert hits(answer) == [("old", 1, 0)]
            asked += 1
        return asked

    searching = [asyncio.ensure_future(keep_searching()) for _ in range(4)]
    for number in range(6):
        leaving = replicas.pop(0)
        # It dies first, and is removed then.
        await leaving.stop()
        system.endpoints.remove(leaving)
        name = f"replica-{number}"
        joining = await system.index(
            name, "hourly", shard_of([Listing("old")]), group="hourly-0", zone=leaving.zone
        )
        replicas.append(joining)
        await system.until_described()
    done.set()
    assert all(await asyncio.gather(*searching))
