"""SearchService.Locate and Status over real endpoints."""

from __future__ import annotations

import grpc
import pytest
from prometheus_client import REGISTRY

from shashin.local.ports import free_port
from shashin.model_space import ModelSpace
from shashin.offsets.coverage import LiveReport, Position, StageLag
from shashin.v1 import search_pb2
from tests.support.hidden_log import hide
from tests.support.running_router import (
    MODEL,
    Listing,
    NoLookupEndpoint,
    System,
    ranges,
    shard_of,
    vector_of,
)
from tests.support.waiting import until


async def locate(system: System, *listing_ids: str) -> search_pb2.LocateResponse:
    return await system.stub.Locate(search_pb2.LocateRequest(listing_ids=listing_ids), timeout=30.0)


async def test_listings_are_located_in_their_newest_version_and_all_tiers(system: System) -> None:
    both = Listing("both", 1, photos=3)
    await system.index("hourly", "hourly", shard_of([Listing("moved", 1, photos=4), both]))
    await system.index("daily", "daily", shard_of([both]))
    await system.index("indexer", "live", shard_of([Listing("moved", 2, photos=2)], from_offset=2))
    await system.until_described()
    answer = await locate(system, "moved", "unknown", "both", "moved")
    found = [
        (location.listing_id, location.version, list(location.photo_numbers), list(location.tiers))
        for location in answer.locations
    ]
    assert found == [
        ("moved", 2, [0, 1], ["live"]),
        ("both", 1, [0, 1, 2], ["hourly", "daily"]),
    ]
    assert not answer.failed_endpoints


async def test_a_hidden_listing_is_not_located(system: System) -> None:
    hourly = await system.index("hourly", "hourly", shard_of([Listing("sold"), Listing("mug")]))
    await system.until_described()
    assert hourly.served is not None
    hide(hourly.served, "sold", 2)
    answer = await locate(system, "sold", "mug")
    assert [location.listing_id for location in answer.locations] == ["mug"]


async def test_locate_reports_failed_endpoints(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("mug")], from_offset=1))
    await system.index("hourly", "hourly", shard_of([Listing("lamp")]), kind=NoLookupEndpoint)
    await system.until_described()
    answer = await locate(system, "lamp", "mug")
    assert [location.listing_id for location in answer.locations] == ["mug"]
    assert [(f.name, f.error) for f in answer.failed_endpoints] == [
        ("hourly", "UNAVAILABLE: no lookup today")
    ]


@pytest.mark.parametrize(
    ("listing_ids", "named"),
    [
        ([], "listing_ids has 0 ids"),
        (["x"] * 1001, "listing_ids has 1001 ids"),
        (["lamp", ""], r"listing_ids[1] has 0 bytes"),
    ],
)
async def test_invalid_ids_are_rejected(system: System, listing_ids: list[str], named: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await locate(system, *listing_ids)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert named in (refused.value.details() or "")


async def test_a_thousand_listings_are_located_in_one_call(system: System) -> None:
    ids = [f"l-{i}" for i in range(1000)]
    await system.index("indexer", "live", shard_of([Listing(i) for i in ids]))
    await system.until_described()
    answer = await locate(system, *reversed(ids))
    assert [location.listing_id for location in answer.locations] == ids[::-1]


async def test_status_reports_what_each_endpoint_holds(system: System) -> None:
    hourly = await system.index(
        "hourly",
        "hourly",
        shard_of([Listing("a", photos=2), Listing("b")]),
        shard_of([], partition=1),
    )
    await system.index(
        "indexer", "live", shard_of([Listing("c")], from_offset=2), shard_of([], partition=1)
    )
    assert hourly.served is not None
    hide(hourly.served, "a", 2)
    await system.until_described()
    status = await system.status()
    assert status.model_id == "test-model"
    by_name = {endpoint.name: endpoint for endpoint in status.endpoints}
    held = by_name["hourly"]
    assert (held.tier, held.shards, held.rows, held.hidden_rows) == ("hourly", 2, 3, 2)
    assert held.address == hourly.address
    assert ranges(held.covered) == [(0, 0, 2)]
    assert ranges(by_name["indexer"].covered) == [(0, 2, 3)]
    assert status.coverage.complete


async def test_status_reports_the_error_of_an_endpoint(system: System) -> None:
    live = await system.index("indexer", "live", shard_of([Listing("c")], from_offset=2))
    await system.index("hourly", "hourly", shard_of([Listing("a"), Listing("b")]))
    await system.until_described()
    await live.stop()

    async def with_dead_endpoint() -> search_pb2.StatusResponse | None:
        status = await system.status()
        return None if all(e.ready for e in status.endpoints) else status

    status: search_pb2.StatusResponse = await until(
        with_dead_endpoint, "the dead endpoint is detected"
    )
    dead = next(e for e in status.endpoints if not e.ready)
    assert (dead.name, dead.tier, dead.rows) == ("indexer", "live", 0)
    assert "UNAVAILABLE" in dead.error
    assert ranges(status.coverage.missing) == [(0, 2, 3)]
    assert list(status.coverage.unknown_partitions) == [0]
    assert not status.coverage.complete
    assert REGISTRY.get_sample_value("shashin_router_coverage_complete") == 0
    assert REGISTRY.get_sample_value("shashin_router_missing_offsets") == 1
    counts = {"tier": "live", "state": "unready"}
    assert REGISTRY.get_sample_value("shashin_router_endpoints", counts) == 1


async def test_an_endpoint_with_vectors_of_other_dimensions_is_not_ready(system: System) -> None:
    endpoint = await system.index("indexer", "live", shard_of([Listing("a")]))
    endpoint.handlers._space = ModelSpace(MODEL, 32)

    async def refused() -> bool:
        return any(
            "vectors of 32 dimensions" in e.error and not e.ready
            for e in (await system.status()).endpoints
        )

    await until(refused, "the endpoint is rejected")
    await until(
        lambda: any("32 dimensions" in p for p in system.health.readiness_problems()),
        "the router is not ready",
    )


async def test_the_router_is_ready_once_an_endpoint_is(system: System) -> None:
    address = f"127.0.0.1:{free_port()}"
    system.announce({"name": "dead", "role": "indexer", "tier": "live", "address": address})
    await until(
        lambda: any("dead: UNAVAILABLE" in p for p in system.health.readiness_problems()),
        "the endpoint is reported as a problem",
    )
    assert not system.health.liveness_problems()
    await system.index("indexer", "live", shard_of([Listing("a")]))
    await until(lambda: not system.health.readiness_problems(), "it is ready")


async def test_a_broken_discovery_file_changes_nothing(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("a")]))
    await system.until_described()
    (system.folder / "discovery.json").write_text('{"endpoints": [{"name"')
    await system.index("hourly", "hourly", shard_of([]), announce=False)
    assert [e.name for e in (await system.status()).endpoints if e.ready] == ["indexer"]
    assert (await locate(system, "a")).locations


