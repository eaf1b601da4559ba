"""IndexService without a server: responses and errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest

from shashin.codecs.hit_lists import HitColumns, hits_in
from shashin.errors import DeadlineExceeded, InvalidQuery, NotServing, WrongModelRequested
from shashin.offsets.coverage import LiveReport, Position
from shashin.offsets.ranges import OffsetRange
from shashin.serving.endpoint import Context, IndexEndpoint
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.row import RowAttributes
from shashin.shards.open_shard import OpenShard
from shashin.v1 import index_pb2
from tests.support.hidden_log import hide
from tests.support.made_shards import (
    BUCKET_START,
    DIMENSIONS,
    MODEL,
    SPACE,
    new_row,
    open_shard,
    vector_of,
)
from tests.support.waiting import until


class Call:
    """The part of a call's context that handlers use: the time remaining."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        return self._seconds


def call(seconds: float | None = None) -> Context:
    return cast("Context", Call(seconds))


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def served() -> ServedShards:
    """Two shards of which the later one holds a newer version of the lamp."""
    served = ServedShards()
    served.hidden_loaded = True
    first = open_shard([new_row("lamp"), new_row("mug")])
    second = open_shard([new_row("lamp", 2), new_row("hat")], from_offset=2)
    served.serve([first, second])
    return served


@pytest.fixture
def endpoint(served: ServedShards, executor: ThreadPoolExecutor) -> IndexEndpoint:
    return IndexEndpoint(
        served,
        space=SPACE,
        tier="live",
        executor=executor,
        report=lambda shards: LiveReport(
            {0: Position(0, max(r.to_offset for r in shards[-1].ranges))}, partitions=3
        ),
    )


def search_for(listing: str, version: int = 1, **changes: Any) -> index_pb2.IndexSearchRequest:
    fields: dict[str, Any] = {
        "model_id": MODEL,
        "queries": vector_of(listing, version).astype("<f4").tobytes(),
        "dimensions": DIMENSIONS,
        "k": 10,
        **changes,
    }
    return index_pb2.IndexSearchRequest(**fields)


def lists_of(answer: index_pb2.IndexSearchResponse) -> HitColumns:
    return hits_in(answer.hits, len(answer.hits.counts), 0)


async def test_the_attributes_of_as_many_hits_are_returned_as_are_asked_for(
    endpoint: IndexEndpoint,
) -> None:
    for count in (0, 1, 2, 10):
        answer = await endpoint.Search(search_for("mug", attributes=count), call())
        found = hits_in(answer.hits, 1, count)
        assert len(found.listing_ids) == 3
        described = [one.attributes.category for one in found.details if one]
        assert described == ["shoes"] * min(count, 3)


async def test_a_response_has_hits_the_ranges_searched_and_the_live_position(
    endpoint: IndexEndpoint,
) -> None:
    answer = await endpoint.Search(search_for("mug"), call())
    assert answer.model_id == MODEL
    assert lists_of(answer).listing_ids[0] == "mug"
    assert lists_of(answer).scores[0] == pytest.approx(1.0, abs=0.02)
    assert list(answer.hits.counts) == [3]
    ranges = [OffsetRange(r.partition, r.from_offset, r.to_offset) for r in answer.covered]
    assert ranges == [OffsetRange(0, 0, 4)], "adjacent ranges are merged"
    assert [(p.partition, p.horizon_offset, p.live_offset) for p in answer.positions] == [(0, 0, 4)]
    assert answer.log.partitions == 3


async def test_a_response_names_what_no_row_has_of_a_filter_until_one_has_it(
    endpoint: IndexEndpoint, served: ServedShards
) -> None:
    row_filter = index_pb2.Filter(
        categories=["shose", "shoes"],
        category_prefixes=["fashion", "shoes"],
        brands=["Acme", "ACME", "Acme 2"],
    )
    answer = await endpoint.Search(search_for("mug", filter=row_filter), call())
    assert answer.unknown == index_pb2.UnknownChoices(
        categories=["shose"], category_prefixes=["fashion"], brands=["Acme", "Acme 2"]
    )
    growing = served.snapshot().shards[-1]
    assert isinstance(growing, OpenShard)
    attributes = RowAttributes("fashion/bags", "Acme")
    growing.add([new_row("bag", attributes=attributes)], position=5, bucket_start=BUCKET_START)
    hide(served, "bag", 2)
    answer = await endpoint.Search(search_for("mug", filter=row_filter), call())
    assert answer.unknown == index_pb2.UnknownChoices(categories=["shose"], brands=["Acme 2"])


