"""What index servers hold: all are asked at once, and one that hangs hides nothing of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import pytest

from services.indexer import release
from services.indexer.release import IndexServers
from shashin.discovery.protocol import Endpoint, Role
from shashin.errors import NoEndpoint
from shashin.model_space import ModelSpace
from shashin.offsets.ranges import OffsetRange
from shashin.rpc.server import grpc_server
from shashin.serving.endpoint import IndexEndpoint
from shashin.serving.served_shards import ServedShards
from shashin.shards.open_shard import OpenShard
from shashin.shards.visibility import HiddenMap
from shashin.v1 import index_pb2_grpc
from tests.support.hung_endpoints import hung_endpoints, silent_sockets
from tests.support.made_shards import MODEL, SPACE, open_shard
from tests.support.waiting import until


class Discovered:
    """Names the endpoints that a test set last, or does not answer."""

    def __init__(self) -> None:
        self.named: list[Endpoint] = []
        self.answers = True

    async def endpoints(self) -> list[Endpoint]:
        if not self.answers:
            raise NoEndpoint("no answer")
        return self.named

    async def close(self) -> None:
        pass


class Holding:
    """Index servers with shards, and the one who asks them."""

    def __init__(self, stack: AsyncExitStack, executor: ThreadPoolExecutor) -> None:
        self._stack = stack
        self._executor = executor
        self.discovery = Discovered()
        self.servers = IndexServers(self.discovery, MODEL)
        stack.push_async_callback(self.servers.close)

    def name(self, address: str, *, role: Role = "index-server", model_id: str = "") -> None:
        """Have discovery name an endpoint, too."""
        number = len(self.discovery.named)
        self.discovery.named = [
            *self.discovery.named,
            Endpoint(f"{role}-{number}", role, address, "hourly", model_id),
        ]

    async def start(
        self, *shards: OpenShard, space: ModelSpace = SPACE, role: Role = "index-server"
    ) -> Callable[[], Awaitable[None]]:
        """Start one over shards and have discovery name it; returns what stops it."""
        served = ServedShards(HiddenMap())
        served.serve(shards)
        handlers = IndexEndpoint(served, space=space, tier="hourly", executor=self._executor)
        server = AsyncExitStack()
        self._stack.push_async_callback(server.aclose)
        port = await server.enter_async_context(
            grpc_server(
                lambda grpc: index_pb2_grpc.add_IndexServiceServicer_to_server(handlers, grpc),
                host="127.0.0.1",
                port=0,
                drain_seconds=0,
            )
        )
        self.name(f"127.0.0.1:{port}", role=role)
        return server.aclose


@pytest.fixture
async def holding() -> AsyncIterator[Holding]:
    async with AsyncExitStack() as stack:
        yield Holding(stack, stack.enter_context(ThreadPoolExecutor(1)))


def shard(begin: int, end: int, partition: int = 0) -> OpenShard:
    made = open_shard(from_offset=begin, partition=partition)
    made.end_at(end)
    return made


def ranges(held: Iterable[OffsetRange]) -> list[str]:
    return sorted(map(str, held))


async def test_hung_index_servers_are_asked_at_once_and_hide_nothing_of_one_that_answers(
    holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No deadline ends a call here: the test does, once it has seen all of them under way.
    monkeypatch.setattr(release, "ANSWER_SECONDS", 600.0)
    async with hung_endpoints(20) as hung, silent_sockets(10) as silent:
        for address in (*(one.address for one in hung), *(one.address for one in silent)):
            holding.name(address)
        await holding.start(shard(0, 5), shard(5, 9, partition=1))
        asking = asyncio.ensure_future(holding.servers.held_ranges())
        await until(lambda: all(one.received.is_set() for one in hung), "each hung one has a call")
        await until(lambda: all(one.connected.is_set() for one in silent), "each silent one, too")
        assert not any(one.ended.is_set() for one in hung), "all calls are under way together"
        assert not asking.done()
        for one in silent:
            one.hang_up()
    assert ranges(await asking) == ["0:[0, 5)", "1:[5, 9)"]


async def test_a_round_ends_by_itself_though_nobody_answers(
    holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "ANSWER_SECONDS", 0.2)
    async with hung_endpoints(3) as hung, silent_sockets(3) as silent:
        for address in (*(one.address for one in hung), *(one.address for one in silent)):
            holding.name(address)
        assert await holding.servers.held_ranges() == []


async def test_only_index_servers_of_the_model_count(holding: Holding) -> None:
    await holding.start(shard(0, 5))
    await holding.start(shard(5, 9), role="indexer")
    await holding.start(shard(9, 12), space=ModelSpace("other-model", 8))
    async with hung_endpoints(1) as (announced,):
        holding.name(announced.address, model_id="other-model")
        assert ranges(await holding.servers.held_ranges()) == ["0:[0, 5)"]
        assert not announced.received.is_set(), "discovery says that it holds another model"


async def test_an_index_server_that_leaves_discovery_or_stops_holds_nothing(
    holding: Holding,
) -> None:
    stop = await holding.start(shard(0, 5))
    await holding.start(shard(5, 9))
    assert ranges(await holding.servers.held_ranges()) == ["0:[0, 5)", "0:[5, 9)"]
    left = holding.discovery.named.pop()
    assert ranges(await holding.servers.held_ranges()) == ["0:[0, 5)"]
    holding.discovery.named.append(left)
    await stop()
    assert ranges(await holding.servers.held_ranges()) == ["0:[5, 9)"]


async def test_while_discovery_does_not_answer_the_known_index_servers_are_asked(
    holding: Holding,
) -> None:
    await holding.start(shard(0, 5))
    await holding.servers.held_ranges()
    holding.discovery.answers = False
    assert ranges(await holding.servers.held_ranges()) == ["0:[0, 5)"]
