"""IndexServers: all are called concurrently, and a hanging one does not affect the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.discovery.protocol import Endpoint, GroupKey, Role
from shashin.errors import NoEndpoint
from shashin.model_space import ModelSpace
from shashin.rpc.server import grpc_server
from shashin.runtime.health import Health
from shashin.serving import index_servers as index_servers_module
from shashin.serving.endpoint import IndexEndpoint
from shashin.serving.index_servers import HeldShard, IndexServers, held_by_every_replica
from shashin.serving.served_shards import ServedShards
from shashin.shards.open_shard import OpenShard
from shashin.v1 import index_pb2_grpc
from tests.support.hung_endpoints import hung_endpoints, silent_sockets
from tests.support.loops import running
from tests.support.made_shards import MODEL, SPACE, open_shard
from tests.support.waiting import until


class Discovered:
    """Fake discovery that returns the endpoints set by a test, or fails."""

    def __init__(self) -> None:
        self.known: list[Endpoint] = []
        self.available = True
        self.out_of_date: str | None = None

    async def endpoints(self) -> list[Endpoint]:
        if not self.available:
            raise NoEndpoint("no answer")
        return self.known

    async def active_model(self) -> ModelSpace | None:
        return None

    @property
    def problem(self) -> str | None:
        return self.out_of_date

    async def close(self) -> None:
        pass


class IndexServerSet:
    """Index servers with shards, and the IndexServers client."""

    def __init__(self, stack: AsyncExitStack, executor: ThreadPoolExecutor) -> None:
        self._stack = stack
        self._executor = executor
        self.discovery = Discovered()
        self.servers = IndexServers(self.discovery, MODEL)
        stack.push_async_callback(self.servers.close)

    def announce(
        self, address: str, *, role: Role = "index-server", model_id: str = "", group: str = ""
    ) -> None:
        """Add an endpoint to discovery."""
        number = len(self.discovery.known)
        self.discovery.known = [
            *self.discovery.known,
            Endpoint(f"{role}-{number}", role, address, "hourly", model_id, group),
        ]

    async def start(
        self,
        *shards: OpenShard,
        space: ModelSpace = SPACE,
        role: Role = "index-server",
        group: str = "",
        loaded: bool = True,
    ) -> Callable[[], Awaitable[None]]:
        """Start an index server with shards and add it to discovery; returns a stop function."""
        served = ServedShards()
        served.hidden_loaded = loaded
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
        self.announce(f"127.0.0.1:{port}", role=role, group=group)
        return server.aclose


@pytest.fixture
async def index_servers() -> AsyncIterator[IndexServerSet]:
    async with AsyncExitStack() as stack:
        yield IndexServerSet(stack, stack.enter_context(ThreadPoolExecutor(1)))


def shard(begin: int, end: int, partition: int = 0) -> OpenShard:
    made = open_shard(from_offset=begin, partition=partition)
    made.read_up_to(end)
    return made


def ranges(held: Iterable[HeldShard]) -> list[str]:
    held = list(held)
    assert all(shard.tier == "hourly" and shard.shard_id for shard in held)
    return sorted(str(r) for shard in held for r in shard.ranges)


async def test_hung_index_servers_do_not_affect_one_that_responds(
    index_servers: IndexServerSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The deadline is out of reach: the test ends the calls once all are in flight.
    monkeypatch.setattr(index_servers_module, "DESCRIBE_TIMEOUT_SECONDS", 600.0)
    async with hung_endpoints(20) as hung, silent_sockets(10) as silent:
        for address in (*(one.address for one in hung), *(one.address for one in silent)):
            index_servers.announce(address)
        await index_servers.start(shard(0, 5), shard(5, 9, partition=1))
        asking = asyncio.ensure_future(index_servers.servers.held())
        await until(lambda: all(one.received.is_set() for one in hung), "each hung one has a call")
        await until(lambda: all(one.connected.is_set() for one in silent), "each silent one, too")
        assert not any(one.ended.is_set() for one in hung), "all calls are in flight together"
        assert not asking.done()
        for one in silent:
            one.hang_up()
    assert ranges(await asking) == ["0:[0, 5)", "1:[5, 9)"]


async def test_a_round_ends_even_if_no_server_responds(
    index_servers: IndexServerSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_servers_module, "DESCRIBE_TIMEOUT_SECONDS", 0.2)
    async with hung_endpoints(3) as hung, silent_sockets(3) as silent:
        for address in (*(one.address for one in hung), *(one.address for one in silent)):
            index_servers.announce(address)
        assert await index_servers.servers.held() == []


async def test_only_index_servers_of_the_model_count(index_servers: IndexServerSet) -> None:
    await index_servers.start(shard(0, 5))
    await index_servers.start(shard(5, 9), role="indexer")
    await index_servers.start(shard(9, 12), space=ModelSpace("other-model", 8))
    async with hung_endpoints(1) as (announced,):
        index_servers.announce(announced.address, model_id="other-model")
        assert ranges(await index_servers.servers.held()) == ["0:[0, 5)"]
        assert not announced.received.is_set(), "discovery reports another model"


async def test_an_index_server_that_leaves_discovery_or_stops_counts_as_holding_nothing(
    index_servers: IndexServerSet,
) -> None:
    stop = await index_servers.start(shard(0, 5))
    await index_servers.start(shard(5, 9))
    assert ranges(await index_servers.servers.held()) == ["0:[0, 5)", "0:[5, 9)"]
    left = index_servers.discovery.known.pop()
    assert ranges(await index_servers.servers.held()) == ["0:[0, 5)"]
    index_servers.discovery.known.append(left)
    await stop()
    assert ranges(await index_servers.servers.held()) == ["0:[5, 9)"]


async def test_while_discovery_is_unavailable_the_known_index_servers_are_called(
    index_servers: IndexServerSet,
) -> None:
    await index_servers.start(shard(0, 5))
    await index_servers.servers.held()
    index_servers.discovery.available = False
    assert ranges(await index_servers.servers.held()) == ["0:[0, 5)"]


async def test_a_shard_counts_once_every_replica_of_the_group_holds_it(
    index_servers: IndexServerSet,
) -> None:
    old, new = shard(0, 5), shard(5, 9)
    stop_new = await index_servers.start(old, new, group="hourly")
    await index_servers.start(old, group="hourly")
    assert ranges(await index_servers.servers.held()) == ["0:[0, 5)"]
    index_servers.discovery.known.pop()
    assert ranges(await index_servers.servers.held()) == ["0:[0, 5)", "0:[5, 9)"]
    await stop_new()
    assert await index_servers.servers.held() == []


async def test_a_replica_that_is_not_ready_does_not_count(index_servers: IndexServerSet) -> None:
    held = shard(0, 5)
    await index_servers.start(held, group="hourly")
    await index_servers.start(group="hourly", loaded=False)
    stop = await index_servers.start(group="hourly")
    await stop()
    assert ranges(await index_servers.servers.held()) == ["0:[0, 5)"]


async def test_a_replica_that_hangs_may_still_be_searched_and_counts_as_holding_nothing(
    index_servers: IndexServerSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_servers_module, "DESCRIBE_TIMEOUT_SECONDS", 0.2)
    await index_servers.start(shard(0, 5), group="hourly")
    async with hung_endpoints(1) as (hung,):
        index_servers.announce(hung.address, group="hourly")
        assert await index_servers.servers.held() == []


KEYS = [Endpoint("e", "index-server", "h:1", "hourly", group=g).group_key for g in "ab"]
SHARDS = [HeldShard("hourly", name, ()) for name in "xyz"]


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.lists(st.sampled_from(SHARDS), unique=True)),
        max_size=6,
    )
)
def test_a_held_shard_is_held_by_whichever_replica_of_some_group_is_asked(
    replicas: list[tuple[GroupKey, list[HeldShard]]],
) -> None:
    found = held_by_every_replica(replicas)
    for one in SHARDS:
        groups = [[one in held for key, held in replicas if key == group] for group in KEYS]
        assert found.count(one) == sum(bool(group) and all(group) for group in groups)


async def test_a_discovery_that_fails_or_may_be_out_of_date_is_reported_until_it_is_not(
    index_servers: IndexServerSet,
) -> None:
    health, discovery = Health(), index_servers.discovery
    async with running(index_servers.servers.discovery_watch(), health=health):
        discovery.out_of_date = "the API server is away"
        reported = ["discovery: the API server is away"]
        await until(lambda: health.problems() == reported, "it is reported")
        discovery.out_of_date, discovery.available = None, False
        await until(lambda: health.problems() == ["discovery: no answer"], "the outage is, too")
        discovery.available = True
        await until(lambda: not health.problems(), "nothing is wrong any more")
