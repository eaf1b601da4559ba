"""Calls between services, to Shashin's own server and to that of grpc.aio, which earlier versions ran."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest

from shashin.errors import EmbedderOverloaded
from shashin.local.ports import free_port
from shashin.rpc import peer_channel
from shashin.rpc.peer_channel import PeerChannel
from shashin.rpc.server import grpc_server
from shashin.rpc.server_limits import MAX_MESSAGE_BYTES, ServerLimits
from shashin.v1 import embed_pb2, embed_pb2_grpc
from tests.support.hung_endpoints import silent_sockets
from tests.support.waiting import until

LONG = 60.0
FAILS, WAITS = b"fails", b"waits"


class Handlers(embed_pb2_grpc.EmbedServiceServicer):
    """Answers with the number of bytes that it got."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.metadata: list[Any] = []
        self.cancelled = 0
        self.may_answer = asyncio.Event()

    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Any
    ) -> embed_pb2.EmbedResponse:
        self.received.append(context)
        # Now: that of gRPC's server is gone once the call has ended.
        self.metadata.append(list(context.invocation_metadata()))
        (photo,) = request.photos
        if photo == FAILS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "Why: ä % \n.", (("detail-bin", b"\0\xff"),)
            )
        if photo == WAITS:
            try:
                await self.may_answer.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return embed_pb2.EmbedResponse(model_id=str(len(photo)))


Server = Callable[[Handlers, int], Any]


@asynccontextmanager
async def own_server(handlers: Handlers, port: int = 0) -> AsyncIterator[int]:
    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(handlers, server)

    async with grpc_server(add, host="127.0.0.1", port=port, drain_seconds=LONG) as bound:
        yield bound


@asynccontextmanager
async def server_of_grpc(handlers: Handlers, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    )
    embed_pb2_grpc.add_EmbedServiceServicer_to_server(handlers, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(LONG)


@pytest.fixture(params=[own_server, server_of_grpc])
def server(request: pytest.FixtureRequest) -> Server:
    made: Server = request.param
    return made


@asynccontextmanager
async def channel_to(port: int) -> AsyncIterator[Any]:
    channel: Any = PeerChannel(f"127.0.0.1:{port}")
    try:
        yield embed_pb2_grpc.EmbedServiceStub(channel)
    finally:
        await channel.close()


def request_of(photo: bytes) -> embed_pb2.EmbedRequest:
    return embed_pb2.EmbedRequest(photos=[photo])


async def failure_of(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


@pytest.mark.parametrize("size", [0, 1, 16_379, 100_000, 5_000_000])
async def test_calls_of_every_size_are_answered(server: Server, size: int) -> None:
    async with server(Handlers(), 0) as port, channel_to(port) as stub:
        answers = await asyncio.gather(
            *(stub.Embed(request_of(bytes(size)), timeout=LONG) for _ in range(5))
        )
        assert [answer.model_id for answer in answers] == [str(size)] * 5


async def test_many_calls_at_once_are_answered_each_with_its_own(server: Server) -> None:
    async with server(Handlers(), 0) as port, channel_to(port) as stub:
        answers = await asyncio.gather(
            *(stub.Embed(request_of(bytes(n)), timeout=LONG) for n in range(1000))
        )
        assert [answer.model_id for answer in answers] == [str(n) for n in range(1000)]


async def test_a_failure_has_its_status_its_message_and_metadata(server: Server) -> None:
    async with server(Handlers(), 0) as port, channel_to(port) as stub:
        error = await failure_of(stub.Embed(request_of(FAILS), timeout=LONG))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "Why: ä % \n."
    assert dict(error.trailing_metadata() or ())["detail-bin"] == b"\0\xff"


async def test_a_response_that_http2_does_not_allow_fails_its_call_alone() -> None:
    # gRPC sends messages as they are, and no header may begin with a space.
    class Handlers(embed_pb2_grpc.EmbedServiceServicer):
        async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
            if request.photos:
                await context.abort(grpc.StatusCode.INTERNAL, " why")
            return embed_pb2.EmbedResponse()

    handlers: Any = Handlers()
    async with server_of_grpc(handlers) as port, channel_to(port) as stub:
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
        assert error.code() == grpc.StatusCode.INTERNAL
        assert "reset" in (error.details() or "")
        await stub.Embed(embed_pb2.EmbedRequest(), timeout=LONG)


async def test_metadata_and_the_deadline_reach_the_server(server: Server) -> None:
    handlers = Handlers()
    sent = grpc.aio.Metadata(("x-text", "words"), ("x-bytes-bin", bytes(range(256))))
    async with server(handlers, 0) as port, channel_to(port) as stub:
        await stub.Embed(request_of(b""), timeout=LONG, metadata=sent)
        await stub.Embed(request_of(b""))
    with_deadline, without = handlers.received
    assert set(sent) <= set(handlers.metadata[0])
    assert 0 < with_deadline.time_remaining() <= LONG
    assert without.time_remaining() is None


async def test_a_deadline_that_passes_ends_the_call_at_both_ends(server: Server) -> None:
    handlers = Handlers()
    async with server(handlers, 0) as port, channel_to(port) as stub:
        error = await failure_of(stub.Embed(request_of(WAITS), timeout=0.2))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: handlers.cancelled == 1, "the server has cancelled it")
        assert (await stub.Embed(request_of(b"a"), timeout=LONG)).model_id == "1"


async def test_a_call_that_is_cancelled_is_cancelled_at_the_server(server: Server) -> None:
    handlers = Handlers()
    async with server(handlers, 0) as port, channel_to(port) as stub:

        async def waits() -> None:
            await stub.Embed(request_of(WAITS), timeout=LONG)

        waiting = asyncio.ensure_future(waits())
        await until(lambda: handlers.received, "it has arrived")
        waiting.cancel()
        await until(lambda: handlers.cancelled == 1, "the server has cancelled it")
        assert waiting.cancelled()
        assert (await stub.Embed(request_of(b"a"), timeout=LONG)).model_id == "1"


async def test_calls_are_unavailable_while_nobody_listens_and_answered_once_somebody_does(
    server: Server,
) -> None:
    port = free_port()
    async with channel_to(port) as stub:
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert f"127.0.0.1:{port}" in (error.details() or "")
        # Nobody waits for the next attempt.
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
        assert error.code() == grpc.StatusCode.UNAVAILABLE

        async def answered() -> bool:
            try:
                await stub.Embed(request_of(b""), timeout=LONG)
            except grpc.aio.AioRpcError:
                return False
            return True

        async with server(Handlers(), port):
            await until(answered, "it is answered")


async def test_no_call_fails_while_a_server_makes_way_for_the_next_one() -> None:
    """Also those that come while it drains; the next one listens before, behind one address."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relayed(own_server, stack))
        async with channel_to(relay.port) as stub:
            stop, outcomes = asyncio.Event(), Counter[str]()

            async def client() -> None:
                while not stop.is_set():
                    try:
                        await stub.Embed(request_of(b"a"), timeout=LONG)
                        outcomes["answered"] += 1
                    except grpc.aio.AioRpcError as error:
                        outcomes[f"{error.code()} {error.details()}"] += 1

            clients = [asyncio.ensure_future(client()) for _ in range(8)]
            for _ in range(5):
                before = outcomes["answered"]
                await until(partial(more_than, outcomes, before + 50), "answers")
                await relay.replace()
            stop.set()
            await asyncio.gather(*clients)
    assert set(outcomes) == {"answered"}


def more_than(outcomes: Counter[str], count: int) -> bool:
    return outcomes["answered"] > count


class Relay:
    """A port behind which a server is replaced by another one, as a Service of Kubernetes does."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._current: Any = None
        self._behind = 0
        self.port = 0
        self.connections: list[asyncio.StreamWriter] = []
        """To its clients, in the order in which they came."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the bytes of one connection on."""
        self.connections.append(writer)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._behind)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pass_on(reader, to_writer), pass_on(to_reader, writer))

    async def replace(self) -> None:
        """Send new connections to a new server, and stop the one before."""
        before, self._current = self._current, self._server(Handlers(), 0)
        self._behind = await self._current.__aenter__()
        if before is not None:
            await before.__aexit__(None, None, None)

    async def close(self) -> None:
        """Stop the server."""
        await self._current.__aexit__(None, None, None)


