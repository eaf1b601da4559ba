"""Calling many endpoints: concurrently, with all outcomes, and only those of the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from shashin.discovery.protocol import Endpoint, Role
from shashin.errors import UserError
from shashin.model_space import ModelSpace
from shashin.rpc.server import grpc_server
from shashin.serving.endpoint import IndexEndpoint
from shashin.serving.fleet import INDEX_ROLES, Fleet, OtherModel, Peer, Round, ask_all
from shashin.serving.served_shards import ServedShards
from shashin.v1 import index_pb2, index_pb2_grpc
from tests.support.hung_endpoints import hung_endpoints
from tests.support.waiting import until

MODEL = "test-model"
LONG_DEADLINE = 60.0
"""Deadline in seconds of calls that the test ends itself."""

Serve = Callable[..., Awaitable[str]]


def endpoint(name: str, address: str = "127.0.0.1:1", **fields: Any) -> Endpoint:
    role: Role = fields.pop("role", "index-server")
    return Endpoint(name, role, address, **{"tier": "hourly", **fields})


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve an IndexService; returns its address."""
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(1))

        async def start(
            model_id: str = MODEL,
            handlers: index_pb2_grpc.IndexServiceServicer | None = None,
            host: str = "127.0.0.1",
        ) -> str:
            answering = handlers or IndexEndpoint(
                ServedShards(),
                space=ModelSpace(model_id, 4),
                tier="hourly",
                executor=executor,
            )
            port = await stack.enter_async_context(
                grpc_server(
                    lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(
                        answering, server
                    ),
                    host=host,
                    port=0,
                    drain_seconds=0,
                )
            )
            return f"{host}:{port}"

        yield start


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet(MODEL)
    yield fleet
    await fleet.close()


async def described(peers: list[Peer], **options: Any) -> Round[index_pb2.DescribeResponse]:
    return await ask_all(
        peers,
        lambda peer: peer.index.Describe(index_pb2.DescribeRequest(), timeout=LONG_DEADLINE),
        method="Describe",
        model_id=MODEL,
        **options,
    )


async def looked_up(peers: list[Peer]) -> Round[index_pb2.LookupResponse]:
    request = index_pb2.LookupRequest(model_id=MODEL, listing_ids=["lamp"])
    return await ask_all(
        peers,
        lambda peer: peer.index.Lookup(request, timeout=LONG_DEADLINE),
        method="Lookup",
        model_id=MODEL,
    )


def failed_calls() -> float:
    """Return the metric's number of failed calls, over all methods and tiers."""
    (family,) = (m for m in REGISTRY.collect() if m.name == "shashin_fleet_failed_calls")
    return sum(s.value for s in family.samples if s.name.endswith("_total"))


async def test_all_calls_are_sent_before_any_has_ended(fleet: Fleet) -> None:
    async with hung_endpoints(8) as hung:
        fleet.sync(endpoint(f"hung-{n}", one.address) for n, one in enumerate(hung))
        with fleet.hold(*INDEX_ROLES) as held:
            asking = asyncio.ensure_future(described(held.peers))
            await until(lambda: all(one.received.is_set() for one in hung), "all have a call")
            assert not any(one.ended.is_set() for one in hung)
            assert not asking.done()
            asking.cancel()
            await until(lambda: all(one.ended.is_set() for one in hung), "no call is left behind")


async def test_responses_failures_and_other_models_are_distinguished(
    fleet: Fleet, serve: Serve
) -> None:
    good, other, gone = endpoint("good", await serve()), endpoint("other", await serve("b")), None
    async with hung_endpoints(1) as (ending,):
        gone = endpoint("gone", ending.address)
    fleet.sync([good, other, gone])
    before = failed_calls()
    with fleet.hold(*INDEX_ROLES) as held:
        asked = await described(held.peers)
    assert [peer.endpoint for peer, _ in asked.answers] == [good]
    assert [(f.endpoint, f.status) for f in asked.failures] == [(gone, "UNAVAILABLE")]
    assert asked.other_models == [OtherModel(other, "b")]
    assert failed_calls() == before + 1, "another model is no failed call"


async def test_an_endpoint_that_rejects_the_model_is_set_aside_with_its_message(
    fleet: Fleet, serve: Serve
) -> None:
    other = endpoint("other", await serve("b"))
    fleet.sync([other])
    before = failed_calls()
    with fleet.hold(*INDEX_ROLES) as held:
        asked = await looked_up(held.peers)
    assert not asked.answers
    assert not asked.failures
    assert [found.endpoint for found in asked.other_models] == [other]
    assert str(asked.other_models[0]) == (
        f"other at {other.address} (model 'test-model' was requested; this endpoint holds 'b')"
    )
    assert failed_calls() == before


