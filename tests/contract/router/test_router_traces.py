"""A search is one trace: the router's call, one span per endpoint, and what these do for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shashin.access.api_key import new_key
from shashin.access.key_file import KeyFile
from shashin.v1 import search_pb2
from tests.support.collector import Collector, Received, collecting
from tests.support.running_router import (
    FakeEmbedder,
    Listing,
    System,
    running_system,
    shard_of,
    vector_of,
)
from tests.support.traced import tracing_on
from tests.support.waiting import until

SEARCH, INDEX, EMBED = (
    "shashin.v1.SearchService/Search",
    "shashin.v1.IndexService/Search",
    "shashin.v1.EmbedService/Embed",
)


EXPECTED = 1 + 2 + 2 * 4
"""Of a search of two endpoints by photo: its own, two of the embedder's call, and four per endpoint."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture
async def system(tmp_path: Path, collector: Collector) -> AsyncIterator[System]:
    """A system that is traced; the collector has all of its spans by and by."""
    with tracing_on(collector):
        async with running_system(tmp_path) as running:
            yield running


def of_kind(spans: list[Received], kind: str) -> list[Received]:
    return [span for span in spans if span.kind == kind]


async def test_a_search_by_photo_is_one_trace_with_a_span_per_endpoint(
    system: System, collector: Collector
) -> None:
    await system.index("indexer", "live", shard_of([Listing("new")], from_offset=1))
    await system.index("hourly", "hourly", shard_of([Listing("old")]))
    await system.embedder("embedder", FakeEmbedder())
    await system.until_described()
    answer = await system.search(photo=vector_of("old").tobytes())
    assert answer.coverage.complete
    # The spans of servers may end after those of their clients.
    await until(lambda: len(collector.spans()) == EXPECTED, "all spans come in")
    (search,) = collector.spans(name=SEARCH)
    trace = [span for span in collector.spans() if span.trace_id == search.trace_id]
    assert len(trace) == len(collector.spans()), "nothing else begins a trace"
    asked = [span for span in trace if span.name.startswith("ask ")]
    assert {span.name for span in asked} == {"ask live", "ask hourly"}
    assert {span.parent_id for span in asked} == {search.span_id}
    assert {span.attributes["shashin.endpoint"] for span in asked} == {"indexer", "hourly"}
    calls = of_kind([span for span in trace if span.name == INDEX], "client")
    answers = of_kind([span for span in trace if span.name == INDEX], "server")
    assert {span.parent_id for span in calls} == {span.span_id for span in asked}
    assert {span.parent_id for span in answers} == {span.span_id for span in calls}
    goes = [span for span in trace if span.name == "search shards"]
    assert {span.parent_id for span in goes} == {span.span_id for span in answers}
    (embed,) = of_kind([span for span in trace if span.name == EMBED], "client")
    assert embed.parent_id == search.span_id


async def test_searches_that_share_a_call_are_linked_with_it(
    system: System, collector: Collector
) -> None:
    await system.index("indexer", "live", shard_of([Listing("lamp")]))
    await system.until_described()
    searches = 0

    async def some_have_shared() -> bool:
        nonlocal searches
        await asyncio.gather(*(system.search(vector_of("lamp")) for _ in range(8)))
        searches += 8
        await until(lambda: len(collector.spans(name=SEARCH)) == searches, "all spans come in")
        return any(call.links for call in of_kind(collector.spans(name=INDEX), "client"))

    await until(some_have_shared, "some searches share a call")
    asked = {span.identity: span for span in collector.spans(name="ask live")}
    calls = of_kind(collector.spans(name=INDEX), "client")
    served = [[(call.trace_id, call.parent_id), *call.links] for call in calls]
    # Each search is served by one call, be it as its parent or by a link.
    assert sorted(identity for of_call in served for identity in of_call) == sorted(asked)
    for call in calls:
        for identity in call.links:
            assert call.identity in asked[identity].links, "and finds it from its own trace"


async def test_what_nobody_keeps_is_not_sent(tmp_path: Path, collector: Collector) -> None:
    with tracing_on(collector, share=0.0):
        async with running_system(tmp_path) as system:
            await system.index("indexer", "live", shard_of([Listing("lamp")]))
            await system.until_described()
            assert (await system.search(vector_of("lamp"))).coverage.complete
    assert collector.spans() == []


async def test_no_span_has_the_key_of_its_call(tmp_path: Path, collector: Collector) -> None:
    accepted = KeyFile(tmp_path / "keys.json")
    key, stored = new_key("app", created=datetime.now(UTC))
    accepted.add(stored)
    with tracing_on(collector):
        async with running_system(tmp_path, accepted_keys_file=accepted.path) as system:
            await system.index("indexer", "live", shard_of([Listing("new")]))
            await until(lambda: not system.health.readiness_problems(), "it is ready")
            request = search_pb2.SearchRequest(vector=vector_of("new").astype("<f4").tobytes())
            for header in (("authorization", f"Bearer {key}"), ("x-api-key", key)):
                await system.stub.Search(request, metadata=(header,), timeout=30.0)
    received = collector.spans()
    assert len(of_kind(received, "server")) >= 2
    assert key.rpartition("_")[2] not in collector.text()
