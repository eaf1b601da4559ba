"""Sealed shards on their way into the hourly tier: image builder, index server, release."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from shashin.kafka.producer import Producer
from shashin.model_space import ModelSpace
from shashin.objectstore.open import open_object_store
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from tests.support.embedded_listings import (
    DIMENSIONS,
    MODEL,
    IndexClient,
    embedded,
    hidden,
    vector_of,
)
from tests.support.hidden_map import HiddenMap
from tests.support.made_shards import BUCKET_START, KIND, commit
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]


def shared_settings(tmp_path: Path) -> dict[str, object]:
    """Return the settings shared by the services of all tiers."""
    return {"model_id": MODEL, "repository": (tmp_path / "repository").as_uri()}


def vector_settings(tmp_path: Path) -> dict[str, object]:
    """Return the settings of the services that hold vectors."""
    return {**shared_settings(tmp_path), "dimensions": DIMENSIONS}


async def start_indexer(
    start_service: StartService, tmp_path: Path, **changes: object
) -> RunningService:
    """Start an indexer with short buckets that releases sealed rows early."""
    settings = {
        "work_folder": tmp_path / "indexer",
        "discovery": (tmp_path / "discovery.json").as_uri(),
        "bucket_seconds": 2,
        "grace_seconds": 0.5,
        "release_after_seconds": 0.5,
        **changes,
    }
    return await start_service("indexer", **vector_settings(tmp_path), **settings)


async def start_server(start_service: StartService, tmp_path: Path) -> RunningService:
    """Start the image builder and an hourly index server."""
    discovery = (tmp_path / "discovery.json").as_uri()
    await start_service("image_builder", **shared_settings(tmp_path), discovery=discovery)
    work = tmp_path / "server"
    return await start_service("index_server", **vector_settings(tmp_path), work_folder=work)


def announce(tmp_path: Path, indexer: RunningService, server: RunningService) -> None:
    """Write the discovery file."""
    document = {
        "endpoints": [
            {"name": "indexer", "role": "indexer", "tier": "live", "address": indexer.grpc},
            {"name": "hourly", "role": "index-server", "tier": "hourly", "address": server.grpc},
        ]
    }
    (tmp_path / "discovery.json").write_text(json.dumps(document))


async def start_tiers(
    start_service: StartService, tmp_path: Path
) -> tuple[RunningService, RunningService]:
    """Start an indexer, the image builder and an hourly index server that know each other."""
    indexer = await start_indexer(start_service, tmp_path)
    server = await start_server(start_service, tmp_path)
    announce(tmp_path, indexer, server)
    return indexer, server


async def test_sealed_rows_move_to_the_index_server_and_at_no_moment_are_missing(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    indexer, server = await start_tiers(start_service, tmp_path)
    listings = [f"listing-{i}" for i in range(12)]
    await producer.send_all([embedded(listing, photos=2) for listing in listings])
    async with IndexClient(indexer.grpc) as live, IndexClient(server.grpc) as hourly:
        for listing in listings:
            await until(partial(live.finds, listing), f"{listing} is found live")

        async def moved() -> bool:
            for listing in listings:
                # The live tier is searched first: what it has just released, the other one holds.
                found = await live.finds(listing) or await hourly.finds(listing)
                assert found, f"{listing} is missing"
            return (await hourly.describe()).rows == 24 and (await live.describe()).rows == 0

        await until(moved, "the index server holds all rows and the live tier none")


async def test_hidden_rows_of_a_sealed_shard_are_not_found_also_after_a_restart(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    _, server = await start_tiers(start_service, tmp_path)
    await producer.send_all([embedded("lamp"), embedded("chair"), embedded("mug")])
    async with IndexClient(server.grpc) as hourly:

        async def served() -> bool:
            return (await hourly.describe()).rows == 3

        await until(served, "the shards are served")
        await producer.send_all([hidden("lamp", 2)])

        async def gone() -> bool:
            found = await hourly.nearest(vector_of("lamp"), k=3)
            assert len(found) >= 2, "hiding a row makes no answer short"
            return {listing for listing, _, _ in found} == {"chair", "mug"}

        await until(gone, "the lamp is hidden")
    await server.kill()
    await server.start()
    await server.until_ready()
    async with IndexClient(server.grpc) as hourly:
        # Ready means that the hidden listings have been read.
        found = {listing for listing, _, _ in await hourly.nearest(vector_of("lamp"), k=3)}
        assert found == {"chair", "mug"}


async def test_before_the_hidden_listings_are_loaded_searches_are_refused_and_no_shard_is_held(
    start_service: StartService, tmp_path: Path
) -> None:
    store = open_object_store((tmp_path / "repository").as_uri())
    repository = ModelRepository(store)
    shard = OpenShard(0, 0, ModelSpace(MODEL, DIMENSIONS), KIND, HiddenMap())
    row = NewRow(Row("sold", 1, 0, RowAttributes()), vector_of("sold"))
    shard.add([row], position=1, bucket_start=BUCKET_START)
    stored = await commit(repository, shard, tmp_path / "scratch")
    named = PointedShard.of(stored.manifest)
    await repository.move_pointer(Pointer(MODEL, HOURLY, (named,)), over=None)
    server = await start_service(
        "index_server",
        ready=False,
        **vector_settings(tmp_path),
        work_folder=tmp_path / "server",
        kafka="127.0.0.1:1",
    )
    await until(lambda: "shards wait for the follower" in server.log(), "the shard is loaded")
    async with IndexClient(server.grpc) as hourly:
        described = await hourly.describe()
        assert "has not read listings.hidden" in described.not_serving
        assert not described.shards
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await hourly.finds("sold")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "NotServing: this endpoint of the hourly tier" in (refused.value.details() or "")
    assert await server.get("readyz") is None


async def test_searches_continue_while_shards_are_swapped(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    _, server = await start_tiers(start_service, tmp_path)
    await producer.send_all([embedded("first")])
    async with IndexClient(server.grpc) as hourly:
        await until(lambda: _holds(hourly, 1), "the first shard is served")
        asked = 0
        done = asyncio.Event()

        async def keep_asking() -> None:
            nonlocal asked
            while not done.is_set():
                assert await hourly.finds("first")
                asked += 1

        asking = [asyncio.ensure_future(keep_asking()) for _ in range(4)]
        for wave in range(3):
            await producer.send_all([embedded(f"wave-{wave}-{i}") for i in range(50)])
            rows = 1 + 50 * (wave + 1)
            await until(partial(_holds, hourly, rows), f"{rows} rows are served")
        done.set()
        await asyncio.gather(*asking)
    assert asked > 0
    swaps = await server.metric("shashin_index_server_swaps_total")
    assert await server.metric("shashin_index_server_swap_seconds_count") == swaps > 0


async def _holds(client: IndexClient, rows: int) -> bool:
    return (await client.describe()).rows == rows


async def test_the_live_tier_pauses_at_its_row_limit_and_resumes(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    indexer = await start_indexer(start_service, tmp_path, bucket_seconds=1, held_row_limit=40)
    waves = 0

    async def has_stopped() -> bool:
        nonlocal waves
        await producer.send_all([embedded(f"wave-{waves}-{i}") for i in range(20)])
        waves += 1
        return await indexer.metric("shashin_indexer_reading_paused") == 1

    async def lag(what: str) -> float:
        labels = 'stage="indexer"' + (',topic="vectors.embedded"' if what == "seconds" else "")
        return await indexer.metric(f"shashin_indexer_stage_lag_{what}{{{labels}}}")

    async def lags() -> bool:
        return await lag("records") >= 20 and await lag("seconds") > 0

    async def has_caught_up() -> bool:
        return await lag("records") == await lag("seconds") == 0

    await until(has_stopped, "reading is paused while no index server holds the sealed rows")
    assert await has_stopped(), "it does not read one more wave"
    await until(lags, "what it does not read is its lag")
    assert await indexer.get("healthz") is None
    assert await indexer.get("livez") is not None
    assert await indexer.get("readyz") is not None, "searches still work"
    server = await start_server(start_service, tmp_path)
    announce(tmp_path, indexer, server)
    async with IndexClient(server.grpc) as hourly:
        await until(partial(_holds, hourly, 20 * waves), "every row is served in the end")
    await until(lambda: indexer.get("healthz"), "all is well again")
    await until(has_caught_up, "nothing is left")
