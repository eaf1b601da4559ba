"""Rate, errors and duration of each RPC, as the server sees it and as the client does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from shashin.errors import DeadlineExceeded, EmbedderOverloaded
from shashin.rpc.channel import open_channel
from shashin.rpc.client_calls import ClientCalls
from shashin.rpc.server import grpc_server
from shashin.v1 import embed_pb2, embed_pb2_grpc
from tests.support.waiting import until

NAME, LONG = "Embed", 60.0


@dataclass
class Handlers(embed_pb2_grpc.EmbedServiceServicer):
    """Answers, fails or hangs, as the number of photos says."""

    received: asyncio.Event = field(default_factory=asyncio.Event)

    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Any
    ) -> embed_pb2.EmbedResponse:
        self.received.set()
        match len(request.photos):
            case 1:
                raise EmbedderOverloaded("too many photos wait")
            case 2:
                raise ZeroDivisionError
            case 3:
                await asyncio.sleep(LONG)
            case 4:
                raise DeadlineExceeded("it took too long")
        return embed_pb2.EmbedResponse()


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def stub(handlers: Handlers) -> AsyncIterator[embed_pb2_grpc.EmbedServiceAsyncStub]:
    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(handlers, server)

    async with grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0) as port:
        channel = open_channel(f"127.0.0.1:{port}")
        yield embed_pb2_grpc.EmbedServiceStub(channel)
        await channel.close()


def photos(number: int) -> embed_pb2.EmbedRequest:
    return embed_pb2.EmbedRequest(photos=[b"x"] * number)


def answers(status: str) -> float:
    labels = {"method": NAME, "status": status}
    return REGISTRY.get_sample_value("shashin_rpc_answers_total", labels) or 0.0


def timed() -> float:
    return REGISTRY.get_sample_value("shashin_rpc_seconds_count", {"method": NAME}) or 0.0


@pytest.mark.parametrize(
    ("number", "status"),
    [(0, "OK"), (1, "RESOURCE_EXHAUSTED"), (2, "INTERNAL"), (4, "DEADLINE_EXCEEDED")],
)
async def test_a_server_counts_each_call_by_its_status_and_times_it(
    stub: embed_pb2_grpc.EmbedServiceAsyncStub, number: int, status: str
) -> None:
    counted, calls = answers(status), timed()
    try:
        await stub.Embed(photos(number), timeout=LONG)
    except grpc.aio.AioRpcError as error:
        found = error.code().name
    else:
        found = "OK"
    # The server's own last step may come after the client has its answer.
    await until(lambda: answers(status) == counted + 1, "it is counted")
    assert timed() == calls + 1
    assert found == status


async def test_a_call_that_its_client_has_left_is_cancelled_and_not_ok(
    stub: embed_pb2_grpc.EmbedServiceAsyncStub, handlers: Handlers
) -> None:
    cancelled, succeeded = answers("CANCELLED"), answers("OK")
    call = stub.Embed(photos(3), timeout=LONG)
    waiting = asyncio.ensure_future(call.wait_for_connection())
    await until(handlers.received.is_set, "the server has it")
    call.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: answers("CANCELLED") == cancelled + 1, "it is counted")
    assert answers("OK") == succeeded


def client_answers(status: str) -> float:
    labels = {"method": NAME, "role": "embedder", "tier": "", "status": status}
    return REGISTRY.get_sample_value("shashin_rpc_client_answers_total", labels) or 0.0


def client_timed() -> float:
    labels = {"method": NAME, "role": "embedder", "tier": ""}
    return REGISTRY.get_sample_value("shashin_rpc_client_seconds_count", labels) or 0.0


async def test_a_client_counts_each_call_by_its_status_and_times_it(
    stub: embed_pb2_grpc.EmbedServiceAsyncStub, handlers: Handlers
) -> None:
    calls = ClientCalls("embedder", "")
    before = {s: client_answers(s) for s in ("OK", "RESOURCE_EXHAUSTED", "CANCELLED")}
    sent = client_timed()
    await calls.observed(NAME, stub.Embed(photos(0), timeout=LONG))
    with pytest.raises(grpc.aio.AioRpcError):
        await calls.observed(NAME, stub.Embed(photos(1), timeout=LONG))
    handlers.received.clear()
    hanging = asyncio.ensure_future(calls.observed(NAME, stub.Embed(photos(3), timeout=LONG)))
    await until(handlers.received.is_set, "the server has it")
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    assert {s: client_answers(s) - counted for s, counted in before.items()} == dict.fromkeys(
        before, 1.0
    )
    assert client_timed() == sent + 3
