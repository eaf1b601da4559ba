"""``make compose-test``: docker-compose.yml from nothing to nothing, with kills in between.

It builds the images, starts the default profile and Prometheus in a project of its own, publishes
listings, searches for them over gRPC, kills containers while it publishes more, and takes everything
down and up again. The last line says what came of it; exits with 1 unless every listing is as it
should be. Needs Docker, and root for kills that Docker did not ask for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from compose.stack import problems
from shashin.client.router import RouterClient
from shashin.errors import ShashinError, UserError
from shashin.terminal.console import echo, echo_error
from shashin.terminal.run import run
from tests.compose.app import App, Wrong
from tests.compose.stack import Stack

KILLED = ("indexer", "router", "embedder", "downloader", "index-server-hourly", "kafka")
FIRST, DURING, LAST = range(40), range(40, 100), range(100, 110)
_SAY_SECONDS = 2.0
_SHOWN_CHARACTERS = 120
_READY_SECONDS = 240.0


class Steps:
    """Says what happens and what is waited for, with its time."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        echo(f"{time.monotonic() - self.began:6.1f} s  {text}")

    async def until(
        self, missing: Callable[[], Awaitable[Any]], what: str, limit: float = _READY_SECONDS
    ) -> None:
        """Wait until nothing is missing, saying every two seconds what is.

        Raises:
            UserError: naming what is still missing at the limit.
        """
        began, told = time.monotonic(), time.monotonic()
        while True:
            try:
                left = await missing()
            except (ShashinError, aiohttp.ClientError) as error:
                left = [str(error)]
            if not left:
                return
            now = time.monotonic()
            shown = f"{len(left)} ({', '.join(map(str, left[:4]))})"[:_SHOWN_CHARACTERS]
            if now - began > limit:
                raise UserError(f"{what}: still missing after {limit:.0f} s: {shown}")
            if now - told > _SAY_SECONDS:
                self.say(f"  {what}: {shown}")
                told = now
            await asyncio.sleep(0.3)


async def play(stack: Stack, steps: Steps, *, build: bool) -> tuple[App, list[Wrong]]:
    """Run everything; returns what was published, and what is wrong with it at the end."""
    await stack.compose("down", "--volumes", "--timeout", "5")
    if build:
        steps.say("building images")
        await _said(steps, stack.compose("build"), "still building")
        steps.say("images are built")
    began = time.monotonic()
    up = ("up", "-d", *await _default_services(stack), "prometheus")
    await _said(steps, stack.compose(*up), "docker-compose up")
    kafka = f"127.0.0.1:{stack.ports['SHASHIN_COMPOSE_KAFKA_PORT']}"
    app = App(kafka, f"http://127.0.0.1:{stack.ports['SHASHIN_COMPOSE_S3_PORT']}")
    address = f"127.0.0.1:{stack.ports['SHASHIN_COMPOSE_ROUTER_PORT']}"
    async with RouterClient(address) as router:

        async def first() -> list[str]:
            return [] if await router.locate(["shop-00000001"]) else ["shop-00000000"]

        await steps.until(first, "the shop's first listing is found")
        steps.say(f"first listing found {time.monotonic() - began:.0f} s after `up` began")
        await steps.until(stack.waiting, "containers are ready")
        await steps.until(lambda: _targets_down(stack), "Prometheus reaches every target")
        steps.say("all containers are ready, and Prometheus reaches every target")
        await app.publish(FIRST)
        await app.sell(list(app.published)[::5])
        await steps.until(lambda: app.wrong(router), "listings are as they should be")
        await steps.until(lambda: app.searched(router), "searches are right")
        steps.say(f"{len(app.published)} listings published, {len(app.sold)} of them sold")
        await _report_memory(stack, steps)
        await _kill_each(stack, steps, app)
        await steps.until(lambda: app.wrong(router), "listings are as they should be")
        steps.say("down, keeping volumes, and up again")
        # Without `stop`'s patience nothing would be learned about drains.
        await _said(steps, stack.compose("down"), "docker-compose down")
        await _said(steps, stack.compose(*up), "docker-compose up")
    async with RouterClient(address) as router:
        await steps.until(stack.waiting, "containers are ready")
        await app.publish(LAST)
        wrong: list[Wrong] = []

        async def all_wrong() -> list[Wrong]:
            nonlocal wrong
            wrong = await app.wrong(router) or await app.searched(router)
            return wrong

        try:
            await steps.until(all_wrong, "listings are as they should be", limit=120.0)
        except UserError as error:
            echo(error.message)
        await _report_memory(stack, steps)
    return app, wrong