class OtherPrecondition(index_pb2_grpc.IndexServiceServicer):
    """Rejects calls for a reason unrelated to models."""

    async def _refuse(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "PreconditionFailed: not now")

    Search = _refuse
    Lookup = _refuse
    Describe = _refuse
    Newest = _refuse


async def test_another_precondition_that_fails_is_a_failure(fleet: Fleet, serve: Serve) -> None:
    fleet.sync([endpoint("odd", await serve(handlers=OtherPrecondition()))])
    with fleet.hold(*INDEX_ROLES) as held:
        asked = await looked_up(held.peers)
    assert [f.error for f in asked.failures] == ["FAILED_PRECONDITION: PreconditionFailed: not now"]
    assert not asked.other_models


async def test_a_faulty_response_is_a_failure_and_one_of_another_model_is_not_checked(
    fleet: Fleet, serve: Serve
) -> None:
    fleet.sync([endpoint("good", await serve()), endpoint("other", await serve("b"))])
    with fleet.hold(*INDEX_ROLES) as held:
        asked = await described(held.peers, check=lambda answer: f"{answer.model_id} is odd")
    assert [f.error for f in asked.failures] == ["INTERNAL: test-model is odd"]
    assert [found.model_id for found in asked.other_models] == ["b"]


async def test_an_endpoint_with_another_model_in_discovery_is_known_but_not_called(
    fleet: Fleet,
) -> None:
    async with hung_endpoints(1) as (hung,):
        other = endpoint("other", hung.address, model_id="b")
        mine = endpoint("mine", "127.0.0.1:2", model_id=MODEL)
        unsaid = endpoint("unsaid", "127.0.0.1:3")
        assert fleet.sync([unsaid, other, mine])
        assert not fleet.sync([other, mine, unsaid]), "nothing has changed"
        assert fleet.endpoints(*INDEX_ROLES) == [mine, other, unsaid]
        with fleet.hold(*INDEX_ROLES) as held:
            assert {peer.endpoint for peer in held.peers} == {mine, unsaid}
            assert held.other_models == [OtherModel(other, "b")]
            await described(held.peers)
        assert not hung.received.is_set()


async def test_an_endpoint_whose_model_changes_in_discovery_is_called_from_then_on(
    fleet: Fleet, serve: Serve
) -> None:
    address = await serve()
    fleet.sync([endpoint("moved", address, model_id="b")])
    with fleet.hold(*INDEX_ROLES) as held:
        assert not held.peers
    moved = endpoint("moved", address, model_id=MODEL)
    assert fleet.sync([moved])
    assert fleet.endpoints(*INDEX_ROLES) == [moved]
    with fleet.hold(*INDEX_ROLES) as held:
        assert not held.other_models
        assert [peer.endpoint for peer, _ in (await described(held.peers)).answers] == [moved]


async def test_only_the_requested_roles_are_held(fleet: Fleet) -> None:
    roles: tuple[Role, ...] = ("indexer", "index-server", "embedder")
    fleet.sync(endpoint(role, f"127.0.0.1:{n}", role=role) for n, role in enumerate(roles, start=1))
    fleet.sync([*fleet.endpoints(*roles), endpoint("other", role="embedder", model_id="b")])
    with fleet.hold("embedder") as held:
        assert [peer.endpoint.role for peer in held.peers] == ["embedder"]
        assert [other.model_id for other in held.other_models] == ["b"]
    with fleet.hold(*INDEX_ROLES) as held:
        assert {peer.endpoint.role for peer in held.peers} == {"indexer", "index-server"}
        assert not held.other_models


async def test_an_endpoint_that_leaves_can_still_be_called_by_its_holders(
    fleet: Fleet, serve: Serve
) -> None:
    leaving = endpoint("leaving", await serve())
    fleet.sync([leaving])
    with fleet.hold(*INDEX_ROLES) as held:
        fleet.sync([])
        assert fleet.endpoints(*INDEX_ROLES) == []
        assert [peer.endpoint for peer, _ in (await described(held.peers)).answers] == [leaving]
    with fleet.hold(*INDEX_ROLES) as after:
        assert not after.peers


async def test_an_ipv6_endpoint_is_called(fleet: Fleet, serve: Serve) -> None:
    try:
        address = await serve(host="[::1]")
    except UserError:
        pytest.skip("this machine has no IPv6")
    fleet.sync([endpoint("six", address)])
    with fleet.hold(*INDEX_ROLES) as held:
        assert len((await described(held.peers)).answers) == 1