@asynccontextmanager
async def relayed(server: Server, stack: AsyncExitStack) -> AsyncIterator[Relay]:
    relay = Relay(server)
    await relay.replace()
    stack.push_async_callback(relay.close)
    listening = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    relay.port = listening.sockets[0].getsockname()[1]
    yield relay
    listening.close()


async def test_calls_of_a_connection_that_is_lost_are_unavailable_and_the_next_are_answered(
    server: Server,
) -> None:
    handlers = Handlers()
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(
            relayed(lambda _, port: server(handlers, port), stack)
        )
        async with channel_to(relay.port) as stub:
            call = stub.Embed(request_of(WAITS), timeout=LONG)
            await until(lambda: handlers.received, "it has arrived")
            relay.connections[0].transport.abort()
            assert (await failure_of(call)).code() == grpc.StatusCode.UNAVAILABLE
            assert (await stub.Embed(request_of(b"a"), timeout=LONG)).model_id == "1"
            await until(lambda: handlers.cancelled == 1, "the server knows")


async def test_a_server_that_never_says_anything_costs_a_call_its_deadline() -> None:
    async with (
        silent_sockets(1) as (silent,),
        channel_to(int(silent.address.split(":")[1])) as stub,
    ):
        error = await failure_of(stub.Embed(request_of(b""), timeout=0.2))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_server_that_hangs_up_makes_calls_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_channel, "_FIRST_BACKOFF_SECONDS", 0.01)

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", 0) as listening,
        channel_to(listening.sockets[0].getsockname()[1]) as stub,
    ):
        for _ in range(3):
            error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
            assert error.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_hangs_up_at_once_is_not_asked_again_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_channel, "_FIRST_BACKOFF_SECONDS", LONG)
    monkeypatch.setattr(peer_channel, "_MAX_BACKOFF_SECONDS", LONG)
    accepted = 0

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.close()

    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", 0) as listening,
        channel_to(listening.sockets[0].getsockname()[1]) as stub,
    ):
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        error = await failure_of(stub.Embed(request_of(b""), timeout=0.5))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert accepted == 1


