"""Both clients while routers die, return, refuse and hang, and while clients are shared and closed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from shashin.client import (
    AsyncClient,
    Client,
    ClientUnusable,
    DeadlineExceeded,
    Overloaded,
    RetryPolicy,
    SearchError,
    Unavailable,
)
from shashin.errors import ShashinError
from shashin.local.ports import HOST, free_port
from shashin.rpc.server import grpc_server
from shashin.v1 import search_pb2, search_pb2_grpc
from tests.support.both_clients import KINDS, Kind, asking
from tests.support.tcp_proxy import Direction, TcpProxy
from tests.support.waiting import until

both = pytest.mark.parametrize("kind", KINDS)

ONCE = RetryPolicy(attempts=1)
PATIENT = RetryPolicy(attempts=10_000, longest_pause_seconds=0.1, budget_at_start=10_000)
VECTOR = [1.0, 0.0]


class Router(search_pb2_grpc.SearchServiceServicer):
    """Answers with its name, or fails as it is told to."""

    def __init__(
        self, name: str, fails: Callable[[int], ShashinError | None] = lambda _n: None
    ) -> None:
        self.name = name
        self.fails = fails
        self.hangs = False
        self.requests: list[search_pb2.SearchRequest] = []
        self.cancelled = 0

    async def Search(self, request: Any, context: Any) -> search_pb2.SearchResponse:  # noqa: N802
        self.requests.append(request)
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        error = self.fails(len(self.requests))
        if error is not None:
            raise error
        return search_pb2.SearchResponse(model_id=self.name, endpoints=request.k)

    async def _unused(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no test calls it")

    Locate = Status = _unused


@asynccontextmanager
async def serving(router: Router, port: int = 0) -> AsyncIterator[str]:
    """Serve as a router does; yields its address."""

    def add(server: grpc.aio.Server) -> None:
        search_pb2_grpc.add_SearchServiceServicer_to_server(router, server)

    async with grpc_server(add, host=HOST, port=port, drain_seconds=0) as bound:
        yield f"{HOST}:{bound}"


@both
async def test_a_restarted_router_is_found_again_by_the_same_client(kind: Kind) -> None:
    port = free_port()
    async with asking(kind, f"{HOST}:{port}", retries=PATIENT) as ask:
        async with serving(Router("first"), port):
            assert (await ask("search", vector=VECTOR, timeout=60.0)).model_id == "first"
        waiting = asyncio.ensure_future(ask("search", vector=VECTOR, timeout=60.0))
        async with serving(Router("second"), port):
            assert (await waiting).model_id == "second"


@both
async def test_calls_take_turns_among_routers_and_outlive_the_death_of_one(kind: Kind) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(Router("one")))
        mortal = await stack.enter_async_context(AsyncExitStack())
        second = await mortal.enter_async_context(serving(Router("two")))
        ask = await stack.enter_async_context(asking(kind, f"{first},{second}", timeout=60.0))

        async def answering() -> set[str]:
            return {(await ask("search", vector=VECTOR)).model_id for _ in range(4)}

        async def both_answer() -> bool:
            return await answering() == {"one", "two"}

        await until(both_answer, "both routers answer")
        await mortal.aclose()
        assert [(await ask("search", vector=VECTOR)).model_id for _ in range(20)] == ["one"] * 20


@both
async def test_no_router_at_all_is_unavailable(kind: Kind) -> None:
    async with asking(kind, f"{HOST}:{free_port()}") as ask:
        with pytest.raises(Unavailable) as raised:
            await ask("search", vector=VECTOR, timeout=60.0)
    assert isinstance(raised.value, SearchError)
    assert (raised.value.reason, raised.value.retryable) == ("Unavailable", True)


@both
async def test_an_overloaded_router_is_asked_again_when_it_says(kind: Kind) -> None:
    def full(n: int) -> ShashinError | None:
        return Overloaded("full", retry_after_seconds=0.01) if n <= 2 else None

    router = Router("one", full)
    async with serving(router) as address, asking(kind, address) as ask:
        assert (await ask("search", vector=VECTOR, timeout=60.0)).model_id == "one"
    assert len(router.requests) == 3


@both
async def test_an_outage_is_not_amplified(kind: Kind) -> None:
    router = Router("one", lambda _n: Overloaded("full"))
    policy = RetryPolicy(first_pause_seconds=0.001, budget=0.1, budget_at_start=5)
    async with serving(router) as address, asking(kind, address, retries=policy) as ask:
        for _ in range(30):
            with pytest.raises(Overloaded):
                await ask("search", vector=VECTOR, timeout=60.0)
    # Neither this client nor gRPC below it has sent more.
    assert 30 + 5 <= len(router.requests) <= 30 + 5 + 3


@both
async def test_the_router_is_told_what_is_left_of_the_timeout(kind: Kind) -> None:
    def away(n: int) -> ShashinError | None:
        return Unavailable("away", retry_after_seconds=0.05) if n == 1 else None

    router = Router("one", away)
    async with serving(router) as address, asking(kind, address) as ask:
        await ask("search", vector=VECTOR, timeout=40.0)
    first, second = (request.deadline_ms for request in router.requests)
    assert 40_000 >= first >= second + 49


@both
async def test_a_router_that_hangs_costs_the_timeout_and_is_told_that_nobody_waits(
    kind: Kind,
) -> None:
    router = Router("one")
    router.hangs = True
    async with serving(router) as address, asking(kind, address) as ask:
        with pytest.raises(DeadlineExceeded):
            await ask("search", vector=VECTOR, timeout=0.2)
        await until(lambda: router.cancelled == len(router.requests) == 1, "it was cancelled, once")


@both
async def test_many_calls_at_once_get_each_its_own_answer(kind: Kind) -> None:
    async with serving(Router("one")) as address, asking(kind, address, timeout=60.0) as ask:
        answers = await asyncio.gather(*(ask("search", vector=VECTOR, k=k) for k in range(1, 101)))
    assert [answer.endpoints for answer in answers] == list(range(1, 101))


async def test_threads_share_a_client_that_leaves_none_behind() -> None:
    async with serving(Router("one")) as address:

        def in_threads() -> list[int]:
            with Client(address, timeout=60.0) as client, ThreadPoolExecutor(8) as pool:
                return list(
                    pool.map(lambda k: client.search(vector=VECTOR, k=k).endpoints, range(1, 201))
                )

        before = set(threading.enumerate())
        assert await asyncio.to_thread(in_threads) == list(range(1, 201))
        workers = "asyncio_"  # those of asyncio.to_thread

        def left() -> list[str]:
            new = set(threading.enumerate()) - before
            return [thread.name for thread in new if not thread.name.startswith(workers)]

        await until(lambda: not left(), "the client's threads have ended")


class Counting(TcpProxy):
    """Forwards everything, and counts connections."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.accepted = self.open_now = 0

    async def lets_through(self, piece: bytes, direction: Direction, carried: int) -> bool:
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open_now += 1
        try:
            await super().serve(reader, writer)
        finally:
            self.open_now -= 1


