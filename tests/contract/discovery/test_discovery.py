"""What the router and the indexer rely on, of every discovery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shashin.discovery.protocol import Discovery, Endpoint
from shashin.model_space import ModelSpace
from tests.contract.discovery.conftest import Source
from tests.support.waiting import until

EMBEDDER = Endpoint("embedder", "embedder", "10.0.0.1:50052")
INDEXER = Endpoint("indexer", "indexer", "10.0.0.2:50053", "live", "demo-v1")
DAILY = Endpoint(
    "index-server-daily", "index-server", "10.0.0.3:50054", "daily", "demo-v1", "daily-0", "zone-a"
)
HOURLY = Endpoint(
    "index-server-hourly", "index-server", "[fd00::7]:50054", "hourly", group="hourly-0"
)


def finds(discovery: Discovery, *expected: Endpoint) -> Callable[[], Any]:
    async def probe() -> bool:
        return await discovery.endpoints() == list(expected)

    return probe


async def test_every_endpoint_is_found_sorted_by_name(source: Source) -> None:
    await source.publish([INDEXER, HOURLY, EMBEDDER, DAILY])
    discovery = source.open()
    assert await discovery.endpoints() == [EMBEDDER, DAILY, HOURLY, INDEXER]
    assert await discovery.endpoints() == [EMBEDDER, DAILY, HOURLY, INDEXER]
    assert discovery.problem is None
    await discovery.close()


async def test_a_source_that_names_no_model_has_no_active_one(source: Source) -> None:
    await source.publish([INDEXER])
    discovery = source.open()
    assert await discovery.active_model() is None
    await discovery.close()


async def test_endpoints_appear_change_and_go(changing_source: Source) -> None:
    await changing_source.publish([INDEXER])
    discovery = changing_source.open()
    await until(finds(discovery, INDEXER), "the first is found")
    await changing_source.publish([INDEXER, DAILY])
    await until(finds(discovery, DAILY, INDEXER), "a tier appears")
    moved = Endpoint("indexer", "indexer", "10.0.0.9:50053", "live", "demo-v1")
    await changing_source.publish([moved, DAILY])
    await until(finds(discovery, DAILY, moved), "an endpoint moves")
    await changing_source.publish([moved])
    await until(finds(discovery, moved), "a tier goes")
    await changing_source.publish([])
    await until(finds(discovery), "the last one goes")
    assert discovery.problem is None
    await discovery.close()


async def test_the_active_model_is_followed(changing_source: Source) -> None:
    def active(model: ModelSpace) -> Callable[[], Any]:
        async def probe() -> bool:
            return await discovery.active_model() == model

        return probe

    first, second = ModelSpace("demo-v1", 128), ModelSpace("demo:v2", 256)
    await changing_source.publish([INDEXER], first)
    discovery = changing_source.open()
    await until(active(first), "the first model is active")
    await changing_source.publish([INDEXER], second)
    await until(active(second), "the second model is active")
    await discovery.close()


async def test_two_discoveries_of_one_source_find_the_same(source: Source) -> None:
    await source.publish([INDEXER, DAILY])
    one, other = source.open(), source.open()
    assert await one.endpoints() == await other.endpoints() == [DAILY, INDEXER]
    await one.close()
    assert await other.endpoints() == [DAILY, INDEXER]
    await other.close()


async def test_a_discovery_that_was_never_asked_is_closed(source: Source) -> None:
    await source.publish([INDEXER])
    await source.open().close()
