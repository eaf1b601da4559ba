"""Requests are sent when they are due, whatever becomes of others."""

from __future__ import annotations

import asyncio
import time

import pytest

from shashin.errors import NoEndpoint
from shashin.workload.load.generator import Generator, OpenLoop, Users
from shashin.workload.load.recorder import NOT_SENT, OK, Recorder
from shashin.workload.load.report import kept, report_document
from tests.support.waiting import until


async def test_a_request_that_hangs_does_not_delay_those_after_it() -> None:
    recorder = Recorder(["queries"])
    last_sent = asyncio.Event()
    sent = 0

    async def send() -> str:
        nonlocal sent
        sent += 1
        if sent == 1:
            await last_sent.wait()  # a closed loop would never get beyond it
        if sent == 20:
            last_sent.set()
        return OK

    due = [n * 0.005 for n in range(20)]
    await Generator(recorder).run(OpenLoop("queries", due, send))
    assert recorder.kinds["queries"].total.outcomes == {OK: 20}


async def test_an_error_is_an_outcome_and_ends_nothing() -> None:
    recorder = Recorder(["queries"])

    async def send() -> str:
        raise NoEndpoint("the router does not answer")

    await Generator(recorder).run(OpenLoop("queries", [0.0, 0.001], send))
    assert recorder.kinds["queries"].total.outcomes == {"NoEndpoint": 2}


async def test_beyond_the_limit_in_flight_requests_are_counted_as_not_sent() -> None:
    recorder = Recorder(["queries"])
    released = asyncio.Event()

    async def hang() -> str:
        await released.wait()
        return OK

    generator = Generator(recorder, max_in_flight=3)
    queries = OpenLoop("queries", [0.0] * 5, hang)

    async def until_refused() -> None:
        await until(
            lambda: recorder.kinds["queries"].total.outcomes[NOT_SENT] == 2, "two are refused"
        )
        released.set()

    await asyncio.gather(generator.run(queries), until_refused())
    assert recorder.kinds["queries"].total.outcomes == {OK: 3, NOT_SENT: 2}


async def test_a_generator_that_is_held_up_says_so_and_how_much() -> None:
    recorder = Recorder(["queries"])

    async def send() -> str:
        time.sleep(0.05)  # noqa: ASYNC251 - the event loop is blocked, as by too much work
        return OK

    generator = Generator(recorder)
    await generator.run(OpenLoop("queries", [n * 0.001 for n in range(20)], send))
    found = kept(recorder)
    assert not found.up
    assert "DID NOT KEEP UP" in found.line
    assert found.max_seconds > 0.05
    document = report_document(recorder, {}, run="r", seconds=1.0, interrupted=False, options={})
    assert document["generator"]["kept_up"] is False
    assert document["kinds"]["queries"]["max"] > 0.05  # waiting to be sent counts


async def test_users_wait_for_an_answer_before_they_ask_again() -> None:
    recorder = Recorder(["queries"])
    asking = most = 0

    async def send() -> str:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await asyncio.sleep(0.002)
        asking -= 1
        return OK

    await Generator(recorder).run(Users("queries", 3, 0.001, 0.3, send))
    assert 1 <= most <= 3
    assert recorder.kinds["queries"].total.outcomes[OK] > 3


async def test_a_cancelled_run_keeps_what_was_recorded_and_sends_nothing_more() -> None:
    recorder = Recorder(["queries"])
    enough = asyncio.Event()

    async def send() -> str:
        if recorder.kinds["queries"].total.due == 5:
            enough.set()
        return OK

    run = asyncio.ensure_future(
        Generator(recorder).run(OpenLoop("queries", (n * 0.001 for n in range(10**6)), send))
    )
    await enough.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    counted = recorder.kinds["queries"].total.due
    assert counted >= 5
    await asyncio.sleep(0.01)
    assert recorder.kinds["queries"].total.due == counted