async def _kill_each(stack: Stack, steps: Steps, app: App) -> None:
    """Kill containers one after the other while listings are published."""
    numbers = list(DURING)
    share = len(numbers) // len(KILLED)
    for turn, service in enumerate(KILLED):
        before = await stack.restarts(service)
        await stack.kill(service)
        await app.publish(numbers[turn * share : (turn + 1) * share])

        async def restarted(name: str = service, old: int = before) -> list[str]:
            return [] if await stack.restarts(name) > old else [f"{name} has not been restarted"]

        await steps.until(restarted, "Docker restarts it")
        await steps.until(stack.waiting, "containers are ready")
        steps.say(f"{service} was killed, and is ready again")


async def _default_services(stack: Stack) -> list[str]:
    named = set((await stack.compose("config", "--services")).split())
    return sorted(named - {"prometheus", "grafana", "load"})


async def _targets_down(stack: Stack) -> list[str]:
    url = f"http://127.0.0.1:{stack.ports['SHASHIN_COMPOSE_PROMETHEUS_PORT']}/api/v1/targets"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        targets = json.loads(await response.text())["data"]["activeTargets"]
    if not targets:
        return ["no target"]
    return [one["scrapeUrl"] for one in targets if one["health"] != "up"]


async def _report_memory(stack: Stack, steps: Steps) -> None:
    found = await stack.memory()
    largest = sorted(found.items(), key=lambda one: -one[1])[:4]
    shown = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in largest)
    steps.say(f"memory of {len(found)} containers: {sum(found.values()) / 1e6:.0f} MB ({shown})")


async def _said(steps: Steps, work: Awaitable[Any], what: str) -> None:
    """Wait for something slow, saying every two seconds that it goes on."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait({task}, timeout=_SAY_SECONDS))[0]:
        steps.say(f"  {what}")
    await task


async def test(*, build: bool, keep: bool) -> int:
    """Run it in a clean project; returns the exit code."""
    stack, steps = Stack.with_free_ports(), Steps()
    found = problems(stack.environment, observability=True)
    if found:
        raise UserError("; ".join(found))
    try:
        app, wrong = await play(stack, steps, build=build)
    except ShashinError:
        waiting = [name.partition(" ")[0] for name in await stack.waiting()]
        for line in (await stack.logs(waiting[:4])).splitlines() if waiting else []:
            echo(line)
        raise
    finally:
        if not keep:
            await stack.compose("down", "--volumes", "--timeout", "5")
    steps.say("everything of the test is removed" if not keep else "containers are kept")
    ids = {one.listing_id for one in wrong}
    for_sale, lost = len(app.published) - len(app.sold), len(ids - app.sold)
    echo(f"compose: {len(app.sold)} more were sold, {len(ids & app.sold)} of them are still found")
    echo(f"compose: {for_sale} published, {for_sale - lost} found, {lost} lost")
    return 1 if wrong else 0


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="use the images that are there")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    args = parser.parse_args()
    # It says on stderr that a broker is away whenever this test has killed it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        return run(test(build=not args.no_build, keep=args.keep))
    except ShashinError as error:
        echo_error(error.message)
        return 1


if __name__ == "__main__":
    sys.exit(main())
