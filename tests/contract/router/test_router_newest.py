"""The newest listings over all tiers, by REST."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.router.newest import merged
from shashin.serving.endpoint import IndexEndpoint
from shashin.shards.format.row import RowAttributes
from shashin.v1 import events_pb2, index_pb2
from tests.support.running_router import Listing, System, shard_of


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def at(listing_id: str, seconds: int, version: int = 1) -> Listing:
    return Listing(listing_id, version, attributes=RowAttributes("shoes", "A", 5, "JPY", seconds))


class CountedEndpoint(IndexEndpoint):
    """Counts its calls."""

    calls = 0

    async def Newest(  # noqa: N802
        self, request: index_pb2.NewestRequest, context: Any
    ) -> index_pb2.NewestResponse:
        self.calls += 1
        return await super().Newest(request, context)


class FailingEndpoint(IndexEndpoint):
    """Has no newest listings, as an endpoint of an earlier release."""

    async def Newest(  # noqa: N802
        self, request: index_pb2.NewestRequest, context: Any
    ) -> index_pb2.NewestResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not yet")
        raise AssertionError


async def newest(http: aiohttp.ClientSession, system: System, limit: Any = 24) -> dict[str, Any]:
    async with http.get(f"{system.rest}/v1/listings/newest?limit={limit}") as response:
        answer: dict[str, Any] = json.loads(await response.text())
        assert answer.get("status", 200) == response.status
        return answer


def found(answer: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(one["listing_id"], one["version"], one["tier"]) for one in answer["listings"]]


async def test_older_tiers_are_asked_only_if_the_live_one_has_too_few(
    system: System, http: aiohttp.ClientSession
) -> None:
    live = shard_of([at("a", 50), at("b", 60), at("c", 70, version=2)], from_offset=3)
    hourly = shard_of([at("c", 40), at("d", 30), at("e", 20)])
    await system.index("indexer", "live", live)
    last = await system.index("last", "hourly", hourly, kind=CountedEndpoint)
    await system.until_described()
    answer = await newest(http, system, 3)
    assert found(answer) == [("c", 2, "live"), ("b", 1, "live"), ("a", 1, "live")]
    assert last.handlers.calls == 0
    answer = await newest(http, system, 4)
    assert found(answer)[3:] == [("d", 1, "hourly")]
    assert last.handlers.calls == 1
    assert answer["failed_endpoints"] == []
    first = answer["listings"][0]
    assert first["attributes"]["listed_at"] == "1970-01-01T00:01:10Z"
    assert first["attributes"]["price"] == {"amount_minor": 5, "currency": "JPY"}
    assert first["uri"] == "s3://photos/c/2/0.jpg"
    assert first["hash"] == "0100000000000000"


async def test_what_is_hidden_is_absent_at_once(
    system: System, http: aiohttp.ClientSession
) -> None:
    shard = shard_of([at("a", 50), at("b", 60)])
    await system.index("indexer", "live", shard)
    await system.until_described()
    assert [one[0] for one in found(await newest(http, system))] == ["b", "a"]
    shard.hide("b", 2)
    assert [one[0] for one in found(await newest(http, system))] == ["a"]


async def test_a_tier_that_fails_is_named_and_the_others_answer(
    system: System, http: aiohttp.ClientSession
) -> None:
    await system.index(
        "indexer", "live", shard_of([at("a", 50)], from_offset=1), kind=FailingEndpoint
    )
    await system.index("last", "hourly", shard_of([at("b", 60)]))
    await system.until_described()
    answer = await newest(http, system)
    assert found(answer) == [("b", 1, "hourly")]
    assert [one["name"] for one in answer["failed_endpoints"]] == ["indexer"]


async def test_without_endpoints_it_is_a_problem_that_can_be_tried_again(
    system: System, http: aiohttp.ClientSession
) -> None:
    answer = await newest(http, system)
    assert (answer["status"], answer["reason"], answer["retryable"]) == (503, "NoEndpoint", True)


@pytest.mark.parametrize("limit", [0, 201, "x"])
async def test_a_limit_beyond_200_is_a_problem(
    system: System, http: aiohttp.ClientSession, limit: Any
) -> None:
    answer = await newest(http, system, limit)
    assert (answer["status"], answer["reason"]) == (400, "InvalidQuery")
    assert "limit" in answer["detail"]


rows = st.lists(
    st.builds(
        lambda name, version, seconds: index_pb2.NewestRow(
            listing_id=name,
            version=version,
            attributes=None
            if seconds is None
            else events_pb2.Attributes(listed_at=Timestamp(seconds=seconds)),
        ),
        st.sampled_from("abcd"),
        st.integers(1, 3),
        st.none() | st.integers(-5, 5),
    ),
    max_size=6,
)


@given(st.lists(st.tuples(st.sampled_from(["live", "hourly"]), rows), max_size=4))
def test_a_listing_of_several_answers_comes_once_in_its_newest_version(
    answers: list[tuple[str, list[index_pb2.NewestRow]]],
) -> None:
    listings = merged(answers)
    every = [row for _, of_tier in answers for row in of_tier]
    assert {one.row.listing_id for one in listings} == {row.listing_id for row in every}
    assert len(listings) == len({one.row.listing_id for one in listings})
    for one in listings:
        assert one.row.version == max(
            row.version for row in every if row.listing_id == one.row.listing_id
        )
    times = [
        row.attributes.listed_at.seconds if row.attributes.HasField("listed_at") else None
        for row in (one.row for one in listings)
    ]
    known = [time for time in times if time is not None]
    assert times == sorted(known, reverse=True) + [None] * (len(times) - len(known))
