"""Calls are spans of one trace, from the client to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from shashin.errors import EmbedderOverloaded, InvalidQuery, ModelError
from shashin.rpc.call_traces import extract
from shashin.rpc.channel import open_channel
from shashin.rpc.client_calls import ClientCalls
from shashin.rpc.server import grpc_server
from shashin.runtime.logging import get_logger
from shashin.runtime.spans import Tracer
from shashin.runtime.trace_context import Carrier
from shashin.v1 import embed_pb2, embed_pb2_grpc
from tests.support.collector import Collector, Received, collecting
from tests.support.traced import tracing_on
from tests.support.waiting import until

NAME = "shashin.v1.EmbedService/Embed"
LONG = 60.0
FOREIGN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Handlers(embed_pb2_grpc.EmbedServiceServicer):
    """Answers, fails or hangs, as the number of photos says."""

    def __init__(self) -> None:
        self.received = asyncio.Event()
        self.traces: list[Carrier | None] = []

    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Any
    ) -> embed_pb2.EmbedResponse:
        self.received.set()
        self.traces.append(extract(context.invocation_metadata()))
        get_logger("shashin.test").warning("in the call")
        match len(request.photos):
            case 1:
                raise EmbedderOverloaded("too many photos wait: S3CRET")
            case 2:
                raise ZeroDivisionError("S3CRET")
            case 3:
                await asyncio.Event().wait()
            case 4:
                raise ModelError("no vector: S3CRET")
            case 5:
                raise InvalidQuery("what is that? S3CRET")
        return embed_pb2.EmbedResponse()


@asynccontextmanager
async def running(handlers: Handlers) -> AsyncIterator[grpc.aio.Channel]:
    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(handlers, server)

    async with grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0) as port:
        channel = open_channel(f"127.0.0.1:{port}")
        yield channel
        await channel.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


def photos(number: int) -> embed_pb2.EmbedRequest:
    return embed_pb2.EmbedRequest(photos=[b"x"] * number)


async def call(tracer: Tracer, channel: grpc.aio.Channel, number: int) -> None:
    calls = ClientCalls("embedder", "", "127.0.0.1:7")
    stub = embed_pb2_grpc.EmbedServiceStub(channel)
    with tracer.span("caller"):
        await calls.send("Embed", stub.Embed, photos(number), seconds=LONG)


def sides(collector: Collector) -> tuple[Received, Received]:
    (client,), (server,) = (
        [span for span in collector.spans(name=NAME) if span.kind == kind]
        for kind in ("client", "server")
    )
    return client, server


async def test_a_server_continues_the_trace_of_its_client(collector: Collector) -> None:
    with tracing_on(collector) as tracer:
        async with running(Handlers()) as channel:
            await call(tracer, channel, 0)
    (caller,) = collector.spans(name="caller")
    client, server = sides(collector)
    assert client.trace_id == server.trace_id == caller.trace_id
    assert (server.parent_id, client.parent_id) == (client.span_id, caller.span_id)
    assert server.attributes["rpc.response.status_code"] == "OK"
    assert client.attributes["server.port"] == "7"
    assert not client.failed
    assert not server.failed


@pytest.mark.parametrize(
    ("number", "status", "reason", "is_fault"),
    [
        (1, "RESOURCE_EXHAUSTED", "EmbedderOverloaded", False),
        (2, "INTERNAL", "INTERNAL", True),
        (4, "INTERNAL", "ModelError", True),
        (5, "INVALID_ARGUMENT", "InvalidQuery", False),
    ],
)
async def test_spans_have_the_status_of_a_call_and_the_name_of_its_error_alone(
    collector: Collector, number: int, status: str, reason: str, *, is_fault: bool
) -> None:
    with tracing_on(collector) as tracer:
        async with running(Handlers()) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await call(tracer, channel, number)
    client, server = sides(collector)
    assert (client.attributes["rpc.response.status_code"], client.failed) == (status, True)
    assert (server.attributes["error.type"], server.failed) == (reason, is_fault)
    assert "S3CRET" not in collector.text()


async def test_both_spans_of_a_cancelled_call_say_so(collector: Collector) -> None:
    handlers = Handlers()
    with tracing_on(collector) as tracer:
        async with running(handlers) as channel:
            hanging = asyncio.ensure_future(call(tracer, channel, 3))
            await until(handlers.received.is_set, "the server has it")
            hanging.cancel()
            await asyncio.gather(hanging, return_exceptions=True)
            await until(lambda: len(collector.spans(name=NAME)) == 2, "both have ended")
    client, server = sides(collector)
    assert client.attributes["cancelled"] is server.attributes["cancelled"] is True
    assert not client.failed
    assert not server.failed


async def test_an_endpoint_continues_a_trace_and_begins_none(collector: Collector) -> None:
    with tracing_on(collector):
        async with running(Handlers()) as channel:
            stub = embed_pb2_grpc.EmbedServiceStub(channel)
            for traceparent in (FOREIGN, ""):
                metadata = [("traceparent", traceparent)] if traceparent else []
                await stub.Embed(photos(0), metadata=metadata)
    (span,) = collector.spans(name=NAME)
    assert (span.trace_id, span.parent_id) == tuple(FOREIGN.split("-")[1:3])


async def test_a_malformed_trace_is_no_reason_to_refuse_a_call(collector: Collector) -> None:
    with tracing_on(collector):
        async with running(Handlers()) as channel:
            stub = embed_pb2_grpc.EmbedServiceStub(channel)
            await stub.Embed(photos(0), metadata=[("traceparent", "no trace")])
    (span,) = collector.spans(name=NAME)
    assert span.parent_id == ""


async def test_a_call_carries_its_trace_only_if_that_is_kept(collector: Collector) -> None:
    handlers = Handlers()
    async with running(handlers) as channel:
        with tracing_on(collector, share=0.0) as tracer:
            await call(tracer, channel, 0)
        with tracing_on(collector, share=1.0) as tracer:
            await call(tracer, channel, 0)
    without, with_trace = handlers.traces
    assert without is None
    (caller,) = collector.spans(name="caller")
    assert with_trace is not None
    assert with_trace["traceparent"].split("-")[1] == caller.trace_id


async def test_the_latency_of_a_call_has_an_exemplar_if_its_trace_is_kept(
    collector: Collector,
) -> None:
    def exemplars() -> set[str]:
        return {
            sample.exemplar.labels["trace_id"]
            for family in REGISTRY.collect()
            if family.name == "shashin_rpc_seconds"
            for sample in family.samples
            if sample.exemplar is not None
        }

    kept, dropped = "1" * 32, "2" * 32
    with tracing_on(collector):
        async with running(Handlers()) as channel:
            stub = embed_pb2_grpc.EmbedServiceStub(channel)
            for trace, flags in ((kept, "01"), (dropped, "00")):
                metadata = [("traceparent", f"00-{trace}-{'3' * 16}-{flags}")]
                await stub.Embed(photos(0), metadata=metadata)
    assert kept in exemplars()
    assert dropped not in exemplars()


async def test_what_polls_all_the_time_begins_no_trace(collector: Collector) -> None:
    with tracing_on(collector):
        async with running(Handlers()) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await health.Check(health_pb2.HealthCheckRequest())
    assert collector.spans() == []


async def test_a_server_that_started_before_tracing_makes_spans_from_then_on(
    collector: Collector,
) -> None:
    async with running(Handlers()) as channel:
        await embed_pb2_grpc.EmbedServiceStub(channel).Embed(photos(0))
        with tracing_on(collector) as tracer:
            await call(tracer, channel, 0)
    assert {span.kind for span in collector.spans()} == {"internal", "client", "server"}
