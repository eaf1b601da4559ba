"""The retention horizon moves: what lies before it is not served, asked for, kept or replayed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from shashin.codecs.ranges import ranges_in, report_in
from shashin.kafka.producer import Producer
from shashin.objectstore.open import open_object_store
from shashin.offsets.coverage import missing_ranges
from shashin.offsets.ranges import OffsetRange
from shashin.repository.horizons import Horizons
from shashin.repository.pruning import InUse, plan_pruning, prune
from shashin.repository.repository import ModelRepository
from shashin.tiers import HOURLY
from tests.integration.test_index_server import (
    announce,
    shared_settings,
    start_indexer,
    vector_settings,
)
from tests.support.embedded_listings import MODEL, IndexClient, embedded
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]
DAY = 86_400.0
OLD = [f"old-{n}" for n in range(6)]


@asynccontextmanager
async def image_builder(
    kafka: str, tmp_path: Path, *, days_ahead: float
) -> AsyncIterator[RunningService]:
    """Run an image builder that retains shards for a day, on a clock that is so far ahead."""
    service = RunningService(
        "image_builder",
        kafka,
        {
            **shared_settings(tmp_path),
            "discovery": (tmp_path / "discovery.json").as_uri(),
            "retention_days": 1,
        },
        log=tmp_path / "logs",
        clock_ahead_seconds=days_ahead * DAY,
    )
    await service.start()
    try:
        await service.until_ready()
        yield service
    finally:
        await service.close()


async def is_handed_over(live: IndexClient, hourly: IndexClient) -> bool:
    """Whether the index server has all rows, and the live tier none."""
    return ((await live.describe()).rows, (await hourly.describe()).rows) == (0, len(OLD))


async def is_empty(endpoint: IndexClient) -> bool:
    return (await endpoint.describe()).rows == 0


async def missing(*endpoints: IndexClient) -> tuple[OffsetRange, ...]:
    """Return the offsets that are required, and that no endpoint has, as the router finds them."""
    described = [await endpoint.describe() for endpoint in endpoints]
    positions = report_in(described[0]).positions
    ranges = [r for one in described for shard in one.shards for r in ranges_in(shard.ranges)]
    return missing_ranges(ranges, positions)


async def test_what_lies_before_the_horizon_is_neither_served_nor_asked_for_nor_replayed(
    start_service: StartService, producer: Producer, kafka: str, tmp_path: Path
) -> None:
    store = open_object_store((tmp_path / "repository").as_uri())
    repository, horizons = ModelRepository(store), Horizons(store, MODEL)
    indexer = await start_indexer(start_service, tmp_path)
    server = await start_service(
        "index_server", **vector_settings(tmp_path), work_folder=tmp_path / "server"
    )
    announce(tmp_path, indexer, server)
    await producer.send_all([embedded(listing, partition=0) for listing in OLD])
    async with IndexClient(indexer.grpc) as live, IndexClient(server.grpc) as hourly:
        async with image_builder(kafka, tmp_path, days_ahead=0):
            await until(partial(is_handed_over, live, hourly), "the rows are handed over")
        assert await missing(live, hourly) == ()

        async def is_raised() -> bool:
            horizon = await horizons.read(0)
            return horizon is not None and horizon.offset == len(OLD)

        async def no_longer_asks() -> bool:
            positions = report_in(await live.describe()).positions
            return positions[0].horizon_offset == len(OLD)

        async with image_builder(kafka, tmp_path, days_ahead=2):
            await until(is_raised, "the horizon is raised")
            await until(no_longer_asks, "coverage no longer asks for what lies before")
            assert (await hourly.describe()).rows == len(OLD), "until then it is served"
        # Later than the time that is left to the readers of horizons.
        async with image_builder(kafka, tmp_path, days_ahead=2.01):
            await until(partial(is_empty, hourly), "it is no longer served")
        pointer, _ = await repository.read_pointer(MODEL, HOURLY)
        assert pointer is not None
        assert pointer.shards == ()
        assert await missing(live, hourly) == ()
    planned = await plan_pruning(store, MODEL, InUse(), committed_before=time.time() + 1)
    assert len(planned.shards) >= 1
    await prune(store, planned)
    assert await repository.manifest_keys(MODEL, HOURLY) == []
    # The log still has the old listings, but the horizon says where to begin.
    await indexer.kill()
    await indexer.start()
    await indexer.until_ready()
    await producer.send_all([embedded("new", partition=0)])
    async with IndexClient(indexer.grpc) as live:
        await until(lambda: live.finds("new"), "the new listing is found")
        described = await live.describe()
        assert [r.from_offset for s in described.shards for r in s.ranges if r.partition == 0] == [
            len(OLD)
        ]
        for listing in OLD:
            assert not await live.finds(listing), "it was replayed"
        assert await missing(live) == ()
