"""The loops of a service: they run together, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import structlog

from shashin.errors import KafkaUnavailable
from shashin.runtime.health import Health
from shashin.runtime.scope import Runtime, sleep_unless
from shashin.runtime.settings import ServiceSettings
from tests.support.waiting import until

FOREVER = 3600.0


def runtime(*, drain_seconds: float = FOREVER) -> Runtime[ServiceSettings]:
    log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("test")
    settings = ServiceSettings(drain_seconds=drain_seconds)
    return Runtime("test", settings, Health(), asyncio.Event(), log)


async def run(service: Runtime[ServiceSettings], *loops: Coroutine[Any, Any, None]) -> None:
    """Run the loops; the limit only ends a test that would hang."""
    await asyncio.wait_for(service.run_until_stopped(*loops), 60)


class Loop:
    """A loop that turns until it is to stop, then drains for as long as a test has it wait."""

    def __init__(self, *, drains: bool = True) -> None:
        self.turns = 0
        self.ended = ""
        self.may_end = asyncio.Event()
        if drains:
            self.may_end.set()

    async def run(self, stopping: asyncio.Event) -> None:
        try:
            while not stopping.is_set():
                self.turns += 1
                await asyncio.sleep(0)
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "drained"


async def test_the_loops_run_until_they_are_to_stop_and_then_drain() -> None:
    service, loops = runtime(), [Loop(), Loop()]
    running = asyncio.ensure_future(run(service, *(loop.run(service.stopping) for loop in loops)))
    await until(lambda: all(loop.turns > 3 for loop in loops), "both loops turn")
    assert not running.done()
    service.stopping.set()
    await running
    assert [loop.ended for loop in loops] == ["drained", "drained"]


async def test_work_under_way_is_waited_for() -> None:
    service, loop = runtime(), Loop(drains=False)
    running = asyncio.ensure_future(run(service, loop.run(service.stopping)))
    service.stopping.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    loop.may_end.set()
    await running
    assert loop.ended == "drained"


async def test_what_does_not_drain_in_time_is_cancelled_and_the_rest_is_not() -> None:
    service, slow, quick = runtime(drain_seconds=0.05), Loop(drains=False), Loop()
    running = asyncio.ensure_future(
        run(service, slow.run(service.stopping), quick.run(service.stopping))
    )
    await until(lambda: slow.turns and quick.turns, "both loops turn")
    service.stopping.set()
    with structlog.testing.capture_logs() as logged:
        await running
    assert (slow.ended, quick.ended) == ("cancelled", "drained")
    assert [(line["log_level"], line["loops"]) for line in logged] == [("warning", 1)]


async def test_a_loop_that_fails_ends_the_others_and_its_error_is_raised() -> None:
    service, other = runtime(), Loop()

    async def fail() -> None:
        await until(lambda: other.turns > 3, "the other one turns")
        raise KafkaUnavailable("kafka is gone for good")

    with pytest.raises(KafkaUnavailable, match="gone for good"):
        await run(service, other.run(service.stopping), fail())
    assert other.ended == "drained"


async def test_of_several_errors_the_first_in_time_is_raised() -> None:
    service = runtime()

    async def fail_because_the_other_did() -> None:
        await service.stopping.wait()
        raise RuntimeError("the reader is gone")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KafkaUnavailable("the cause")

    with pytest.raises(KafkaUnavailable, match="the cause"):
        await run(service, fail_because_the_other_did(), fail())


async def test_an_error_while_draining_is_raised() -> None:
    service = runtime()

    async def fail_to_flush() -> None:
        await service.stopping.wait()
        raise KafkaUnavailable("what was done could not be written")

    service.stopping.set()
    with pytest.raises(KafkaUnavailable, match="could not be written"):
        await run(service, Loop().run(service.stopping), fail_to_flush())


async def test_a_loop_that_comes_to_its_end_ends_the_others() -> None:
    service, other = runtime(), Loop()

    async def end() -> None:
        await until(lambda: other.turns > 3, "the other one turns")

    await run(service, end(), other.run(service.stopping))
    assert other.ended == "drained"


async def test_a_sleep_ends_when_the_process_is_to_stop() -> None:
    stopping = asyncio.Event()
    sleeping = asyncio.ensure_future(sleep_unless(stopping, FOREVER))
    await asyncio.sleep(0)
    stopping.set()
    assert await sleeping
    assert await sleep_unless(stopping, FOREVER), "and none begins after that"


async def test_a_sleep_that_nobody_disturbs_says_so() -> None:
    assert not await sleep_unless(asyncio.Event(), 0.001)
