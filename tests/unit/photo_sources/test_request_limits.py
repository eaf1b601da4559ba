"""Requests to hosts of photos: how many at once, and none to a host that asked for a pause."""

from __future__ import annotations

import asyncio

import pytest

from shashin.errors import PhotoUnavailable
from shashin.photo_sources.request_limits import MAX_PAUSE_SECONDS, RequestLimits
from tests.support.waiting import until


class Hosts:
    """Counts the requests under way by host."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self.under_way: dict[str, int] = {}
        self.goes_on = asyncio.Event()

    async def ask(self, host: str) -> None:
        async with self._limits.request(host):
            self.under_way[host] = self.under_way.get(host, 0) + 1
            await self.goes_on.wait()
            self.under_way[host] -= 1


async def test_a_slow_host_keeps_no_slot_of_the_others_waiting() -> None:
    hosts = Hosts(RequestLimits(total=4, per_host=2))
    tasks = [asyncio.ensure_future(hosts.ask("slow")) for _ in range(10)]
    await until(lambda: hosts.under_way.get("slow") == 2, "two requests to the slow host")
    tasks += [asyncio.ensure_future(hosts.ask("fast")) for _ in range(10)]
    await until(lambda: hosts.under_way.get("fast") == 2, "two requests to the other host")
    assert hosts.under_way["slow"] == 2
    hosts.goes_on.set()
    await asyncio.gather(*tasks)


async def test_all_hosts_together_are_bounded() -> None:
    hosts = Hosts(RequestLimits(total=3, per_host=2))
    tasks = [asyncio.ensure_future(hosts.ask(f"host-{number % 5}")) for number in range(20)]
    await until(lambda: sum(hosts.under_way.values()) == 3, "three requests")
    hosts.goes_on.set()
    await asyncio.gather(*tasks)
    assert set(hosts.under_way.values()) == {0}


async def test_a_paused_host_is_asked_again_when_its_pause_has_ended_and_others_at_once() -> None:
    limits, clock = RequestLimits(total=4, per_host=2), asyncio.get_running_loop().time
    async with limits.request("busy"):
        limits.pause("busy", 0.05)
        resumes_at = clock() + 0.04
    async with limits.request("other"):
        pass
    async with limits.request("busy"):
        assert clock() >= resumes_at


async def test_a_host_cannot_ask_for_a_pause_that_would_look_like_a_stall() -> None:
    limits = RequestLimits(total=1, per_host=1)
    async with limits.request("busy"):
        limits.pause("busy", 3600.0)
        longest = asyncio.get_running_loop().time() + MAX_PAUSE_SECONDS
        assert limits._hosts["busy"].resumes_at <= longest


async def test_those_that_wait_for_a_dead_host_fail_once_it_is_known_to_be_dead() -> None:
    limits, asked = RequestLimits(total=4, per_host=1), 0

    async def ask() -> None:
        nonlocal asked
        async with limits.request("dead"):
            asked += 1
            await asyncio.sleep(0)
            limits.unanswered("dead")

    outcomes = await asyncio.gather(*(ask() for _ in range(20)), return_exceptions=True)
    assert asked == 3
    assert sum(isinstance(outcome, PhotoUnavailable) for outcome in outcomes) == 17
    async with limits.request("dead"):
        limits.answered("dead")


async def test_single_failures_of_a_host_that_answers_fail_no_other_request() -> None:
    limits = RequestLimits(total=4, per_host=1)

    async def ask(number: int) -> None:
        async with limits.request("flaky"):
            await asyncio.sleep(0)
            (limits.unanswered if number % 2 else limits.answered)("flaky")

    await asyncio.gather(*(ask(number) for number in range(20)))


async def test_nothing_is_remembered_of_hosts_that_nothing_is_asked_of() -> None:
    limits = RequestLimits(total=4, per_host=1)
    for number in range(50):
        async with limits.request(f"host-{number}"):
            pass
    with pytest.raises(ZeroDivisionError):
        async with limits.request("failing"):
            raise ZeroDivisionError
    assert not limits._hosts
