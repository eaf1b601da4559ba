"""Endpoints of other models: not a failure, never searched, reported as such."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from services.router.search import initial_k
from shashin.model_space import ModelSpace
from shashin.v1 import search_pb2
from tests.support.running_router import (
    DIMENSIONS,
    MODEL,
    HeldBackEndpoint,
    Listing,
    SwappedEndpoint,
    System,
    hits,
    ranges,
    shard_of,
    unit,
    vector_of,
)
from tests.support.waiting import until

OTHER = "other-model"

announced_or_not = pytest.mark.parametrize(
    "announced", [OTHER, ""], ids=["announced", "discovered"]
)
"""Whether discovery reports the model of the endpoint, or only its own responses do."""


def failed_calls(method: str) -> float:
    """Return the failed calls of a method, by the metric."""
    (family,) = (m for m in REGISTRY.collect() if m.name == "shashin_fleet_failed_calls")
    return sum(
        s.value
        for s in family.samples
        if s.name.endswith("_total") and s.labels["method"] == method
    )


def endpoint_counts(tier: str) -> dict[str, float | None]:
    """Return the endpoints of a tier by state, by the metric."""
    return {
        state: REGISTRY.get_sample_value("shashin_router_endpoints", {"tier": tier, "state": state})
        for state in ("ready", "unready", "other_model")
    }


async def ask(system: System, **fields: Any) -> search_pb2.SearchResponse:
    return await system.search(vector_of("theirs"), k=5, **fields)


@announced_or_not
async def test_an_endpoint_of_another_model_is_not_a_failure_and_not_searched(
    system: System, announced: str
) -> None:
    await system.index("indexer", "live", shard_of([Listing("mine")]))
    theirs = shard_of([Listing("theirs")])
    await system.index("other", "hourly", theirs, model_id=OTHER, announced_model=announced)
    await system.until_models_are(indexer=MODEL, other=OTHER)
    before = [failed_calls(method) for method in ("Search", "Lookup", "Describe")]
    answer = await ask(system)
    assert hits(answer) == [("mine", 1, 0)]
    assert not answer.failed_endpoints
    assert answer.endpoints == 1
    assert answer.coverage.complete, "the other model does not affect coverage"
    by_listing = await system.search(listing_id="mine", k=5)
    assert not by_listing.failed_endpoints
    assert by_listing.coverage.complete
    located = await system.stub.Locate(search_pb2.LocateRequest(listing_ids=["mine", "theirs"]))
    assert [location.listing_id for location in located.locations] == ["mine"]
    assert not located.failed_endpoints
    assert [failed_calls(method) for method in ("Search", "Lookup", "Describe")] == before


@announced_or_not
async def test_status_and_metrics_report_an_endpoint_of_another_model(
    system: System, announced: str
) -> None:
    await system.index("indexer", "live", shard_of([Listing("mine")]))
    await system.index(
        "other", "hourly", shard_of([Listing("a")]), model_id=OTHER, announced_model=announced
    )
    status = await system.until_models_are(indexer=MODEL, other=OTHER)
    other = next(e for e in status.endpoints if e.name == "other")
    assert (other.tier, other.ready, other.error, other.rows) == ("hourly", False, "", 0)
    assert status.model_id == MODEL
    assert status.coverage.complete
    await until(
        lambda: endpoint_counts("hourly") == {"ready": 0, "unready": 0, "other_model": 1},
        "the metric counts it",
    )
    assert endpoint_counts("live") == {"ready": 1, "unready": 0, "other_model": 0}
    assert not system.health.readiness_problems()


async def test_an_endpoint_announced_with_another_model_is_not_called(
    system: System,
) -> None:
    await system.index("indexer", "live", shard_of([Listing("mine")]))
    other = await system.index(
        "other", "hourly", model_id=OTHER, kind=HeldBackEndpoint, announced_model=OTHER
    )
    await system.until_models_are(indexer=MODEL, other=OTHER)
    await ask(system)
    assert not other.handlers.searching.is_set()


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details() or ""


@announced_or_not
async def test_with_only_other_models_the_error_lists_them_and_the_active_one(
    system: System, announced: str
) -> None:
    a = await system.index(
        "a", "hourly", shard_of([Listing("theirs")]), model_id=OTHER, announced_model=announced
    )
    b = await system.index(
        "b", "live", shard_of([Listing("theirs")]), model_id="third", announced_model=announced
    )
    held_by_b = announced or "third"
    await system.until_models_are(a=OTHER, b=held_by_b)
    locate = search_pb2.LocateRequest(listing_ids=["theirs"])
    for call in (
        lambda: ask(system),
        lambda: system.search(listing_id="theirs"),
        lambda: system.stub.Locate(locate),
    ):
        code, details = await refusal(call())
        assert code == grpc.StatusCode.UNAVAILABLE
        assert details.startswith("NoEndpoint: no index endpoint holds model 'test-model'")
        for running, model_id in ((a, OTHER), (b, held_by_b)):
            reason = details.partition(f"{running.name} at {running.address} (")[2].partition(")")[
                0
            ]
            assert repr(model_id) in reason
    await until(
        lambda: any(
            "none of 2 endpoints is ready for model 'test-model'" in problem
            and f"a: it holds model '{OTHER}'" in problem
            for problem in system.health.readiness_problems()
        ),
        "the router is not ready and reports why",
    )


@announced_or_not
async def test_if_the_only_endpoint_of_the_model_is_dead_the_error_tells_it_from_others(
    system: System, announced: str
) -> None:
    mine = await system.index("mine", "live", shard_of([Listing("mine")]))
    await system.index(
        "other", "hourly", shard_of([Listing("a")]), model_id=OTHER, announced_model=announced
    )
    await system.until_models_are(mine=MODEL, other=OTHER)
    await mine.stop()
    code, details = await refusal(ask(system))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert f"none of 1 endpoints responded: mine at {mine.address}: UNAVAILABLE" in details
    assert "not of model 'test-model': other at" in details


async def test_an_endpoint_that_switches_to_the_model_is_searched(system: System) -> None:
    await system.index("indexer", "live", shard_of([Listing("mine")], from_offset=1))
    switching = await system.index(
        "switching", "hourly", shard_of([Listing("old")]), model_id=OTHER
    )
    await system.until_models_are(indexer=MODEL, switching=OTHER)
    assert not (await ask(system)).coverage.complete, "no other endpoint holds the first offset"
    switching.handlers._space = ModelSpace(MODEL, DIMENSIONS)
    await system.until_described()
    answer = await system.search(vector_of("old"), k=1)
    assert hits(answer) == [("old", 1, 0)]
    assert answer.coverage.complete


async def test_an_endpoint_whose_model_changes_between_two_rounds_does_not_count_as_searched(
    system: System,
) -> None:
    k = 2
    crowd = 2 * initial_k(k)
    towards = vector_of("towards")
    sealed = [Listing(f"moved-{i}", 1, vectors=(towards,)) for i in range(crowd)]
    moved = [Listing(f"moved-{i}", 2, vectors=(unit(-towards),)) for i in range(crowd)]
    await system.index("hourly", "hourly", shard_of(sealed), kind=SwappedEndpoint)
    await system.index("indexer", "live", shard_of(moved, from_offset=crowd))
    await system.until_described()
    answer = await system.search(towards, k=k)
    assert not answer.failed_endpoints
    assert ranges(answer.coverage.missing) == [(0, 0, crowd)], "it may have more hits"
    assert answer.endpoints == 1
