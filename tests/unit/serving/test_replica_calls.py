"""Calling one replica per group over gRPC: another one answers if the first fails or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shashin.discovery.protocol import Endpoint
from shashin.rpc.server import grpc_server
from shashin.serving.fleet import INDEX_ROLES, Fleet, Peer, Round
from shashin.serving.replica_calls import ReplicaCalls
from shashin.v1 import index_pb2, index_pb2_grpc
from tests.support.hung_endpoints import hung_endpoints

MODEL = "test-model"


class Answering(index_pb2_grpc.IndexServiceServicer):
    """Answers at once, and counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def Describe(self, request: Any, context: Any) -> index_pb2.DescribeResponse:  # noqa: N802
        self.calls += 1
        return index_pb2.DescribeResponse(model_id=MODEL)

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def Lookup(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


class Replicas:
    """A fleet of replicas, and the calls to them."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._endpoints: list[Endpoint] = []
        self.fleet = Fleet(MODEL)
        self.calls = ReplicaCalls(zone="near")
        stack.push_async_callback(self.fleet.close)

    def announce(self, address: str, group: str, zone: str) -> None:
        self._endpoints.append(
            Endpoint(address, "index-server", address, "hourly", group=group, zone=zone)
        )
        self.fleet.sync(self._endpoints)

    async def start(self, group: str, zone: str = "") -> Answering:
        handlers, server = Answering(), AsyncExitStack()
        self._stack.push_async_callback(server.aclose)
        port = await server.enter_async_context(
            grpc_server(
                lambda grpc: index_pb2_grpc.add_IndexServiceServicer_to_server(handlers, grpc),
                host="127.0.0.1",
                port=0,
                drain_seconds=0,
            )
        )
        self.announce(f"127.0.0.1:{port}", group, zone)
        return handlers

    async def ask(self) -> Round[index_pb2.DescribeResponse]:
        def send(peer: Peer) -> Any:
            return peer.index.Describe(index_pb2.DescribeRequest(), timeout=60)

        with self.fleet.hold(*INDEX_ROLES) as held:
            return await self.calls.ask_groups(held.peers, send, method="Describe", model_id=MODEL)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        yield Replicas(stack)


async def test_one_replica_of_each_group_is_asked(replicas: Replicas) -> None:
    started = [await replicas.start(group) for group in ("a", "a", "b", "")]
    asked = await replicas.ask()
    assert len(asked.answers) == 3
    assert [started[0].calls + started[1].calls, started[2].calls, started[3].calls] == [1, 1, 1]


async def test_another_replica_answers_for_one_that_refuses_connections(
    replicas: Replicas,
) -> None:
    replicas.announce("127.0.0.1:1", "a", "near")
    far = await replicas.start("a", "far")
    for _ in range(2):
        asked = await replicas.ask()
        assert (len(asked.answers), asked.failures) == (1, [])
    assert far.calls == 2


async def test_a_group_fails_once_each_of_its_replicas_has_failed(replicas: Replicas) -> None:
    for port in (1, 2):
        replicas.announce(f"127.0.0.1:{port}", "a", "")
    asked = await replicas.ask()
    assert not asked.answers
    assert sorted(f.endpoint.address for f in asked.failures) == ["127.0.0.1:1", "127.0.0.1:2"]


async def test_a_hedge_answers_for_a_replica_that_hangs_and_its_call_is_cancelled(
    replicas: Replicas,
) -> None:
    near = await replicas.start("warm", "near")
    for _ in range(40):
        await replicas.ask()
    assert near.calls == 40
    async with hung_endpoints(1) as (hung,):
        replicas.announce(hung.address, "a", "near")
        await replicas.start("a", "far")
        asked = await replicas.ask()
        assert (len(asked.answers), asked.failures) == (2, [])
        assert hung.received.is_set()
        await asyncio.wait_for(hung.ended.wait(), 30)
