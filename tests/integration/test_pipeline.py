"""/v1/pipeline of a router over a real indexer and the real log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from shashin.kafka.event_time import EVENT_TIME
from shashin.kafka.groups import DOWNLOADER_GROUP
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, LISTINGS_EVENTS, VECTORS_EMBEDDED
from tests.support.embedded_listings import embedded
from tests.support.indexer_settings import indexer_settings
from tests.support.running_router import running_system
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]


async def test_the_counts_of_the_pipeline_grow_as_records_are_published(
    start_service: StartService, producer: Producer, kafka: str, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path / "indexer"))
    router_folder = tmp_path / "router"
    router_folder.mkdir()
    async with running_system(router_folder) as system, aiohttp.ClientSession() as http:
        entry = {"name": "indexer", "role": "indexer", "tier": "live", "address": indexer.grpc}
        system.announce(entry)

        async def pipeline_once(holds: Callable[[dict[str, Any]], bool], what: str) -> Any:
            async def probe() -> dict[str, Any] | None:
                async with http.get(f"{system.rest}/v1/pipeline") as response:
                    assert response.status == 200, await response.text()
                    document: dict[str, Any] = await response.json()
                return document if holds(document) else None

            return await until(probe, what)

        def processed(document: dict[str, Any]) -> list[int | None]:
            return [stage["processed"] for stage in document["stages"]]

        def letters(document: dict[str, Any]) -> dict[str, int]:
            return {one["topic"]: one["records"] for one in document["dead_letters"]}

        empty = await pipeline_once(
            lambda d: processed(d) == [0, 0, 0, 0, 0] and len(letters(d)) == 3,
            "an empty log is known as such",
        )
        assert set(letters(empty).values()) == {0}

        await producer.send_all(
            OutRecord(LISTINGS_EVENTS, b"lamp", b"event", partition=p) for p in (0, 0, 1)
        )
        event_time = EVENT_TIME, str(int((time.time() - 0.25) * 1000)).encode()
        await producer.send_all(
            replace(embedded(f"listing-{i}"), headers=(event_time,)) for i in range(20)
        )
        await producer.send_all([OutRecord(VECTORS_EMBEDDED, b"bad", b"\xff\xff", partition=0)])
        found = await pipeline_once(
            lambda d: (
                processed(d) == [3, 0, 0, 21, 21]
                and letters(d)[VECTORS_EMBEDDED + DEAD_LETTER_SUFFIX] == 1
                and d["stages"][1]["waiting_seconds"] > 0
            ),
            "what was published is counted, and the dead letter",
        )
        app, downloader, embedder, indexed, searchable = found["stages"]
        assert (downloader["behind"], embedder["behind"], indexed["behind"]) == (3, 0, 0)
        assert sum(one["end"] for one in downloader["partitions"]) == 3
        assert searchable["behind"] == 0
        assert app["topic"] == LISTINGS_EVENTS
        assert max(r for r in found["history"]["rates"]["searchable"] if r is not None) > 0
        assert max(f for f in found["history"]["freshness_seconds"] if f is not None) >= 0.25
        live = found["tiers"][0]
        assert live["rows"] == 20
        assert {name for shard in live["shards"] for name in shard["served_by"]} == {"indexer"}

        async with LogReader(
            kafka, LISTINGS_EVENTS, client_id="test", group=DOWNLOADER_GROUP
        ) as stage:
            stage.start_at({0: 0, 1: 0})
            await stage.commit({0: 2})
        moved = await pipeline_once(
            lambda d: d["stages"][1]["processed"] == 2, "the downloader has moved"
        )
        assert moved["stages"][1]["behind"] == 1
        assert moved["stages"][1]["rate"] > 0

        await indexer.kill()
        lost = await pipeline_once(
            lambda d: d["tiers"][0]["endpoints"][0]["error"] is not None, "the indexer is lost"
        )
        assert not lost["coverage"]["complete"]