async def test_a_status_with_a_long_message_fails_its_call_alone() -> None:
    class Handlers(embed_pb2_grpc.EmbedServiceServicer):
        async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
            await asyncio.sleep(0.1)
            if request.photos:
                await context.abort(grpc.StatusCode.NOT_FOUND, "x" * 30_000)
            return embed_pb2.EmbedResponse()

    handlers: Any = Handlers()
    async with server_of_grpc(handlers) as port, channel_to(port) as stub:
        other = asyncio.ensure_future(stub.Embed(embed_pb2.EmbedRequest(), timeout=LONG))
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        await other


async def test_a_call_that_cannot_be_sent_fails_alone(server: Server) -> None:
    async with server(Handlers(), 0) as port, channel_to(port) as stub:
        call = stub.Embed(request_of(b""), timeout=LONG, metadata=(("bad name", "x"),))
        assert (await failure_of(call)).code() == grpc.StatusCode.INTERNAL
        assert (await stub.Embed(request_of(b"a"), timeout=LONG)).model_id == "1"


async def test_an_http_server_of_another_kind_makes_calls_fail_with_words() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + bytes(100))
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0) as listening,
        channel_to(listening.sockets[0].getsockname()[1]) as stub,
    ):
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details()


@pytest.mark.parametrize(
    "address", ["x" * 100 + ".invalid:1", "no such host.invalid:1", ":1", "127.0.0.1:70000"]
)
async def test_an_address_that_is_none_makes_calls_unavailable(address: str) -> None:
    channel: Any = PeerChannel(address)
    stub: Any = embed_pb2_grpc.EmbedServiceStub(channel)
    for _ in range(2):
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
    await channel.close()


async def test_a_closed_channel_ends_its_calls_and_takes_no_more(server: Server) -> None:
    handlers = Handlers()
    async with server(handlers, 0) as port:
        channel: Any = PeerChannel(f"127.0.0.1:{port}")
        stub: Any = embed_pb2_grpc.EmbedServiceStub(channel)
        call = stub.Embed(request_of(WAITS), timeout=LONG)
        await until(lambda: handlers.received, "it has arrived")
        await channel.close()
        for one in (call, stub.Embed(request_of(b"a"), timeout=LONG)):
            assert (await failure_of(one)).code() == grpc.StatusCode.UNAVAILABLE


async def test_every_call_ends_once_whatever_happens_to_it(server: Server) -> None:
    """Calls that wait, fail, are cancelled and time out at random, over connections that break."""
    chance = random.Random(7)
    handlers = Handlers()
    handlers.may_answer.set()
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(
            relayed(lambda _, port: server(handlers, port), stack)
        )
        async with channel_to(relay.port) as stub:

            async def one(number: int) -> str:
                photo = chance.choice([FAILS, WAITS, bytes(chance.randrange(50_000))])
                call = stub.Embed(request_of(photo), timeout=chance.choice([0.001, LONG]))
                if number % 7 == 0:
                    asyncio.get_running_loop().call_later(chance.random() / 100, call.cancel)
                if number % 97 == 0 and relay.connections:
                    relay.connections[-1].transport.abort()
                try:
                    await call
                except asyncio.CancelledError:
                    return "cancelled"
                except grpc.aio.AioRpcError as error:
                    return error.code().name
                return "answered"

            found = Counter[str]()
            for begin in range(0, 2000, 100):
                found.update(
                    await asyncio.wait_for(
                        asyncio.gather(*(one(number) for number in range(begin, begin + 100))), LONG
                    )
                )
    assert found.total() == 2000
    assert set(found) <= {
        "answered",
        "cancelled",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
    }
    assert found["answered"]
    assert found["cancelled"]


async def test_errors_of_shashin_arrive_with_reason_and_message() -> None:
    class Overloaded(embed_pb2_grpc.EmbedServiceServicer):
        async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
            raise EmbedderOverloaded("too many photos wait")

    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(Overloaded(), server)

    async with (
        grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0) as port,
        channel_to(port) as stub,
    ):
        error = await failure_of(stub.Embed(request_of(b""), timeout=LONG))
    assert error.details() == "EmbedderOverloaded: too many photos wait"


async def test_connections_that_end_at_their_age_cost_no_call() -> None:
    def add(server: grpc.aio.Server) -> None:
        embed_pb2_grpc.add_EmbedServiceServicer_to_server(Handlers(), server)

    limits = ServerLimits(connection_seconds=0.1)
    async with (
        grpc_server(add, host="127.0.0.1", port=0, drain_seconds=0, limits=limits) as port,
        channel_to(port) as stub,
    ):
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + 1.0
        while loop.time() < ends_at:
            await stub.Embed(request_of(b"a"), timeout=LONG)