@pytest.mark.parametrize(
    "row_filter",
    [
        index_pb2.Filter(),
        index_pb2.Filter(categories=["shoes"], category_prefixes=["shoes"], brands=["ACME"]),
        index_pb2.Filter(prices=[index_pb2.PriceRange(currency="EUR")]),
    ],
)
async def test_a_response_names_nothing_of_a_filter_that_has_no_unknown_entry(
    endpoint: IndexEndpoint, row_filter: index_pb2.Filter
) -> None:
    answer = await endpoint.Search(search_for("mug", filter=row_filter), call())
    assert not answer.HasField("unknown")


async def test_until_the_hidden_map_is_loaded_searches_are_refused_and_nothing_is_held(
    endpoint: IndexEndpoint, served: ServedShards
) -> None:
    served.hidden_loaded = False
    with pytest.raises(NotServing, match="of the live tier is starting: it has not read listings"):
        await endpoint.Search(search_for("mug"), call())
    with pytest.raises(NotServing):
        await endpoint.Lookup(index_pb2.LookupRequest(model_id=MODEL, listing_ids=["lamp"]), call())
    described = await endpoint.Describe(index_pb2.DescribeRequest(), call())
    assert "has not read listings.hidden to its end" in described.not_serving
    assert (described.model_id, described.dimensions, described.tier) == (MODEL, 8, "live")
    assert not described.shards
    assert not described.positions
    served.hidden_loaded = True
    assert (await endpoint.Describe(index_pb2.DescribeRequest(), call())).not_serving == ""
    assert lists_of(await endpoint.Search(search_for("mug"), call())).listing_ids[0] == "mug"


async def test_what_is_added_during_a_search_is_not_reported_as_covered(
    endpoint: IndexEndpoint, served: ServedShards, executor: ThreadPoolExecutor
) -> None:
    growing = served.snapshot().shards[-1]
    assert isinstance(growing, OpenShard)
    busy = threading.Event()
    executor.submit(busy.wait)
    searching = asyncio.ensure_future(endpoint.Search(search_for("new"), call()))
    await until(lambda: executor._work_queue.qsize() == 1, "the search waits for a thread")
    growing.add([new_row("new")], position=9, bucket_start=BUCKET_START)
    busy.set()
    answer = await searching
    assert [(r.from_offset, r.to_offset) for r in answer.covered] == [(0, 4)]
    assert [p.live_offset for p in answer.positions] == [4]
    answer = await endpoint.Search(search_for("new"), call())
    assert lists_of(answer).listing_ids[0] == "new"
    assert [(r.from_offset, r.to_offset) for r in answer.covered] == [(0, 9)]


async def test_of_two_visible_versions_in_different_shards_the_newest_is_returned(
    endpoint: IndexEndpoint,
) -> None:
    answer = await endpoint.Search(search_for("lamp", version=1), call())
    found = zip(lists_of(answer).listing_ids, lists_of(answer).versions, strict=True)
    assert sorted(found) == [("hat", 1), ("lamp", 2), ("mug", 1)]


async def test_hidden_rows_are_neither_found_nor_looked_up(
    endpoint: IndexEndpoint, served: ServedShards
) -> None:
    hide(served, "lamp", 2)
    hide(served, "mug", 9)
    answer = await endpoint.Search(search_for("mug"), call())
    found = zip(lists_of(answer).listing_ids, lists_of(answer).versions, strict=True)
    assert sorted(found) == [("hat", 1), ("lamp", 2)]
    looked_up = await endpoint.Lookup(
        index_pb2.LookupRequest(model_id=MODEL, listing_ids=["mug", "lamp", "none"]), call()
    )
    assert [(row.listing_id, row.version, row.vector) for row in looked_up.rows] == [
        ("lamp", 2, b"")
    ]