async def test_an_endpoint_that_is_still_loading_is_not_ready_and_no_failed_call(
    system: System,
) -> None:
    await system.index("indexer", "live", shard_of([Listing("c")], from_offset=2))
    hourly = await system.index("hourly", "hourly", shard_of([Listing("a"), Listing("b")]))
    await system.until_described()
    assert hourly.served is not None
    hourly.served.hidden_loaded = False
    failed_before = _failed_describes()

    async def not_ready() -> search_pb2.StatusResponse | None:
        status = await system.status()
        return None if all(e.ready for e in status.endpoints) else status

    status: search_pb2.StatusResponse = await until(not_ready, "it is not ready")
    (loading,) = [e for e in status.endpoints if not e.ready]
    assert (loading.name, loading.tier, loading.rows) == ("hourly", "hourly", 0)
    assert "has not read listings.hidden to its end" in loading.error
    assert ranges(status.coverage.missing) == [(0, 0, 2)]
    assert _failed_describes() == failed_before
    answer = await system.search(vector_of("a"), k=1)
    assert [hit.listing_id for hit in answer.hits] == ["c"]
    assert [f.name for f in answer.failed_endpoints] == ["hourly"]
    assert ranges(answer.coverage.missing) == [(0, 0, 2)]
    assert not answer.coverage.complete


def _failed_describes() -> float:
    labels = {"method": "Describe", "tier": "hourly", "status": "UNAVAILABLE"}
    return REGISTRY.get_sample_value("shashin_fleet_failed_calls_total", labels) or 0.0


async def test_a_partition_that_no_live_tier_indexes_is_unknown_in_status_and_answers(
    system: System,
) -> None:
    report = LiveReport({0: Position(0, 1)}, partitions=3)
    await system.index("indexer", "live", shard_of([Listing("a")]), report=report)
    await system.until_described()
    for coverage in (
        (await system.status()).coverage,
        (await system.search(vector_of("a"))).coverage,
    ):
        assert not coverage.complete
        assert list(coverage.unknown_partitions) == [1, 2]
        assert not coverage.missing


async def test_status_and_answers_report_how_far_the_stages_before_are_behind(
    system: System,
) -> None:
    stages = (StageLag("downloader", 12, 3.5), StageLag("embedder", None))
    report = LiveReport({0: Position(0, 1)}, 1, 40.0, stages)
    await system.index("indexer", "live", shard_of([Listing("a")]), report=report)
    await system.until_described()
    for coverage in (
        (await system.status()).coverage,
        (await system.search(vector_of("a"))).coverage,
    ):
        assert coverage.complete
        assert coverage.end_unknown_seconds == 40.0
        lags = [
            (s.stage, s.records if s.HasField("records") else None, s.seconds)
            for s in coverage.stages
        ]
        assert lags == [("downloader", 12, 3.5), ("embedder", None, 0.0)]


async def test_offsets_at_the_end_of_the_log_that_no_endpoint_has_read_are_missing(
    system: System,
) -> None:
    stuck = LiveReport({0: Position(0, 40)}, partitions=1)
    await system.index("indexer", "live", shard_of([Listing("a")]), report=stuck)
    await system.until_described()
    answer = await system.search(vector_of("a"))
    assert ranges(answer.coverage.missing) == [(0, 1, 40)]
    assert not answer.coverage.complete
