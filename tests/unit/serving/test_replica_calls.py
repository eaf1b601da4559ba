"""Calling one replica per group over gRPC: another one answers if the first fails or hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from shashin.discovery.protocol import Endpoint, GroupKey
from shashin.rpc.server import grpc_server
from shashin.serving.fleet import INDEX_ROLES, Fleet, Peer
from shashin.serving.replica_calls import GroupOutcome, ReplicaCalls, Replicas, groups_of
from shashin.serving.replica_choice import unresponsive_after
from shashin.serving.replica_record import ALIVE_SECONDS, ReplicaRecord
from shashin.v1 import index_pb2, index_pb2_grpc
from tests.support.collector import collecting
from tests.support.hung_endpoints import hung_endpoints
from tests.support.traced import tracing_on
from tests.support.waiting import until

MODEL = "test-model"
Outcome = GroupOutcome[index_pb2.DescribeResponse]


class Answering(index_pb2_grpc.IndexServiceServicer):
    """Answers at once, or as it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.model_id = MODEL
        self.refusal: grpc.StatusCode | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def Describe(self, request: Any, context: Any) -> index_pb2.DescribeResponse:  # noqa: N802
        self.calls += 1
        await self.may_answer.wait()
        if self.refusal is not None:
            await context.abort(self.refusal, "not now")
        return index_pb2.DescribeResponse(model_id=self.model_id)

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def Lookup(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def Newest(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class ReplicaSet:
    """A fleet of replicas, and the calls to them; those in zone "near" are asked first."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.endpoints: list[Endpoint] = []
        self.fleet = Fleet(MODEL)
        self.record = ReplicaRecord(zone="near")
        self.calls = ReplicaCalls(self.record)
        stack.push_async_callback(self.fleet.close)

    def use_own_clock(self) -> Clock:
        """Let time pass only as a test says; timers still fire, and then see what time it is."""
        clock = self.record.clock = Clock()
        return clock

    def announce(self, address: str, group: str, zone: str) -> Endpoint:
        endpoint = Endpoint(address, "index-server", address, "hourly", group=group, zone=zone)
        self.endpoints.append(endpoint)
        self.fleet.sync(self.endpoints)
        return endpoint

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

    async def ask(self, *, seconds: float = 60.0) -> dict[str, Outcome]:
        """Ask all groups; returns the outcomes by name of the group."""
        deadline = time.monotonic() + seconds

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        def send(peer: Peer) -> Any:
            return peer.index.Describe(index_pb2.DescribeRequest(), timeout=left())

        with self.fleet.hold(*INDEX_ROLES) as held:
            groups: dict[GroupKey, list[Peer]] = groups_of(held.peers)
            outcomes = await self.calls.ask_groups(
                [Replicas(peers) for peers in groups.values()],
                send,
                method="Describe",
                model_id=MODEL,
                seconds_left=left,
                joined=held.joined,
            )
        return {key.group: outcome for key, outcome in zip(groups, outcomes, strict=True)}

    async def earn_hedges(self, count: int) -> None:
        """Make so many hedges possible, with calls of other groups."""
        while count:
            self.record.budget.call()
            if self.record.budget.take():
                count -= 1
                for _ in range(21):
                    self.record.budget.call()


@pytest.fixture
async def replicas() -> AsyncIterator[ReplicaSet]:
    async with AsyncExitStack() as stack:
        yield ReplicaSet(stack)


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total", {"tier": "hourly"}) or 0.0


def answered(outcome: Outcome) -> str | None:
    return None if outcome.answer is None else outcome.answer[0].endpoint.zone


async def test_one_replica_of_each_group_is_asked(replicas: ReplicaSet) -> None:
    started = [await replicas.start(group) for group in ("a", "a", "b", "")]
    outcomes = await replicas.ask()
    assert len(outcomes) == 3
    assert all(outcome.answer for outcome in outcomes.values())
    assert [started[0].calls + started[1].calls, started[2].calls, started[3].calls] == [1, 1, 1]


async def test_another_replica_answers_for_one_that_refuses_connections(
    replicas: ReplicaSet,
) -> None:
    dead = replicas.announce("127.0.0.1:1", "a", "near")
    far = await replicas.start("a", "far")
    retries = counted("shashin_fleet_retries")
    for _ in range(2):
        assert answered((await replicas.ask())["a"]) == "far"
    assert far.calls == 2
    # The second call went to the other one at once.
    assert counted("shashin_fleet_retries") == retries + 1
    assert dead in replicas.fleet.endpoints(*INDEX_ROLES)


@pytest.mark.parametrize("refusal", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_another_replica_answers_for_one_that_refuses_calls(
    replicas: ReplicaSet, refusal: grpc.StatusCode
) -> None:
    near = await replicas.start("a", "near")
    near.refusal = refusal
    await replicas.start("a", "far")
    outcome = (await replicas.ask())["a"]
    assert answered(outcome) == "far"
    assert [failure.status for failure in outcome.failures] == [refusal.name]


async def test_another_replica_answers_for_one_of_another_model(replicas: ReplicaSet) -> None:
    near = await replicas.start("a", "near")
    near.model_id = "other-model"
    await replicas.start("a", "far")
    assert answered((await replicas.ask())["a"]) == "far"


async def test_a_group_fails_once_each_of_its_replicas_has_failed(replicas: ReplicaSet) -> None:
    for port in (1, 2):
        replicas.announce(f"127.0.0.1:{port}", "a", "")
    outcome = (await replicas.ask())["a"]
    assert outcome.answer is None
    assert sorted(f.endpoint.address for f in outcome.failures) == ["127.0.0.1:1", "127.0.0.1:2"]


async def test_a_replica_that_has_joined_since_answers_if_all_others_have_failed(
    replicas: ReplicaSet,
) -> None:
    near = await replicas.start("a", "near")
    near.may_answer.clear()
    asking = asyncio.ensure_future(replicas.ask())
    await until(lambda: near.calls, "the call has arrived")
    replicas.announce("127.0.0.1:1", "a", "near")
    far = await replicas.start("a", "far")
    replicas.fleet.sync(e for e in replicas.endpoints if e.zone == "far")
    near.refusal = grpc.StatusCode.UNAVAILABLE
    near.may_answer.set()
    outcome = (await asking)["a"]
    assert answered(outcome) == "far"
    assert outcome.tried == set(replicas.fleet.endpoints("index-server")) | {replicas.endpoints[0]}
    assert far.calls == 1


async def test_a_hedge_answers_for_a_replica_that_hangs_and_its_call_is_cancelled(
    replicas: ReplicaSet,
) -> None:
    await replicas.earn_hedges(1)
    async with hung_endpoints(1) as (hung,):
        replicas.announce(hung.address, "a", "near")
        await replicas.start("a", "far")
        hedges, won = counted("shashin_fleet_hedges"), counted("shashin_fleet_hedges_won")
        outcome = (await replicas.ask())["a"]
        assert (answered(outcome), outcome.failures) == ("far", [])
        assert counted("shashin_fleet_hedges") == hedges + 1
        assert counted("shashin_fleet_hedges_won") == won + 1
        assert hung.received.is_set()
        await asyncio.wait_for(hung.ended.wait(), 30)


async def test_a_hedge_is_a_span_and_so_is_the_call_that_it_overtakes_and_cancels(
    replicas: ReplicaSet,
) -> None:
    await replicas.earn_hedges(1)
    with collecting() as collector:
        async with hung_endpoints(1) as (hung,):
            with tracing_on(collector) as tracer:
                slow = replicas.announce(hung.address, "a", "near")
                await replicas.start("a", "far")
                with tracer.span("search"):
                    assert answered((await replicas.ask())["a"]) == "far"
    (search,) = collector.spans(name="search")
    asked = {span.attributes["shashin.hedge"]: span for span in collector.spans(name="ask hourly")}
    assert {span.parent_id for span in asked.values()} == {search.span_id}
    overtaken, hedge = asked[False], asked[True]
    assert overtaken.attributes["shashin.endpoint"] == slow.name
    assert overtaken.attributes["cancelled"] is True
    assert "cancelled" not in hedge.attributes
    assert overtaken.began_ns < hedge.began_ns
    assert not overtaken.failed
    assert not hedge.failed


async def test_a_replica_that_fails_is_a_span_with_its_status(replicas: ReplicaSet) -> None:
    near = await replicas.start("a", "near")
    near.refusal = grpc.StatusCode.UNAVAILABLE
    await replicas.start("a", "far")
    with collecting() as collector, tracing_on(collector) as tracer, tracer.span("search"):
        assert answered((await replicas.ask())["a"]) == "far"
    first, second = sorted(collector.spans(name="ask hourly"), key=lambda span: span.began_ns)
    assert (first.failed, first.attributes["error.type"]) == (True, "UNAVAILABLE")
    assert not second.failed
    assert second.attributes["shashin.hedge"] is False, "the first had failed"


async def test_without_any_hedge_a_replica_that_hangs_is_not_waited_for_until_the_deadline(
    replicas: ReplicaSet,
) -> None:
    assert not replicas.record.budget.take()
    async with hung_endpoints(1) as (hung,):
        replicas.announce(hung.address, "a", "near")
        far = await replicas.start("a", "far")
        hedges = counted("shashin_fleet_hedges")
        # Ten hours: the test would never end.
        outcome = (await asyncio.wait_for(replicas.ask(seconds=36_000), 60))["a"]
        assert (answered(outcome), outcome.failures) == ("far", [])
        assert counted("shashin_fleet_hedges") == hedges
        await asyncio.wait_for(hung.ended.wait(), 30)
        # It is asked last from now on, for a while.
        hung.received.clear()
        assert answered((await replicas.ask())["a"]) == "far"
        assert far.calls == 2
        assert not hung.received.is_set()


async def test_a_third_replica_answers_if_the_hedge_hangs_as_well(replicas: ReplicaSet) -> None:
    await replicas.earn_hedges(3)
    async with hung_endpoints(2) as hanging:
        for hung in hanging:
            replicas.announce(hung.address, "a", "near")
        await replicas.start("a", "far")
        outcome = (await asyncio.wait_for(replicas.ask(seconds=36_000), 60))["a"]
        assert (answered(outcome), outcome.failures) == ("far", [])
        assert all(hung.received.is_set() for hung in hanging)


async def test_a_slow_replica_that_answers_other_calls_gets_no_help_beyond_the_budget(
    replicas: ReplicaSet,
) -> None:
    near, far = await replicas.start("a", "near"), await replicas.start("a", "far")
    clock = replicas.use_own_clock()
    near.may_answer.clear()
    slow = asyncio.ensure_future(replicas.ask())
    await until(lambda: near.calls, "the call has arrived")
    with replicas.fleet.hold(*INDEX_ROLES) as held:
        peer = next(peer for peer in held.peers if peer.endpoint.zone == "near")

    def is_late() -> bool:
        # As other calls to it would.
        replicas.record.answered(peer, "Describe", 0.01)
        clock.now += ALIVE_SECONDS / 2
        return clock.now > 10 * unresponsive_after(0.1)

    await until(is_late, "a replica that hangs would not be waited for any more")
    assert not far.calls
    # Without any answer it counts as hanging.
    clock.now += ALIVE_SECONDS
    assert answered((await slow)["a"]) == "far"


async def test_a_group_that_hangs_as_a_whole_fails_at_the_deadline(replicas: ReplicaSet) -> None:
    async with hung_endpoints(2) as hanging:
        for hung in hanging:
            replicas.announce(hung.address, "a", "")
        outcome = (await replicas.ask(seconds=0.5))["a"]
        assert outcome.answer is None
        assert {f.status for f in outcome.failures} == {"DEADLINE_EXCEEDED"}
        assert len(outcome.failures) == 2


async def test_a_caller_that_is_cancelled_cancels_all_calls(replicas: ReplicaSet) -> None:
    async with hung_endpoints(2) as hanging:
        for hung in hanging:
            replicas.announce(hung.address, "a", "")
        asking = asyncio.ensure_future(replicas.ask())
        for hung in hanging:
            await asyncio.wait_for(hung.received.wait(), 30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for hung in hanging:
            await asyncio.wait_for(hung.ended.wait(), 30)


async def test_a_replica_that_leaves_discovery_gets_no_new_call_and_ends_the_one_it_has(
    replicas: ReplicaSet,
) -> None:
    near, far = await replicas.start("a", "near"), await replicas.start("a", "far")
    near.may_answer.clear()
    with replicas.fleet.hold(*INDEX_ROLES) as held:
        peers = {peer.endpoint.zone: peer for peer in held.peers}
        begun = asyncio.ensure_future(
            peers["near"].index.Describe(index_pb2.DescribeRequest(), timeout=60)
        )
        await until(lambda: near.calls, "the call has arrived")
        replicas.fleet.sync(e for e in replicas.endpoints if e.zone == "far")
        # Also not from a search that began before.
        assert replicas.record.choose(list(peers.values())) is peers["far"]
        near.may_answer.set()
        assert (await begun).model_id == MODEL
    assert answered((await replicas.ask())["a"]) == "far"
    assert (near.calls, far.calls) == (1, 1)
