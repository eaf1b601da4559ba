"""The gRPC server: what clients of every kind see of it, and how it goes on when they misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ngh2 import (
    Connection,
    ConnectionClosed,
    DataReceived,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    ResponseReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

from shashin.errors import InvalidQuery, UserError
from shashin.rpc import http2_protocol, server_connection
from shashin.rpc.server import grpc_server
from shashin.rpc.server_call import Method
from shashin.rpc.server_limits import ServerLimits
from shashin.rpc.wire import Status, framed, status_in
from shashin.v1 import embed_pb2, embed_pb2_grpc
from tests.support.raw_http2 import HEADERS, RawClient, raw_client
from tests.support.waiting import until

LONG = 60.0


@dataclass
class Handlers(embed_pb2_grpc.EmbedServiceServicer):
    """Answers with what it got; waits as long as it is told to."""

    waits: bool = False
    answer_bytes: int = 0
    received: list[embed_pb2.EmbedRequest] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)
    cancelled: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Any
    ) -> embed_pb2.EmbedResponse:
        self.received.append(request)
        self.contexts.append(context)
        try:
            if self.waits:
                await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.answer_bytes:
            return embed_pb2.EmbedResponse(model_id="x" * self.answer_bytes)
        return embed_pb2.EmbedResponse(model_id=str(sum(map(len, request.photos))))


@asynccontextmanager
async def serving(
    handlers: Handlers, *, drain_seconds: float = 0.0, **limits: Any
) -> AsyncIterator[int]:
    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(handlers, server)

    async with grpc_server(
        add,
        host="127.0.0.1",
        port=0,
        drain_seconds=drain_seconds,
        limits=ServerLimits(**limits) if limits else None,
    ) as port:
        yield port


@asynccontextmanager
async def listening(
    method: Method | Status, connections: server_connection.Connections, **limits: Any
) -> AsyncIterator[int]:
    """Answer every call by one method, on connections that a test looks at."""
    server = await asyncio.get_running_loop().create_server(
        lambda: server_connection.ServerConnection(
            lambda _path, _call: method, ServerLimits(**limits), connections
        ),
        "127.0.0.1",
        0,
    )
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def stub_of(port: int, **options: Any) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", **options) as channel:
        yield embed_pb2_grpc.EmbedServiceStub(channel)


def request_of(size: int) -> embed_pb2.EmbedRequest:
    return embed_pb2.EmbedRequest(photos=[b"x" * size])


async def assert_answers(port: int) -> None:
    """Others are answered, whatever one client does."""
    async with stub_of(port) as stub:
        assert (await stub.Embed(request_of(3), timeout=LONG)).model_id == "3"


@pytest.mark.parametrize("size", [0, 1, 16_380, 100_000, 5_000_000])
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_requests_of_every_size_are_answered(
    size: int, compression: grpc.Compression | None
) -> None:
    async with serving(Handlers()) as port, stub_of(port, compression=compression) as stub:
        assert (await stub.Embed(request_of(size), timeout=LONG)).model_id == str(size)


async def test_a_response_that_is_larger_than_the_clients_window_arrives() -> None:
    options = [("grpc.max_receive_message_length", 1 << 30)]
    async with (
        serving(Handlers(answer_bytes=20_000_000)) as port,
        stub_of(port, options=options) as stub,
    ):
        assert len((await stub.Embed(request_of(0), timeout=LONG)).model_id) == 20_000_000


def test_the_client_of_grpc_without_asyncio_is_answered() -> None:
    async def serve() -> str:
        def ask() -> str:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = embed_pb2_grpc.EmbedServiceStub(channel)
                return str(stub.Embed(request_of(7), timeout=LONG).model_id)

        async with serving(Handlers()) as port:
            return await asyncio.to_thread(ask)

    assert asyncio.run(serve()) == "7"


async def test_a_handler_knows_the_deadline_and_is_cancelled_when_it_passes() -> None:
    handlers = Handlers(waits=True)
    async with serving(handlers) as port, raw_client(port) as client:
        await send(client, within=b"200m")
        ended = await client.until(ResponseReceived)
        assert status_of(ended).code == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: handlers.cancelled == 1, "the handler is cancelled")
        assert handlers.contexts[0].time_remaining() == 0.0
        handlers.waits = False
        await assert_answers(port)
    assert handlers.contexts[1].time_remaining() <= LONG


async def test_without_a_deadline_there_is_none() -> None:
    handlers = Handlers()
    async with serving(handlers) as port, raw_client(port) as client:
        await send(client)
        await client.until(TrailersReceived)
    assert handlers.contexts[0].time_remaining() is None


async def test_metadata_reach_the_handler() -> None:
    handlers = Handlers()
    sent = (("x-text", "some words"), ("x-bytes-bin", bytes(range(256))))
    async with serving(handlers) as port, stub_of(port) as stub:
        await stub.Embed(request_of(0), timeout=LONG, metadata=sent)
    assert set(sent) <= set(handlers.contexts[0].invocation_metadata())


async def test_a_client_that_leaves_cancels_its_call_and_no_other() -> None:
    handlers = Handlers(waits=True)
    async with serving(handlers) as port, stub_of(port) as stub:
        left, kept = (
            stub.Embed(request_of(1), timeout=LONG),
            stub.Embed(request_of(2), timeout=LONG),
        )
        await until(lambda: len(handlers.received) == 2, "both have arrived")
        left.cancel()
        await until(lambda: handlers.cancelled == 1, "one is cancelled")
        handlers.may_answer.set()
        assert (await kept).model_id == "2"


async def test_a_connection_that_is_lost_cancels_its_calls() -> None:
    handlers = Handlers(waits=True)
    async with serving(handlers) as port:
        async with raw_client(port) as client:
            await send(client)
            await send(client)
            await until(lambda: len(handlers.received) == 2, "both have arrived")
        await until(lambda: handlers.cancelled == 2, "both are cancelled")


async def test_calls_beyond_those_of_a_connection_wait_in_the_client() -> None:
    handlers = Handlers(waits=True)
    async with serving(handlers, calls_per_connection=3) as port, stub_of(port) as stub:
        calls = [stub.Embed(request_of(n), timeout=LONG) for n in range(9)]
        waiting = [asyncio.ensure_future(one_of(call)) for call in calls]
        await until(lambda: len(handlers.received) == 3, "three have arrived")
        handlers.may_answer.set()
        answers = await asyncio.gather(*waiting)
    assert sorted(answer.model_id for answer in answers) == [str(n) for n in range(9)]


async def one_of(call: Any) -> Any:
    return await call


async def send(
    client: RawClient, data: bytes | None = None, *, within: bytes = b"", end: bool = True
) -> int:
    headers = [*HEADERS, (b"grpc-timeout", within)] if within else HEADERS
    stream_id = client.http2.send_request(headers)
    body = framed(request_of(3).SerializeToString()) if data is None else data
    client.http2.send_data(stream_id, body, end_stream=end)
    await client.send()
    return stream_id


def status_of(event: Any) -> Status:
    assert event is not None
    return status_in(event.headers)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        framed(b"")[:-1] + b"\5abc",
        2 * framed(b""),
        framed(b"") + b"\0",
    ],
)
async def test_a_body_that_is_not_one_request_is_an_error(data: bytes) -> None:
    async with serving(Handlers()) as port, raw_client(port) as client:
        await send(client, data)
        assert status_of(await client.until(ResponseReceived)).code == grpc.StatusCode.INTERNAL
        await send(client)
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK


async def test_a_request_may_end_in_a_frame_of_its_own_or_with_trailers() -> None:
    async with serving(Handlers()) as port, raw_client(port) as client:
        stream_id = await send(client, end=False)
        client.http2.end_stream(stream_id)
        await client.send()
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK
        stream_id = await send(client, end=False)
        client.http2.send_trailers(stream_id, [(b"x-end", b"1")])
        await client.send()
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK


async def test_a_request_that_is_too_large_is_refused_before_it_has_arrived() -> None:
    async with serving(Handlers(), request_bytes=1000) as port, raw_client(port) as client:
        await send(client, framed(bytes(1001))[:50], end=False)
        status = status_of(await client.until(ResponseReceived))
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1001 bytes: expected at most 1000" in status.message
        reset = await client.until(StreamReset)
        assert isinstance(reset, StreamReset)
        assert reset.error_code == 0
        await assert_answers(port)


async def test_requests_that_arrive_at_once_hold_no_more_memory_than_they_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "MAX_HELD_BYTES", 1000)
    async with serving(Handlers()) as port, raw_client(port) as client:
        half = framed(bytes(800))[:400]
        first = await send(client, half, end=False)
        await send(client, half, end=False)
        await send(client, half, end=False)
        status = status_of(await client.until(ResponseReceived))
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        # What ended makes room, however it ended.
        client.http2.reset_stream(first)
        await send(client, half, end=False)
        await send(client)
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK
    async with serving(Handlers()) as port:
        for _ in range(3):
            async with raw_client(port) as client:
                await send(client, half, end=False)
        await assert_answers(port)


async def test_a_response_that_is_read_slowly_arrives_while_the_server_drains() -> None:
    server = serving(Handlers(answer_bytes=3_000_000), drain_seconds=LONG)
    port = await server.__aenter__()
    async with raw_client(port) as client:
        await send(client)
        stopping = asyncio.ensure_future(server.__aexit__(None, None, None))
        events = await client.until_closed()
        data = sum(len(event.data) for event in events if isinstance(event, DataReceived))
        assert data > 3_000_000
        assert any(isinstance(event, TrailersReceived) for event in events)
        await stopping


async def test_a_request_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "RECEIVE_SECONDS", 0.2)
    async with serving(Handlers()) as port, raw_client(port) as client:
        await send(client, framed(bytes(100))[:50], end=False)
        status = status_of(await client.until(ResponseReceived))
        assert status.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "did not arrive" in status.message


async def test_a_call_with_a_long_deadline_is_not_given_up_once_its_request_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "RECEIVE_SECONDS", 0.2)
    handlers = Handlers(waits=True)
    async with serving(handlers) as port, raw_client(port) as client:
        await send(client, within=b"60S")
        await send(client)
        await until(lambda: len(handlers.received) == 2, "both have arrived")
        await asyncio.sleep(0.4)
        handlers.may_answer.set()
        for _ in range(2):
            assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK


async def test_what_is_no_call_of_grpc_has_an_http_status() -> None:
    async with serving(Handlers()) as port, raw_client(port) as client:
        client.http2.send_request(
            [(name, b"text/html" if name == b"content-type" else value) for name, value in HEADERS],
            end_stream=True,
        )
        await client.send()
        response: Any = await client.until(ResponseReceived)
        assert dict(response.headers) == {b":status": b"415"}
        await send(client, within=b"soon")
        assert status_of(await client.until(ResponseReceived)).code == grpc.StatusCode.INTERNAL


async def test_what_is_not_http2_ends_that_connection_alone() -> None:
    async with serving(Handlers()) as port:
        for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01" + bytes(200)):
            async with raw_client(port, preface=False) as client:
                client.write(data)
                await client.hung_up()
        async with raw_client(port) as client:
            # A frame of window updates by nothing.
            client.write(b"\0\0\4\10\0\0\0\0\0\0\0\0\0")
            events = await client.until_closed()
            assert any(isinstance(event, GoAwayReceived | ConnectionClosed) for event in events)
        await assert_answers(port)


async def test_what_http2_answers_by_itself_is_sent_at_once() -> None:
    async with serving(Handlers()) as port, raw_client(port) as client:
        client.http2.ping(b"abcdefgh")
        await client.send()
        answer: Any = await client.until(PingAcknowledged)
        assert answer.opaque_data == b"abcdefgh"
        # An acknowledgement of settings that has a payload is an error of the connection, and no event.
        client.write(b"\0\0\1\4\1\0\0\0\0\0")
        assert any(isinstance(event, GoAwayReceived) for event in await client.until_closed())


async def test_nothing_begins_on_a_connection_that_was_just_closed() -> None:
    handlers = Handlers()
    async with serving(handlers) as port, raw_client(port) as client:
        await send(client)
        await client.until(TrailersReceived)
        # Too many pings, and a call that comes together with them.
        for _ in range(5):
            client.http2.ping()
        await send(client)
        await client.until_closed()
        assert len(handlers.received) == 1


async def test_a_client_that_said_goodbye_gets_its_answer_and_the_server_stops() -> None:
    handlers = Handlers(waits=True)
    server = serving(handlers, drain_seconds=10 * LONG)
    port = await server.__aenter__()
    async with raw_client(port) as client:
        await send(client)
        client.http2.send_goaway()
        await client.send()
        await until(lambda: handlers.received, "it has arrived")
        handlers.may_answer.set()
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK
        await asyncio.wait_for(server.__aexit__(None, None, None), LONG)


async def test_headers_that_are_too_large_end_that_call_alone() -> None:
    async with serving(Handlers(waits=False)) as port, raw_client(port) as client:
        client.http2.send_request([*HEADERS, (b"x-large", b"x" * 30_000)], end_stream=True)
        await client.send()
        assert (
            status_of(await client.until(ResponseReceived)).code
            == grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        await send(client)
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK


async def test_headers_that_are_far_too_large_end_that_connection_alone() -> None:
    async with serving(Handlers()) as port:
        async with raw_client(port) as client:
            client.http2.send_request([*HEADERS, (b"x-large", b"x" * 70_000)], end_stream=True)
            await client.send()
            assert not await client.until(TrailersReceived)
        await assert_answers(port)


async def test_a_peer_that_does_not_respond_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2_protocol, "PING_SECONDS", 0.2)
    monkeypatch.setattr(http2_protocol, "PING_TIMEOUT_SECONDS", 2.0)
    handlers = Handlers(waits=True)
    async with serving(handlers) as port, stub_of(port) as stub:
        alive = asyncio.ensure_future(one_of(stub.Embed(request_of(1), timeout=LONG)))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # Whatever it gets, it sends nothing.
        assert await reader.read(-1)
        writer.close()
        handlers.may_answer.set()
        assert (await alive).model_id == "1"


async def test_a_client_that_does_not_read_holds_nobody_else_up() -> None:
    async with serving(Handlers(answer_bytes=1_000_000)) as port, raw_client(port) as client:
        for _ in range(50):
            await send(client)
        async with stub_of(port) as stub:
            answer = await stub.Embed(request_of(0), timeout=LONG)
            assert len(answer.model_id) == 1_000_000


async def refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False


async def test_a_connection_that_is_accepted_while_the_server_drains_ends_as_well() -> None:
    connections = server_connection.Connections()
    connections.is_draining = True
    async with listening(Status(grpc.StatusCode.UNIMPLEMENTED), connections) as port:
        async with raw_client(port) as client:
            assert any(isinstance(event, GoAwayReceived) for event in await client.until_closed())
        await until(lambda: not connections.open, "the connection is gone")


async def test_calls_in_progress_are_answered_while_the_server_drains() -> None:
    handlers = Handlers(waits=True)
    server = serving(handlers, drain_seconds=LONG)
    port = await server.__aenter__()
    async with stub_of(port) as stub:
        call = asyncio.ensure_future(one_of(stub.Embed(request_of(4), timeout=LONG)))
        await until(lambda: handlers.received, "it has arrived")
        stopping = asyncio.ensure_future(server.__aexit__(None, None, None))
        await until(partial(refuses, port), "nobody can connect any more")
        assert not stopping.done()
        handlers.may_answer.set()
        assert (await call).model_id == "4"
        await stopping


async def test_calls_that_take_longer_than_the_drain_are_unavailable() -> None:
    handlers = Handlers(waits=True)
    server = serving(handlers, drain_seconds=0.1)
    port = await server.__aenter__()
    async with stub_of(port) as stub:
        call = asyncio.ensure_future(one_of(stub.Embed(request_of(4), timeout=LONG)))
        await until(lambda: handlers.received, "it has arrived")
        await server.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert handlers.cancelled == 1


async def test_a_server_without_calls_stops_at_once() -> None:
    server = serving(Handlers(), drain_seconds=10 * LONG)
    port = await server.__aenter__()
    await assert_answers(port)
    async with stub_of(port) as stub:
        await stub.Embed(request_of(1), timeout=LONG)
        await asyncio.wait_for(server.__aexit__(None, None, None), LONG)


async def test_a_port_that_is_taken_is_named() -> None:
    async with serving(Handlers()) as port:
        with pytest.raises(UserError, match=f"127.0.0.1:{port}.*SHASHIN_GRPC_PORT"):
            async with grpc_server(lambda _: None, host="127.0.0.1", port=port, drain_seconds=0):
                pass


@pytest.mark.parametrize(
    ("host", "callers"),
    [
        ("0.0.0.0", ["127.0.0.1"]),
        ("localhost", ["localhost"]),
        pytest.param(
            "::",
            ["127.0.0.1", "[::1]"],
            marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here"),
        ),
    ],
)
async def test_a_server_listens_where_it_is_told_to(host: str, callers: list[str]) -> None:
    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(Handlers(), server)

    async with grpc_server(add, host=host, port=0, drain_seconds=0) as port:
        for caller in callers:
            async with grpc.aio.insecure_channel(f"{caller}:{port}") as channel:
                stub = embed_pb2_grpc.EmbedServiceStub(channel)
                assert (await stub.Embed(request_of(3), timeout=LONG)).model_id == "3"


async def test_whoever_watches_and_does_not_read_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "_MAX_UNREAD_BYTES", -1)
    async with serving(Handlers()) as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for _ in watch:
                    pass
        assert ended.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


HEALTH = [
    (name, b"/grpc.health.v1.Health/Watch" if name == b":path" else value)
    for name, value in HEADERS
]
UNKNOWN = [(name, b"/no.such/Method" if name == b":path" else value) for name, value in HEADERS]
LARGE_WINDOWS = {Setting.INITIAL_WINDOW_SIZE: 64 << 20}


async def sent(client: RawClient, headers: list[tuple[bytes, bytes]], *data: bytes) -> int:
    """Send a call whose requests do not end."""
    stream_id = client.http2.send_request(headers)
    for one in data:
        client.http2.send_data(stream_id, one)
    await client.send()
    return stream_id


async def test_a_refusal_arrives_with_its_status_while_the_client_is_slow_to_read() -> None:
    async with (
        serving(Handlers(answer_bytes=3_000_000)) as port,
        raw_client(port, settings=LARGE_WINDOWS) as client,
    ):
        client.http2.set_local_window_size(200 << 20)
        for _ in range(5):
            await send(client)
        # Longer than it takes until the sockets between are full.
        await asyncio.sleep(0.5)
        refused = await sent(client, [*HEADERS, (b"grpc-timeout", b"soon")], b"\0")
        events: list[Any] = [
            event
            async for event in events_until(
                client, lambda event: isinstance(event, StreamClosed | StreamReset), refused
            )
        ]
        responses = [event for event in events if isinstance(event, ResponseReceived)]
        assert [status_of(one).code for one in responses] == [grpc.StatusCode.INTERNAL]


async def events_until(
    client: RawClient, is_last: Callable[[Any], bool], stream_id: int
) -> AsyncIterator[Any]:
    """Yield what comes on a stream."""
    while (event := await client.receive()) is not None:
        if getattr(event, "stream_id", None) == stream_id:
            yield event
            if is_last(event):
                return


@pytest.mark.parametrize("headers", [UNKNOWN, HEADERS], ids=["unknown", "answered"])
async def test_a_client_that_is_done_with_and_does_not_end_its_call_blocks_no_other(
    headers: list[tuple[bytes, bytes]],
) -> None:
    async with serving(Handlers(), calls_per_connection=1) as port, raw_client(port) as client:
        await client.until(SettingsReceived)
        for _ in range(3):
            await sent(client, headers, framed(b""))
            closed: Any = await client.until(StreamReset)
            assert closed.error_code == 0
        await send(client)
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK


async def test_a_method_that_does_not_exist_is_said_to_and_keeps_nothing_of_requests() -> None:
    async with serving(Handlers()) as port, raw_client(port) as client:
        await sent(client, UNKNOWN, framed(bytes(1_000_000))[:100_000])
        status = status_of(await client.until(ResponseReceived))
        assert status.code == grpc.StatusCode.UNIMPLEMENTED
        assert "/no.such/Method" in status.message
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.unary_unary("/no.such/Method")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await method(bytes(3_000_000), timeout=LONG)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(2 * framed(b""), grpc.StatusCode.INTERNAL, id="two"),
        pytest.param(framed(bytes(100_000)), grpc.StatusCode.RESOURCE_EXHAUSTED, id="large"),
    ],
)
async def test_services_of_grpc_itself_take_one_small_request(
    data: bytes, code: grpc.StatusCode
) -> None:
    async with serving(Handlers()) as port, raw_client(port) as client:
        await sent(client, HEALTH, data)
        response: Any = await client.until(ResponseReceived)
        ended = response if response.end_stream else await client.until(TrailersReceived)
        assert status_of(ended).code == code


async def test_a_stream_whose_request_never_comes_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "RECEIVE_SECONDS", 0.2)
    async with serving(Handlers()) as port, raw_client(port) as client:
        await sent(client, HEALTH)
        status = status_of(await client.until(ResponseReceived))
        assert status.code == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_requests_of_streams_count_among_those_that_are_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "MAX_HELD_BYTES", 1000)
    taken = asyncio.Event()

    async def stream(requests: AsyncIterator[bytes], _call: Any) -> AsyncIterator[bytes]:
        await taken.wait()
        async for request in requests:
            yield request

    connections = server_connection.Connections()
    method = Method(stream=stream, takes_many=True)
    async with (
        listening(method, connections) as port,
        raw_client(port) as client,
        raw_client(port) as other,
    ):
        await sent(client, HEADERS, framed(bytes(900)))
        await until(lambda: connections.held_bytes == 900, "it is counted")
        await sent(other, HEADERS, framed(bytes(200)))
        status = status_of(await other.until(ResponseReceived))
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert connections.held_bytes == 900
        taken.set()
        data: Any = await client.until(DataReceived)
        assert data.data == framed(bytes(900))
        assert not connections.held_bytes


@pytest.mark.parametrize("answer", [3_000_000, 0], ids=["large", "status"])
async def test_a_response_that_is_ready_late_arrives_whole_while_the_server_drains(
    answer: int,
) -> None:
    """Also if the client is still reading, and acknowledging, what came before."""
    first, second = asyncio.Event(), asyncio.Event()

    class Late(embed_pb2_grpc.EmbedServiceServicer):
        received = 0

        async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
            self.received += 1
            if request.photos:
                await first.wait()
                return embed_pb2.EmbedResponse(model_id="x" * 3_000_000)
            await second.wait()
            if not answer:
                await context.abort(grpc.StatusCode.NOT_FOUND, "why")
            return embed_pb2.EmbedResponse(model_id="x" * answer)

    late = Late()

    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(late, server)

    server = grpc_server(add, host="127.0.0.1", port=0, drain_seconds=LONG)
    port = await server.__aenter__()
    async with raw_client(port) as client:
        await send(client)
        last = await send(client, framed(b""))
        await until(lambda: late.received == 2, "both have begun")
        stopping = asyncio.ensure_future(server.__aexit__(None, None, None))
        goaway: Any = await client.until(GoAwayReceived)
        while goaway.last_stream_id > last:
            goaway = await client.until(GoAwayReceived)
        first.set()
        await asyncio.sleep(0.1)
        second.set()
        events = []
        while (event := await client.receive()) is not None:
            events.append(event)
            await asyncio.sleep(0.001)
    await stopping
    ended = [event for event in events if isinstance(event, TrailersReceived)]
    refused = [
        event for event in events if isinstance(event, ResponseReceived) and event.end_stream
    ]
    assert len(ended) == (2 if answer else 1)
    assert [status_of(event).message for event in refused] == ([] if answer else ["why"])
    data = sum(len(event.data) for event in events if isinstance(event, DataReceived))
    assert data > 3_000_000 + answer


async def test_a_client_that_pings_while_a_response_comes_is_not_disconnected() -> None:
    async with serving(Handlers(answer_bytes=1_000_000)) as port, raw_client(port) as client:
        await send(client)
        read, pings, is_answered = 0, 0, True
        while read < 1_000_000:
            event = await client.receive()
            assert event is not None, f"disconnected after {pings} pings"
            is_answered |= isinstance(event, PingAcknowledged)
            if isinstance(event, DataReceived):
                read += len(event.data)
                if is_answered:
                    pings, is_answered = pings + 1, False
                    client.http2.ping(b"roundtrp")
                    await client.send()
        assert pings > 4


async def test_a_client_that_reads_nothing_of_its_responses_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2_protocol, "PING_SECONDS", 0.1)
    monkeypatch.setattr(server_connection, "_UNREAD_SECONDS", 0.2)
    async with (
        serving(Handlers(answer_bytes=100_000)) as port,
        raw_client(port, settings={Setting.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        await send(client)
        with suppress(ConnectionError):
            await client.until_closed()
        await assert_answers_large(port)


async def assert_answers_large(port: int) -> None:
    async with stub_of(port) as stub:
        assert len((await stub.Embed(request_of(3), timeout=LONG)).model_id) == 100_000


async def test_a_client_with_too_much_to_read_gets_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "_MAX_QUEUED_BYTES", 50_000)
    async with (
        serving(Handlers(answer_bytes=100_000)) as port,
        raw_client(port, settings={Setting.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        # The second comes with the first, and the third when that waits.
        for _ in range(2):
            client.http2.send_data(client.http2.send_request(HEADERS), framed(b""), end_stream=True)
        await client.send()
        await client.until(ResponseReceived)
        await send(client)
        for _ in range(2):
            status = status_of(await client.until(ResponseReceived))
            assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("message", "metadata"), [("file \udcff", ()), ("", (("detail", "\u00e4"),))]
)
async def test_a_status_that_cannot_be_sent_as_it_is_ends_the_call_all_the_same(
    message: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    class Aborting(embed_pb2_grpc.EmbedServiceServicer):
        async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
            await context.abort(grpc.StatusCode.INTERNAL, message, metadata)

    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(Aborting(), server)

    async with (
        grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0) as port,
        stub_of(port) as stub,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Embed(request_of(0), timeout=LONG)
        assert error.value.code() == grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("character", ["x", "%", "\u00e4", "\U0001f4f7"])
async def test_a_message_that_is_too_long_for_headers_is_cut_off(character: str) -> None:
    class Failing(embed_pb2_grpc.EmbedServiceServicer):
        async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
            raise InvalidQuery("photos " + character * 20_000)

    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(Failing(), server)

    async with (
        grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0) as port,
        stub_of(port) as stub,
    ):
        for _ in range(10):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.Embed(request_of(0), timeout=LONG)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        details = error.value.details() or ""
        assert details.startswith("InvalidQuery: photos " + character)
        assert details.endswith(character + "...")


async def test_a_call_that_comes_together_with_the_acknowledgement_of_a_drain_is_answered() -> None:
    handlers = Handlers()
    server = serving(handlers, drain_seconds=LONG)
    port = await server.__aenter__()
    async with raw_client(port) as client:
        await client.until(SettingsReceived)
        await client.send()
        stream_id = client.http2.send_request(HEADERS)
        client.http2.send_data(stream_id, framed(b""), end_stream=True)
        call = client.http2.data_to_send()
        stopping = asyncio.ensure_future(server.__aexit__(None, None, None))
        while not any(isinstance(event, PingReceived) for event in await client.taken()):
            pass
        client.write(client.http2.data_to_send() + call)
        assert status_of(await client.until(TrailersReceived)).code == grpc.StatusCode.OK
    await stopping


async def test_a_client_that_has_ended_its_side_and_reads_nothing_does_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2_protocol, "_LINGER_SECONDS", 0.1)
    connections = server_connection.Connections()

    async def answer(_request: bytes, _call: Any) -> bytes:
        return bytes(10_000_000)

    async with (
        listening(Method(unary=answer), connections, idle_seconds=0.2) as port,
        raw_client(port, settings=LARGE_WINDOWS) as client,
    ):
        client.http2.set_local_window_size(200 << 20)
        await send(client)
        await until(lambda: connections.open, "it is connected")
        client.end()
        (connection,) = connections.open
        await asyncio.wait([connection.gone], timeout=LONG)
        assert not connections.open


async def test_half_a_request_of_a_stream_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "RECEIVE_SECONDS", 0.2)

    async def stream(requests: AsyncIterator[bytes], _call: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    connections = server_connection.Connections()
    method = Method(stream=stream, takes_many=True)
    async with listening(method, connections) as port, raw_client(port) as client:
        stream_id = await sent(client, HEADERS, framed(b"one"))
        await client.until(DataReceived)
        # A whole one may be followed by another whenever its client likes.
        await asyncio.sleep(0.4)
        client.http2.send_data(stream_id, framed(b"two") + framed(b"three")[:-1])
        await client.send()
        await client.until(DataReceived)
        status = status_of(await client.until(TrailersReceived))
        assert status.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not connections.held_bytes


async def test_a_server_does_not_wait_for_clients_that_have_everything_and_stay() -> None:
    server = serving(Handlers(), drain_seconds=LONG)
    port = await server.__aenter__()
    async with raw_client(port) as client:
        await send(client)
        await client.until(TrailersReceived)
        await asyncio.gather(server.__aexit__(None, None, None), client.until_closed())


class Written(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[bytes] = []

    def write(self, data: Any) -> None:
        self.data.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0


async def test_responses_that_are_ready_at_the_same_moment_are_written_at_once() -> None:
    waiting, may_answer = [], asyncio.Event()

    async def answer(request: bytes, _call: Any) -> bytes:
        waiting.append(request)
        await may_answer.wait()
        return request

    connection = server_connection.ServerConnection(
        lambda _path, _call: Method(unary=answer), ServerLimits(), server_connection.Connections()
    )
    transport, client = Written(), Connection(Role.CLIENT)
    connection.connection_made(transport)
    client.initiate_connection({})
    for number in range(10):
        stream_id = client.send_request(HEADERS)
        client.send_data(stream_id, framed(b"%d" % number), end_stream=True)
    connection.data_received(client.data_to_send())
    await until(lambda: len(waiting) == 10, "all are being answered")
    before = len(transport.data)
    may_answer.set()
    await until(lambda: not connection.has_calls, "all are answered")
    await asyncio.sleep(0)
    assert len(transport.data) == before + 1
    client.receive_data(b"".join(transport.data))
    answers = [event.data for event in client.events() if isinstance(event, DataReceived)]
    assert sorted(answers) == [framed(b"%d" % number) for number in range(10)]
    connection.connection_lost(None)