@both
async def test_calls_share_a_connection_that_is_opened_late_and_closed_with_the_client(
    kind: Kind,
) -> None:
    async with serving(Router("one")) as address:
        host, _, port = address.rpartition(":")
        proxy = Counting(host, int(port))
        server = await asyncio.start_server(proxy.serve, HOST, 0)
        async with server:
            listening = server.sockets[0].getsockname()[1]
            async with asking(kind, f"{HOST}:{listening}", timeout=60.0) as ask:
                assert proxy.accepted == 0
                await asyncio.gather(*(ask("search", vector=VECTOR) for _ in range(20)))
                assert (proxy.accepted, proxy.open_now) == (1, 1)
            await until(lambda: proxy.open_now == 0, "its connection is closed")


async def test_a_client_for_threads_that_is_closed_ends_its_calls_and_takes_no_more() -> None:
    router = Router("one")
    router.hangs = True
    async with serving(router) as address:
        client = Client(address)
        call = asyncio.ensure_future(asyncio.to_thread(client.search, vector=VECTOR, timeout=60.0))
        await until(lambda: router.requests, "the call has arrived")
        client.close()
        with pytest.raises(ClientUnusable, match="closed"):
            await call
        client.close()
    with pytest.raises(ClientUnusable, match="closed"):
        client.status()


async def test_a_client_for_asyncio_that_is_closed_ends_its_calls_and_takes_no_more() -> None:
    router = Router("one")
    router.hangs = True
    async with serving(router) as address:
        client = AsyncClient(address)
        call = asyncio.ensure_future(client.search(vector=VECTOR, timeout=60.0))
        await until(lambda: router.requests, "the call has arrived")
        await client.close()
        with pytest.raises(ClientUnusable, match="closed"):
            await call
        await client.close()
    with pytest.raises(ClientUnusable, match="closed"):
        await client.status()


async def test_a_cancelled_task_cancels_its_call_at_the_router() -> None:
    router = Router("one")
    router.hangs = True
    async with serving(router) as address, AsyncClient(address) as client:
        call = asyncio.ensure_future(client.search(vector=VECTOR, timeout=60.0))
        await until(lambda: router.requests, "the call has arrived")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: router.cancelled == 1, "the router has stopped")


async def test_a_client_is_of_one_event_loop() -> None:
    async with serving(Router("one")) as address, AsyncClient(address) as client:
        await client.search(vector=VECTOR, timeout=60.0)

        def elsewhere() -> None:
            asyncio.run(client.search(vector=VECTOR))

        with pytest.raises(ClientUnusable, match="another event loop"):
            await asyncio.to_thread(elsewhere)


def test_a_fork_makes_a_client_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(f"{HOST}:1") as client:
        parent = os.getpid()
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: parent + 1)
            with pytest.raises(ClientUnusable, match="made after the fork"):
                client.status()
