"""A process is a scope: its loops start and stop together, and all of them report health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog

from shashin.errors import KafkaUnavailable
from shashin.runtime.health import Health
from shashin.runtime.scope import Loop, LoopScope, ServiceScope
from shashin.runtime.settings import ServiceSettings
from tests.support.loops import loop_scope
from tests.support.waiting import until

FOREVER = 3600.0


class Service:
    """A scope, and the event that stops it."""

    def __init__(self, *, drain_seconds: float = FOREVER) -> None:
        self.health = Health()
        self.stop = asyncio.Event()
        settings = ServiceSettings(drain_seconds=drain_seconds)
        self.scope = ServiceScope("test", settings, self.health, self.stop)

    async def run(self, *loops: Loop) -> None:
        """Run the loops; the limit only ends a test that would hang."""
        await asyncio.wait_for(self.scope.run(*loops), 60)


class Turning:
    """A loop that iterates until it must stop, then drains for as long as the test lets it."""

    def __init__(self, *, drains: bool = True) -> None:
        self.turns = 0
        self.ended = ""
        self.may_end = asyncio.Event()
        if drains:
            self.may_end.set()

    def loop(self, name: str = "turning") -> Loop:
        return Loop(name, self.run)

    async def run(self, loop: LoopScope) -> None:
        try:
            while loop.next_turn():
                self.turns += 1
                await asyncio.sleep(0)
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "drained"


async def test_the_loops_run_until_they_must_stop_and_then_drain() -> None:
    service, loops = Service(), [Turning(), Turning()]
    running = asyncio.ensure_future(service.run(*(one.loop(str(one)) for one in loops)))
    await until(lambda: all(loop.turns > 3 for loop in loops), "both loops turn")
    assert not running.done()
    service.stop.set()
    await running
    assert [loop.ended for loop in loops] == ["drained", "drained"]


async def test_work_under_way_is_waited_for() -> None:
    service, loop = Service(), Turning(drains=False)
    running = asyncio.ensure_future(service.run(loop.loop()))
    service.stop.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    loop.may_end.set()
    await running
    assert loop.ended == "drained"


async def test_a_loop_that_does_not_drain_in_time_is_cancelled_and_the_rest_is_not() -> None:
    service, slow, quick = Service(drain_seconds=0.05), Turning(drains=False), Turning()
    running = asyncio.ensure_future(service.run(slow.loop("slow"), quick.loop("quick")))
    await until(lambda: slow.turns and quick.turns, "both loops turn")
    service.stop.set()
    with structlog.testing.capture_logs() as logged:
        await running
    assert (slow.ended, quick.ended) == ("cancelled", "drained")
    assert [(line["log_level"], line["loops"]) for line in logged] == [("warning", 1)]


async def test_a_loop_that_fails_stops_the_others_and_its_error_is_raised() -> None:
    service, other = Service(), Turning()

    async def fail(_loop: LoopScope) -> None:
        await until(lambda: other.turns > 3, "the other one turns")
        raise KafkaUnavailable("kafka is gone for good")

    with pytest.raises(KafkaUnavailable, match="gone for good"):
        await service.run(other.loop(), Loop("failing", fail))
    assert other.ended == "drained"


async def test_the_earliest_of_several_errors_is_raised() -> None:
    service = Service()

    async def fail_because_the_other_did(loop: LoopScope) -> None:
        await loop.until_stopped()
        raise RuntimeError("the reader is gone")

    async def fail(_loop: LoopScope) -> None:
        await asyncio.sleep(0)
        raise KafkaUnavailable("the cause")

    with pytest.raises(KafkaUnavailable, match="the cause"):
        await service.run(Loop("follows", fail_because_the_other_did), Loop("fails", fail))


async def test_an_error_while_draining_is_raised() -> None:
    service = Service()

    async def fail_to_flush(loop: LoopScope) -> None:
        await loop.until_stopped()
        raise KafkaUnavailable("what was done could not be written")

    service.stop.set()
    with pytest.raises(KafkaUnavailable, match="could not be written"):
        await service.run(Turning().loop(), Loop("flushing", fail_to_flush))


async def test_a_loop_that_ends_stops_the_others() -> None:
    service, other = Service(), Turning()

    async def end(_loop: LoopScope) -> None:
        await until(lambda: other.turns > 3, "the other one turns")

    await service.run(Loop("ending", end), other.loop())
    assert other.ended == "drained"


async def test_a_service_without_loops_runs_until_it_must_stop() -> None:
    service = Service()
    running = asyncio.ensure_future(service.run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    service.stop.set()
    await running


# --- health of all loops --------------------------------------------------------------------------


async def test_a_process_is_not_ready_until_every_loop_is() -> None:
    service = Service()
    may_proceed = {"one": asyncio.Event(), "two": asyncio.Event()}

    def getting_ready(name: str) -> Loop:
        async def run(loop: LoopScope) -> None:
            await loop.wait(may_proceed[name], FOREVER)
            loop.ready()
            await loop.until_stopped()

        return Loop(name, run, ready_when=f"the turn of {name}")

    assert service.health.readiness_problems() == ["start: waiting for the start to finish"]
    running = asyncio.ensure_future(service.run(getting_ready("one"), getting_ready("two")))
    seen: set[tuple[str, ...]] = set()
    for name in ("two", "one"):
        for _ in range(10):
            seen.add(tuple(service.health.readiness_problems()))
            await asyncio.sleep(0)
        may_proceed[name].set()
    await until(lambda: not service.health.readiness_problems(), "the process is ready")
    # It was never ready in between: neither between startup and loops, nor between two loops.
    assert () not in seen
    service.stop.set()
    await running


async def test_every_loop_is_checked_for_progress_from_start_to_end() -> None:
    now = [1000.0]
    service = Service()
    service.health = Health(stall_seconds=10, clock=lambda: now[0])
    service.scope = ServiceScope("test", ServiceSettings(), service.health, service.stop)

    hangs = asyncio.Event()

    async def hang(_loop: LoopScope) -> None:
        hangs.set()
        await service.stop.wait()

    running = asyncio.ensure_future(service.run(Loop("hanging", hang)))
    await hangs.wait()
    now[0] += 11
    assert service.health.liveness_problems() == ["hanging made no progress for 11 s"]
    service.stop.set()
    await running
    assert service.health.liveness_problems() == []


async def test_a_start_has_a_longer_bound_than_a_loop() -> None:
    now = [1000.0]
    health = Health(stall_seconds=10, clock=lambda: now[0])
    settings = ServiceSettings(start_seconds=500)
    ServiceScope("test", settings, health, asyncio.Event())
    now[0] += 499
    assert health.liveness_problems() == []
    now[0] += 2
    assert health.liveness_problems() == ["start made no progress for 501 s"]


@pytest.mark.parametrize(
    "report", [LoopScope.ready, lambda loop: loop.not_ready("why")], ids=["ready", "not ready"]
)
def test_readiness_that_was_not_declared_cannot_be_reported(
    report: Callable[[LoopScope], None],
) -> None:
    with pytest.raises(AssertionError, match="was not declared with ready_when"):
        report(loop_scope())


# --- background loops -----------------------------------------------------------------------------


async def test_a_background_loop_outlives_the_loops_that_use_it() -> None:
    service, user = Service(), Turning(drains=False)
    background = Turning()

    async def serve() -> None:
        async with service.scope.background(background.loop("background")):
            await service.run(user.loop("user"))

    running = asyncio.ensure_future(serve())
    await until(lambda: user.turns and background.turns, "both turn")
    service.stop.set()
    turns = background.turns
    await until(lambda: background.turns > turns + 3, "it turns while its user drains")
    assert background.ended == ""
    user.may_end.set()
    await running
    assert (user.ended, background.ended) == ("drained", "drained")


async def test_a_background_loop_that_fails_ends_the_process_with_its_error() -> None:
    service, user = Service(), Turning()

    async def fail(_loop: LoopScope) -> None:
        await until(lambda: user.turns > 3, "its user turns")
        raise KafkaUnavailable("the model is gone")

    with pytest.raises(KafkaUnavailable, match="the model is gone"):
        async with service.scope.background(Loop("background", fail)):
            await service.run(user.loop())
    assert user.ended == "drained"


# --- iterations -----------------------------------------------------------------------------------


async def test_a_sleep_ends_when_the_loop_must_stop() -> None:
    stop = asyncio.Event()
    loop = loop_scope(stop=stop)
    sleeping = asyncio.ensure_future(loop.sleep(FOREVER))
    await asyncio.sleep(0)
    stop.set()
    assert not await sleeping
    assert not await loop.sleep(FOREVER), "later sleeps return at once"


async def test_an_undisturbed_sleep_continues() -> None:
    assert await loop_scope().sleep(0.001)


async def test_a_wait_ends_with_its_event() -> None:
    event = asyncio.Event()
    waiting = asyncio.ensure_future(loop_scope().wait(event, FOREVER))
    await asyncio.sleep(0)
    event.set()
    assert await waiting
