"""SearchService.Search over real endpoints."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from services.router.search import initial_k
from shashin.local.ports import free_port
from shashin.offsets.coverage import Position
from shashin.shards.format.row import RowAttributes
from shashin.v1 import index_pb2
from tests.support.hidden_log import hide
from tests.support.running_router import (
    DIMENSIONS,
    HeldBackEndpoint,
    Listing,
    NoLookupEndpoint,
    ShallowEndpoint,
    System,
    Vector,
    hits,
    ranges,
    shard_of,
    unit,
    vector_of,
)
from tests.support.waiting import until


async def test_every_tier_is_searched_and_the_log_is_covered(system: System) -> None:
    old = [Listing(f"old-{i}", photos=3) for i in range(10)]
    new = [Listing(f"new-{i}", photos=2) for i in range(5)]
    await system.index("hourly", "hourly", shard_of(old))
    await system.index("indexer", "live", shard_of(new, from_offset=10))
    await system.until_described()
    answer = await system.search(vector_of("old-3", photo=2), k=1)
    assert hits(answer) == [("old-3", 1, 2)]
    assert answer.hits[0].tier == "hourly"
    assert answer.hits[0].score == pytest.approx(1.0, abs=0.01)
    assert answer.hits[0].attributes.currency == "JPY"
    answer = await system.search(vector_of("new-4", photo=1), k=12)
    assert hits(answer)[0] == ("new-4", 1, 1)
    assert answer.hits[0].tier == "live"
    assert len({hit.listing_id for hit in answer.hits}) == 12
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    assert answer.coverage.complete
    assert answer.endpoints == 2
    assert not answer.failed_endpoints
    assert answer.model_id == "test-model"
    assert answer.timings.total >= answer.timings.fan_out > 0


async def test_the_default_k_is_ten(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing(f"l-{i}") for i in range(20)]))
    await system.until_described()
    assert len((await system.search(vector_of("l-1"))).hits) == 10


async def test_the_newest_version_wins_over_a_nearer_old_one(system: System) -> None:
    await system.index("hourly", "hourly", shard_of([Listing("lamp", 1), Listing("mug", 1)]))
    await system.index("indexer", "live", shard_of([Listing("lamp", 2)], from_offset=2))
    await system.until_described()
    answer = await system.search(vector_of("lamp", version=1), k=5)
    assert sorted(hits(answer)) == [("lamp", 2, 0), ("mug", 1, 0)]


async def test_a_row_in_two_tiers_is_one_hit(system: System) -> None:
    listings = [Listing(f"l-{i}", photos=2) for i in range(6)]
    await system.index("hourly", "hourly", shard_of(listings))
    await system.index("indexer", "live", shard_of(listings))
    await system.until_described()
    answer = await system.search(vector_of("l-2"), k=10)
    assert sorted(hit.listing_id for hit in answer.hits) == [f"l-{i}" for i in range(6)]
    assert hits(answer)[0] == ("l-2", 1, 0)


async def test_superseded_hits_make_the_answer_neither_short_nor_wrong(system: System) -> None:
    """All first hits of the sealed tier are superseded; its next hits are the best."""
    k = 5
    across, up = np.eye(DIMENSIONS)[:2]

    def at(angle: float) -> tuple[Vector, ...]:
        return (unit(np.cos(angle) * across + np.sin(angle) * up),)

    replicas = 3
    per_replica = initial_k(k)
    crowd = replicas * per_replica
    sealed = [Listing(f"moved-{i}", 1, vectors=at(0.001 * i)) for i in range(crowd)]
    sealed += [Listing(f"kept-{i}", 1, vectors=at(1.0 + 0.02 * i)) for i in range(k)]
    moved = [Listing(f"moved-{i}", 2, vectors=at(2.0 + 0.001 * i)) for i in range(crowd)]
    await system.index("hourly", "hourly", shard_of(sealed))
    for number in range(replicas):
        first = number * per_replica
        await system.index(
            f"indexer-{number}",
            "live",
            shard_of(moved[first : first + per_replica], from_offset=len(sealed) + first),
        )
    await system.until_described()
    answer = await system.search(unit(across), k=k)
    assert hits(answer) == [(f"kept-{i}", 1, 0) for i in range(k)]
    assert answer.coverage.complete


async def test_an_endpoint_that_fails_in_an_over_fetch_does_not_count_as_searched(
    system: System,
) -> None:
    k = 2
    crowd = 2 * initial_k(k)
    towards = vector_of("towards")
    sealed = [Listing(f"moved-{i}", 1, vectors=(towards,)) for i in range(crowd)]
    moved = [Listing(f"moved-{i}", 2, vectors=(unit(-towards),)) for i in range(crowd)]
    await system.index("hourly", "hourly", shard_of(sealed), kind=ShallowEndpoint)
    await system.index("indexer", "live", shard_of(moved, from_offset=crowd))
    await system.until_described()
    answer = await system.search(towards, k=k)
    assert len(answer.hits) == k
    assert [f.name for f in answer.failed_endpoints] == ["hourly"]
    assert "RESOURCE_EXHAUSTED: too deep" in answer.failed_endpoints[0].error
    assert ranges(answer.coverage.missing) == [(0, 0, crowd)]
    assert answer.endpoints == 1


async def test_a_dead_index_server_is_reported_and_its_range_is_missing(system: System) -> None:
    await system.index("hourly", "hourly", shard_of([Listing("old")]))
    live = await system.index("indexer", "live", shard_of([Listing("new")], from_offset=1))
    await system.until_described()
    await system.endpoints[0].stop()
    answer = await system.search(vector_of("new"), k=5)
    assert hits(answer) == [("new", 1, 0)]
    assert [f.name for f in answer.failed_endpoints] == ["hourly"]
    assert "UNAVAILABLE" in answer.failed_endpoints[0].error
    assert ranges(answer.coverage.missing) == [(0, 0, 1)]
    assert not answer.coverage.complete
    assert live.address != answer.failed_endpoints[0].address


async def test_without_the_indexer_its_last_known_range_is_missing(
    system: System,
) -> None:
    await system.index("hourly", "hourly", shard_of([Listing("old"), Listing("older")]))
    live = await system.index("indexer", "live", shard_of([Listing("new")], from_offset=2))
    await system.until_described()
    await live.stop()
    answer = await system.search(vector_of("old"), k=5)
    assert sorted(hit.listing_id for hit in answer.hits) == ["old", "older"]
    assert [f.name for f in answer.failed_endpoints] == ["indexer"]
    assert ranges(answer.coverage.missing) == [(0, 2, 3)]
    assert list(answer.coverage.unknown_partitions) == [0]
    assert not answer.coverage.complete


async def test_a_replaying_indexer_does_not_look_complete(system: System) -> None:
    shard = shard_of([Listing("first")])
    positions = {0: Position(0, 5)}
    await system.index("indexer", "live", shard, positions=positions)
    await system.until_described()
    positions[0] = Position(0, 1)  # after a restart
    answer = await system.search(vector_of("first"))
    assert ranges(answer.coverage.missing) == [(0, 1, 5)]


async def test_a_router_that_never_saw_an_indexer_knows_no_position(system: System) -> None:
    await system.index("hourly", "hourly", shard_of([Listing("old")], partition=3))
    await system.until_described()
    answer = await system.search(vector_of("old"))
    assert list(answer.coverage.unknown_partitions) == [3]
    assert not answer.coverage.complete


async def test_a_slow_endpoint_is_cut_off_at_the_deadline(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("new")], from_offset=1))
    await system.index("slow", "hourly", shard_of([Listing("old")]), kind=HeldBackEndpoint)
    await system.until_described()
    answer = await system.search(vector_of("new"), k=5, deadline_ms=400)
    assert hits(answer) == [("new", 1, 0)]
    assert [f.name for f in answer.failed_endpoints] == ["slow"]
    assert answer.failed_endpoints[0].error.startswith("DEADLINE_EXCEEDED")
    assert ranges(answer.coverage.missing) == [(0, 0, 1)]


async def test_a_shorter_caller_deadline_applies_and_yields_a_partial_answer(
    system: System,
) -> None:
    await system.index("indexer", "live", shard_of([Listing("new")], from_offset=1))
    await system.index("slow", "hourly", shard_of([Listing("old")]), kind=HeldBackEndpoint)
    await system.until_described()
    answer = await system.search(vector_of("new"), deadline_ms=60_000, caller_seconds=2.0)
    assert [f.name for f in answer.failed_endpoints] == ["slow"]


async def refusal(system: System, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await system.search(**fields)
    return refused.value.code(), refused.value.details() or ""


async def test_if_every_endpoint_is_slow_the_deadline_is_exceeded(system: System) -> None:
    await system.index("slow", "live", shard_of([Listing("old")]), kind=HeldBackEndpoint)
    await system.until_described()
    code, details = await refusal(system, vector=vector_of("old"), deadline_ms=200)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "slow at 127.0.0.1" in details


async def test_if_every_endpoint_is_dead_the_error_lists_them(system: System) -> None:
    dead = {
        "name": "dead",
        "role": "indexer",
        "tier": "live",
        "address": f"127.0.0.1:{free_port()}",
    }
    system.announce(dead)

    async def known() -> bool:
        return len((await system.status()).endpoints) == 1

    await until(known, "the endpoint is known")
    code, details = await refusal(system, vector=vector_of("old"))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert f"dead at {dead['address']}: UNAVAILABLE" in details


async def test_without_endpoints_the_router_is_alive_and_not_ready(system: System) -> None:
    code, details = await refusal(system, vector=vector_of("old"))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "no index endpoint is known" in details
    assert not system.health.liveness_problems()
    await until(
        lambda: any(
            "discovery has no index endpoint" in p for p in system.health.readiness_problems()
        ),
        "the reason is reported",
    )


async def test_invalid_queries_are_rejected_with_their_field(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("lamp")]))
    await system.until_described()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "nothing to search for"),
        ({"vector": np.ones(3)}, "vector has 12 bytes"),
        ({"vector": np.zeros(DIMENSIONS)}, "vector is all zeros"),
        ({"vector": vector_of("lamp"), "k": 1001}, "k is 1001"),
        (
            {
                "vector": vector_of("lamp"),
                "filter": index_pb2.Filter(
                    prices=[index_pb2.PriceRange(currency="JPY", min_minor=2, max_minor=1)]
                ),
            },
            "filter.prices[0].min_minor is 2",
        ),
    ]
    for fields, named in wrong:
        code, details = await refusal(system, **fields)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert named in details


async def test_a_filter_applies_to_every_endpoint(system: System) -> None:
    cheap, expensive = RowAttributes("bags", "", 100, "JPY"), RowAttributes("bags", "", 900, "JPY")
    await system.index(
        "hourly",
        "hourly",
        shard_of([Listing("a", attributes=cheap), Listing("b", attributes=expensive)]),
    )
    await system.index(
        "indexer", "live", shard_of([Listing("c", attributes=cheap), Listing("d")], from_offset=2)
    )
    await system.until_described()
    row_filter = index_pb2.Filter(
        category_prefixes=["bags"],
        prices=[index_pb2.PriceRange(currency="JPY", max_minor=500)],
    )
    answer = await system.search(vector_of("b"), filter=row_filter)
    assert sorted(hit.listing_id for hit in answer.hits) == ["a", "c"]
    assert not answer.notes


async def test_an_entry_of_a_filter_that_no_endpoint_knows_is_said(system: System) -> None:
    shoes = RowAttributes("fashion/shoes", "ACME", 100, "JPY")
    await system.index("hourly", "hourly", shard_of([Listing("a", attributes=shoes)]))
    await system.index(
        "indexer",
        "live",
        shard_of([Listing("b", attributes=RowAttributes("toys"))], from_offset=1),
    )
    await system.until_described()
    row_filter = index_pb2.Filter(
        categories=["shose", "toys"],
        category_prefixes=["fashion", "fashion/sho"],
        brands=["ACME", "Acme"],
    )
    answer = await system.search(vector_of("a"), filter=row_filter)
    assert [hit.listing_id for hit in answer.hits] == ["a"]
    assert list(answer.notes) == [
        'no listing has category "shose": check its spelling',
        'no listing has category under "fashion/sho": check its spelling',
        'no listing has brand "Acme": check its spelling',
    ]


async def test_of_an_answer_that_lacks_an_endpoint_it_is_not_known_what_no_listing_has(
    system: System,
) -> None:
    await system.index("indexer", "live", shard_of([Listing("b")], from_offset=1))
    await system.until_described()
    answer = await system.search(vector_of("b"), filter=index_pb2.Filter(categories=["shose"]))
    assert not answer.coverage.complete
    assert not answer.notes


# --- by a listing -------------------------------------------------------------------------------


async def test_a_listing_finds_similar_listings_but_not_itself(system: System) -> None:
    lamp = Listing("lamp", 2, photos=2)
    like_first = Listing("like-first", vectors=(vector_of("lamp", 2, 0),))
    like_second = Listing("like-second", vectors=(vector_of("lamp", 2, 1),))
    like_old = Listing("like-old", vectors=(vector_of("lamp", 1, 0),))
    far = Listing("far", vectors=(unit(-vector_of("lamp", 2, 0) - vector_of("lamp", 2, 1)),))
    await system.index(
        "hourly", "hourly", shard_of([Listing("lamp", 1), like_first, like_second, far, like_old])
    )
    await system.index("indexer", "live", shard_of([lamp], from_offset=5))
    await system.until_described()
    answer = await system.search(listing_id="lamp", k=2)
    assert {hit.listing_id for hit in answer.hits} == {"like-first", "like-second"}
    assert all(hit.score == pytest.approx(1.0, abs=0.01) for hit in answer.hits)
    everything = await system.search(listing_id="lamp", k=10)
    assert {hit.listing_id for hit in everything.hits} == {
        "like-first",
        "like-second",
        "like-old",
        "far",
    }


async def test_a_listing_that_is_not_searchable_is_not_found(system: System) -> None:
    hourly = await system.index("hourly", "hourly", shard_of([Listing("sold"), Listing("mug")]))
    await system.until_described()
    assert hourly.served is not None
    hide(hourly.served, "sold", 2)
    for listing_id in ("sold", "never-seen"):
        code, details = await refusal(system, listing_id=listing_id)
        assert code == grpc.StatusCode.NOT_FOUND
        assert listing_id in details


async def test_a_listing_that_a_failed_endpoint_may_hold_is_not_reported_as_not_found(
    system: System,
) -> None:
    await system.index("indexer", "live", shard_of([Listing("mug")], from_offset=1))
    await system.index("hourly", "hourly", shard_of([Listing("lamp")]), kind=NoLookupEndpoint)
    await system.until_described()
    code, details = await refusal(system, listing_id="lamp")
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "no lookup today" in details
    answer = await system.search(listing_id="mug")
    assert [hit.listing_id for hit in answer.hits] == ["lamp"]
    assert [f.name for f in answer.failed_endpoints] == ["hourly"]
    assert answer.coverage.complete, "the search itself reached every row"


# --- endpoints that come and go -----------------------------------------------------------------


async def test_an_endpoint_that_joins_later_is_searched(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("new")], from_offset=1))
    await system.until_described()
    # Other routers may know of the rest: this one leaves the searches to them for a while.
    (problem,) = system.health.readiness_problems()
    assert "coverage is not complete yet" in problem
    assert not (await system.search(vector_of("old"))).coverage.complete
    await system.index("hourly", "hourly", shard_of([Listing("old")]))
    await system.until_described()
    answer = await system.search(vector_of("old"), k=1)
    assert hits(answer) == [("old", 1, 0)]
    assert answer.coverage.complete
    assert not system.health.readiness_problems()


async def test_a_running_search_completes_after_its_endpoint_leaves(system: System) -> None:
    await system.index("hourly", "hourly", shard_of([Listing("old")]))
    leaving = await system.index(
        "indexer", "live", shard_of([Listing("new")], from_offset=1), kind=HeldBackEndpoint
    )
    await system.until_described()
    search = asyncio.ensure_future(system.search(vector_of("new"), k=1))
    await until(leaving.handlers.searching.is_set, "the search is at its endpoint")
    system.endpoints.remove(leaving)
    system.announce()
    await system.until_described("hourly")
    leaving.handlers.released.set()
    answer = await search
    assert hits(answer) == [("new", 1, 0)]
    assert not answer.failed_endpoints
    assert answer.coverage.complete
    after = await system.search(vector_of("new"), k=1)
    assert hits(after) == [("old", 1, 0)]
    assert ranges(after.coverage.missing) == [(0, 1, 2)]


async def test_searches_do_not_fail_while_endpoints_come_and_go(system: System) -> None:
    await system.index("hourly", "hourly", shard_of([Listing("old")]))
    flapping = await system.index("indexer", "live", shard_of([Listing("new")], from_offset=1))
    await system.until_described()
    done = asyncio.Event()

    async def keep_searching() -> int:
        asked = 0
        while not done.is_set():
            answer = await system.search(vector_of("old"), k=1)
            assert hits(answer) == [("old", 1, 0)]
            assert not answer.failed_endpoints
            asked += 1
        return asked

    searching = [asyncio.ensure_future(keep_searching()) for _ in range(3)]
    for _ in range(5):
        system.endpoints.remove(flapping)
        system.announce()
        await system.until_described("hourly")
        system.endpoints.append(flapping)
        system.announce()
        await system.until_described()
    done.set()
    assert all(await asyncio.gather(*searching))
