"""What the death of one of two replicas costs the queries through a router."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.figures import percentile
from shashin.client.router import RouterClient
from shashin.errors import ShashinError
from shashin.kafka.producer import Producer
from shashin.kafka.topic_admin import ensure_topics
from shashin.local.kafka import EmbeddedKafka
from tests.support.embedded_listings import DIMENSIONS, MODEL, IndexClient, embedded, vector_of
from tests.support.running_service import RunningService
from tests.support.waiting import until

LISTINGS = 2_000
SEARCHERS = 2
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 5.0
WINDOW_SECONDS = 0.25
SLOW_FACTOR = 2.0


class Queries:
    """Searches all the time, and notes when each query was sent and how long it took."""

    def __init__(self, router: RouterClient) -> None:
        self._router = router
        self._vectors = [vector_of(f"listing-{number}") for number in range(0, LISTINGS, 7)]
        self.took: list[tuple[float, float]] = []
        self.failed = 0

    async def run(self, number: int) -> None:
        """Search until cancelled."""
        for turn in itertools.count(number):
            sent = time.monotonic()
            try:
                answer = await self._router.search(vector=self._vectors[turn % len(self._vectors)])
                self.failed += not answer.coverage.complete or bool(answer.failed_endpoints)
            except ShashinError:
                self.failed += 1
            self.took.append((sent, time.monotonic() - sent))

    def between(self, begin: float, end: float) -> list[float]:
        """Return how long the queries took that were sent then, in milliseconds."""
        return [1e3 * seconds for sent, seconds in self.took if begin <= sent < end]


async def replicas(scratch: Path) -> dict[str, float]:
    """Search through a router with two replicas of the hourly tier, and kill one."""
    kafka = EmbeddedKafka(scratch, default_port=None)
    await kafka.start()
    try:
        await ensure_topics(kafka.bootstrap, partitions=2)
        async with AsyncExitStack() as stack:
            return await _measured(scratch, kafka.bootstrap, stack)
    finally:
        await kafka.stop()


async def _measured(scratch: Path, kafka: str, stack: AsyncExitStack) -> dict[str, float]:
    async def start(name: str, **settings: object) -> RunningService:
        values = {"model_id": MODEL, "repository": (scratch / "repository").as_uri(), **settings}
        service = RunningService(name, kafka, values, log=scratch)
        stack.push_async_callback(service.close)
        await service.start()
        await service.until_ready()
        return service

    discovery = (scratch / "discovery.json").as_uri()
    indexer = await start(
        "indexer",
        dimensions=DIMENSIONS,
        discovery=discovery,
        work_folder=scratch / "indexer",
        bucket_seconds=2,
        grace_seconds=0.5,
    )
    await start("image_builder", discovery=discovery)
    servers = [
        await start("index_server", dimensions=DIMENSIONS, work_folder=scratch / name)
        for name in ("one", "other")
    ]
    _announce(scratch / "discovery.json", indexer, servers)
    async with Producer(kafka, client_id="bench") as producer:
        await producer.send_all([embedded(f"listing-{number}") for number in range(LISTINGS)])

    async def released() -> bool:
        async with IndexClient(indexer.grpc) as live, IndexClient(servers[0].grpc) as one:
            return (await one.describe()).rows == LISTINGS and (await live.describe()).rows == 0

    await until(released, "the live tier has released all rows", limit_seconds=120)
    router = await start("router", dimensions=DIMENSIONS, discovery=discovery)
    async with RouterClient(router.grpc) as client:
        queries = Queries(client)
        searching = [asyncio.ensure_future(queries.run(number)) for number in range(SEARCHERS)]
        try:
            await asyncio.sleep(1.0)
            queries.failed = 0
            await asyncio.sleep(BEFORE_SECONDS)
            killed = time.monotonic()
            await servers[0].kill()
            await asyncio.sleep(AFTER_SECONDS + 1.0)
        finally:
            for task in searching:
                task.cancel()
            await asyncio.gather(*searching, return_exceptions=True)
    return _figures(queries, killed)


def _figures(queries: Queries, killed: float) -> dict[str, float]:
    before = queries.between(killed - BEFORE_SECONDS, killed)
    during = queries.between(killed, killed + 1.0)
    after = queries.between(killed + 1.0, killed + AFTER_SECONDS)
    usual = percentile(before, 0.99)
    windows = (
        queries.between(killed + at * WINDOW_SECONDS, killed + (at + 1) * WINDOW_SECONDS)
        for at in range(int(AFTER_SECONDS / WINDOW_SECONDS))
    )
    slow = sum(not took or percentile(took, 0.99) > SLOW_FACTOR * usual for took in windows)
    return {
        "query with two replicas p50": percentile(before, 0.5),
        "query with two replicas p99": usual,
        "query in the second after one is killed p50": percentile(during, 0.5),
        "query in the second after one is killed p99": percentile(during, 0.99),
        "query with the replica that is left p50": percentile(after, 0.5),
        "query with the replica that is left p99": percentile(after, 0.99),
        "p99 above twice the usual, after one is killed": slow * WINDOW_SECONDS,
        "queries failed or incomplete, after one is killed": queries.failed,
    }


def _announce(path: Path, indexer: RunningService, servers: Sequence[RunningService]) -> None:
    live = {"name": "indexer", "role": "indexer", "tier": "live", "address": indexer.grpc}
    hourly = [
        {
            "name": f"hourly-{number}",
            "role": "index-server",
            "tier": "hourly",
            "address": server.grpc,
            "group": "hourly",
        }
        for number, server in enumerate(servers)
    ]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"endpoints": [live, *hourly]}))
    new.rename(path)
