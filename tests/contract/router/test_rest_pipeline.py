"""/v1/pipeline of the router, over real HTTP and real endpoints."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.router.rest import pipeline_document
from shashin.access.api_key import new_key
from shashin.access.key_file import KeyFile
from shashin.offsets.progress import PartitionOffsets, PipelineProgress, StageOffsets
from tests.support.aged_shards import aged_shard
from tests.support.running_router import Listing, System, running_system, shard_of
from tests.support.waiting import until

STAGES = ["app", "downloader", "embedder", "indexer", "searchable"]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def progress(done: int, end: int) -> PipelineProgress:
    stages = {
        "downloader": "listings.events",
        "embedder": "images.downloaded",
        "indexer": "vectors.embedded",
    }
    return PipelineProgress(
        tuple(
            StageOffsets(stage, topic, 1.5, {0: PartitionOffsets(done, end)})
            for stage, topic in stages.items()
        ),
        {"listings.events.dlq": 2},
        searchable_events=done,
        searchable_event_seconds=done * 0.25,
    )


async def pipeline(http: aiohttp.ClientSession, system: System, query: str = "") -> dict[str, Any]:
    async with http.get(f"{system.rest}/v1/pipeline{query}") as response:
        text = await response.text()
        assert response.status == 200, text
        found: dict[str, Any] = json.loads(text)
        return found


async def test_counts_rates_and_freshness_follow_what_the_live_tier_reports(
    http: aiohttp.ClientSession, system: System
) -> None:
    indexer = await system.index("indexer", "live", shard_of([Listing("a"), Listing("b")]))
    reported = [progress(2, 5)]
    indexer.handlers._progress = lambda: reported[0]
    await system.until_described()

    async def sampled() -> dict[str, Any] | None:
        found = await pipeline(http, system)
        return found if found["stages"][1]["processed"] is not None else None

    found = await until(sampled, "the live tier's sample is there")
    by_name = {stage["stage"]: stage for stage in found["stages"]}
    assert list(by_name) == STAGES
    assert by_name["app"]["processed"] == 5
    assert by_name["downloader"]["partitions"] == [
        {"partition": 0, "processed": 2, "end": 5, "behind": 3}
    ]
    assert by_name["embedder"]["behind"] == 3
    assert by_name["embedder"]["waiting_seconds"] == 1.5
    assert by_name["searchable"]["processed"] == 2
    assert by_name["searchable"]["behind"] == 3
    assert found["dead_letters"] == [{"topic": "listings.events.dlq", "records": 2}]
    assert found["coverage"]["complete"]
    assert found["at"] <= found["now"]

    reported[0] = progress(9, 12)

    async def grown() -> dict[str, Any] | None:
        found = await pipeline(http, system)
        return found if found["stages"][1]["processed"] == 9 else None

    found = await until(grown, "the counts have grown")
    assert all(stage["rate"] > 0 for stage in found["stages"][:4])
    assert found["freshness_seconds"] == pytest.approx(0.25)
    history = found["history"]
    assert history["rates"]["downloader"][-1] == pytest.approx(found["stages"][1]["rate"], abs=1e-3)
    assert history["behind"]["downloader"][-1] == 3
    assert "app" not in history["behind"]
    assert history["dead_letters"][-1] == 2
    assert len(history["at"]) == len(history["freshness_seconds"]) >= 2


async def test_a_page_asks_only_for_the_history_that_it_does_not_have(
    http: aiohttp.ClientSession, system: System
) -> None:
    await system.index("indexer", "live", shard_of([Listing("a")]))
    await system.until_described()

    async def two_samples() -> dict[str, Any] | None:
        found = await pipeline(http, system)
        return found if len(found["history"]["at"]) >= 2 else None

    before = (await until(two_samples, "there are two samples"))["history"]["at"]
    later = await pipeline(http, system, f"?since={before[-1]}")
    assert not set(before) & set(later["history"]["at"])
    again = (await pipeline(http, system, f"?since={before[-2]}"))["history"]["at"]
    assert again[0] == before[-1]
    async with http.get(f"{system.rest}/v1/pipeline?since=nan") as response:
        assert response.status == 400


async def test_a_shard_is_one_for_all_replicas_and_names_who_serves_it(
    http: aiohttp.ClientSession, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        aged_shard([Listing("a"), Listing("b")], "hourly", bucket_start=3600, bucket_seconds=600)
        for _ in range(2)
    )
    second.hide("a", 2)
    later = aged_shard(
        [Listing("c")], "hourly", bucket_start=7200, bucket_seconds=600, from_offset=2
    )
    one = await system.index("one", "hourly", first, later)
    await system.index("two", "hourly", second)
    await system.until_described()
    tiers = {tier["tier"]: tier for tier in (await pipeline(http, system))["tiers"]}
    assert list(tiers) == ["live", "hourly", "daily", "monthly"]
    hourly = tiers["hourly"]
    assert [e["name"] for e in hourly["endpoints"]] == ["one", "two"]
    assert [(s["bucket_start"], s["served_by"]) for s in hourly["shards"]] == [
        (3600, ["one", "two"]),
        (7200, ["one"]),
    ]
    shard = hourly["shards"][0]
    assert (shard["rows"], shard["hidden_rows"], shard["bucket_seconds"]) == (2, 1, 600)
    assert shard["ranges"] == [{"partition": 0, "from_offset": 0, "to_offset": 2}]
    assert (hourly["shard_count"], hourly["rows"], hourly["hidden_rows"]) == (2, 3, 1)
    assert tiers["daily"] == {
        "tier": "daily",
        "endpoints": [],
        "shard_count": 0,
        "rows": 0,
        "hidden_rows": 0,
        "shards": [],
    }

    monkeypatch.setattr(pipeline_document, "MAX_SHARDS", 1)
    hourly = (await pipeline(http, system))["tiers"][1]
    assert [s["bucket_start"] for s in hourly["shards"]] == [7200], "the newest"
    assert (hourly["shard_count"], hourly["rows"]) == (2, 3), "of all"

    await one.stop()

    async def named() -> dict[str, Any] | None:
        found = (await pipeline(http, system))["tiers"][1]
        return found if not found["endpoints"][0]["ready"] else None

    stopped = await until(named, "the endpoint is not ready")
    assert stopped["endpoints"][0]["error"]
    assert [s["served_by"] for s in stopped["shards"]] == [["two"]]


async def test_an_endpoint_that_reports_no_progress_leaves_figures_unknown(
    http: aiohttp.ClientSession, system: System
) -> None:
    await system.index("indexer", "live", shard_of([Listing("a")]))
    await system.until_described()

    async def sampled() -> dict[str, Any] | None:
        found = await pipeline(http, system)
        return found if found["stages"][4]["processed"] is not None else None

    found = await until(sampled, "what is searchable is known")
    for stage in found["stages"][:4]:
        assert (stage["processed"], stage["rate"], stage["behind"]) == (None, None, None)
    assert found["stages"][4]["processed"] == 1
    assert found["dead_letters"] == []


async def test_it_is_documented_and_refused_without_a_key_like_the_status(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    accepted = KeyFile(tmp_path / "keys.json")
    key, stored = new_key("page", created=datetime.now(UTC))
    accepted.add(stored)
    async with running_system(tmp_path, accepted_keys_file=accepted.path) as system:
        async with http.get(f"{system.rest}/v1/pipeline") as response:
            assert response.status == 401
        async with http.get(
            f"{system.rest}/v1/pipeline", headers={"Authorization": f"Bearer {key}"}
        ) as response:
            assert response.status == 200
        async with http.get(f"{system.rest}/v1/openapi.json") as response:
            paths = (await response.json())["paths"]
    operation = paths["/v1/pipeline"]["get"]
    assert operation["responses"].keys() >= paths["/v1/status"]["get"]["responses"].keys()
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Pipeline"}