async def test_a_lookup_returns_vectors_on_request(endpoint: IndexEndpoint) -> None:
    answer = await endpoint.Lookup(
        index_pb2.LookupRequest(model_id=MODEL, listing_ids=["hat"], with_vectors=True), call()
    )
    (row,) = answer.rows
    assert np.array_equal(np.frombuffer(row.vector, "<f4"), vector_of("hat"))
    assert answer.dimensions == DIMENSIONS


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_lookup_of_none_or_too_many_listings_is_refused(
    endpoint: IndexEndpoint, count: int
) -> None:
    with pytest.raises(InvalidQuery, match=f"{count} listing ids; expected 1 to 1000"):
        await endpoint.Lookup(
            index_pb2.LookupRequest(model_id=MODEL, listing_ids=["lamp"] * count), call()
        )


async def test_vectors_of_another_model_are_refused(endpoint: IndexEndpoint) -> None:
    with pytest.raises(WrongModelRequested, match=r"'other' was requested; .* holds 'test-model'"):
        await endpoint.Search(search_for("lamp", model_id="other"), call())
    with pytest.raises(WrongModelRequested):
        await endpoint.Lookup(index_pb2.LookupRequest(model_id="other", listing_ids=["a"]), call())


@pytest.mark.parametrize("bounds", [{"deadline_ms": 1}, {"seconds": 0.001}])
async def test_the_error_for_a_late_search_names_the_tier(
    endpoint: IndexEndpoint, executor: ThreadPoolExecutor, bounds: dict[str, Any]
) -> None:
    busy = threading.Event()
    executor.submit(busy.wait)
    try:
        with pytest.raises(DeadlineExceeded, match=r"the live tier did not finish .* 2 shards"):
            await endpoint.Search(
                search_for("lamp", deadline_ms=bounds.get("deadline_ms", 0)),
                call(bounds.get("seconds")),
            )
    finally:
        busy.set()


async def test_an_endpoint_describes_its_shards(
    endpoint: IndexEndpoint, served: ServedShards
) -> None:
    hide(served, "mug", 2)
    described = await endpoint.Describe(index_pb2.DescribeRequest(), call())
    assert (described.model_id, described.dimensions, described.tier) == (MODEL, 8, "live")
    assert (described.rows, described.hidden_rows) == (4, 1)
    assert [(s.rows, s.hidden_rows, s.bucket_start) for s in described.shards] == [
        (2, 1, BUCKET_START),
        (2, 0, BUCKET_START),
    ]
    assert [(r.from_offset, r.to_offset) for s in described.shards for r in s.ranges] == [
        (0, 2),
        (2, 4),
    ]


async def test_the_newest_listings_are_refused_until_hidden_ones_are_known_and_for_wrong_requests(
    endpoint: IndexEndpoint, served: ServedShards
) -> None:
    answer = await endpoint.Newest(index_pb2.NewestRequest(model_id=MODEL, limit=2), call())
    assert answer.model_id == MODEL
    assert [(row.listing_id, row.version) for row in answer.rows] == [("hat", 1), ("lamp", 2)]
    assert answer.rows[0].attributes.category == "shoes"
    assert answer.rows[0].photo_uri == "s3://photos/hat/0.jpg"
    assert answer.rows[0].photo_hash
    for limit in (0, 201):
        with pytest.raises(InvalidQuery, match="limit"):
            await endpoint.Newest(index_pb2.NewestRequest(model_id=MODEL, limit=limit), call())
    with pytest.raises(WrongModelRequested):
        await endpoint.Newest(index_pb2.NewestRequest(model_id="other", limit=2), call())
    served.hidden_loaded = False
    with pytest.raises(NotServing):
        await endpoint.Newest(index_pb2.NewestRequest(model_id=MODEL, limit=2), call())
