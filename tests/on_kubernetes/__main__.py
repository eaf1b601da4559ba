"""``make cluster-test``: the whole system on the cluster that the environment names.

It installs everything in a new namespace, publishes listings, and lets hours be sealed, baked into
images and rolled out. Meanwhile a pod searches 20 times a second, pods are killed, a build fails and is
run again, the API server is stopped, and objects are bad. The last line says what came of it; exits
with 1 unless every query was answered completely.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shashin.errors import ShashinError
from shashin.kafka.producer import Producer
from shashin.model_space import ModelSpace
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.terminal.console import echo, echo_error
from shashin.terminal.run import run
from tests.on_kubernetes import troubles
from tests.on_kubernetes.cluster import Cluster
from tests.on_kubernetes.host import HostServices, host_services
from tests.on_kubernetes.images import pushed_images
from tests.on_kubernetes.installation import DIMENSIONS, MODEL, Installation, Prober, installation
from tests.on_kubernetes.past_days import PastDay, seal_past_days
from tests.on_kubernetes.traffic import Traffic
from tests.support.waiting import until

RATE = 20.0
_LONG = 240.0
_SETTLE_SECONDS = 120.0
_POLL_SECONDS = 0.5


@dataclass
class Outcome:
    """What came of it."""

    rolled: set[tuple[str, str]] = field(default_factory=set)
    """Servings with the images that all of their ready pods came to run."""
    queries: dict[str, Any] = field(default_factory=dict)
    builds: int = 0
    retried: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The last line."""
        of = self.queries
        return (
            f"cluster: {len(self.rolled)} servings rolled, {of.get('queries', 0)} queries, "
            f"{of.get('failed', 0)} failed, {of.get('incomplete', 0)} incomplete, "
            f"{self.builds} builds, {self.retried} retried"
        )

    @property
    def good(self) -> bool:
        """Whether nothing was lost."""
        of = self.queries
        bad = of.get("failed", 1) + of.get("incomplete", 1) + of.get("missed", 1)
        return not bad and not self.problems and of["queries"] > 0


class Steps:
    """Says what happens, with its time."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        echo(f"{time.monotonic() - self._began:6.1f} s  {text}")


async def play(cluster: Cluster, folder: Path, *, keep: bool) -> Outcome:
    """Install, let everything happen, and judge."""
    steps = Steps()
    building = asyncio.ensure_future(pushed_images(cluster.registry))
    try:
        async with host_services(cluster.host, folder) as host:
            steps.say(f"Kafka, GCS, S3 and an embedder run at {host.address}")
            images = await building
            steps.say(f"{len(images)} images built and pushed")
            os.environ[EMULATOR_VARIABLE] = host.gcs_url
            days = await seal_past_days(
                host.kafka,
                host.repository,
                ModelSpace(MODEL, DIMENSIONS),
                folder / "sealed",
                days=2,
            )
            async with installation(cluster) as on:
                await on.apply(host, images)
                await on.announce_embedder(host.embedder)
                steps.say(f"installed in namespace {on.namespace}")
                try:
                    await on.until_ready()
                    steps.say("all pods are ready")
                    return await _run(on, host, days, images["builds"], steps)
                except BaseException:
                    for line in (await on.state()).splitlines():
                        echo(line)
                    if keep:
                        echo(f"kept: namespace {on.namespace}; press Ctrl-C to end")
                        await asyncio.Event().wait()
                    raise
    finally:
        building.cancel()


async def _run(
    on: Installation, host: HostServices, days: list[PastDay], builds: str, steps: Steps
) -> Outcome:
    outcome = Outcome()
    async with Producer(host.kafka, client_id="app") as producer, on.router() as router:
        traffic = Traffic(host, producer)
        vectors = await traffic.prepare()

        async def complete() -> bool:
            try:
                status = await router.status()
                return status.coverage.complete and not await traffic.wrong(router)
            except ShashinError:
                return False

        await until(complete, "everything published is found", limit_seconds=_LONG)
        steps.say(f"{len(vectors)} listings are found, coverage is complete")
        for day in days:
            vectors |= troubles.sample(day, 10)
        prober = await on.start_prober(vectors, rate=RATE)
        async with _background(_follow(on, outcome), traffic.run()):
            await _troubles(on, days, builds, outcome, prober, steps)
        steps.say(f"{len(traffic.expected)} listings published meanwhile")
        async with on.router() as again:
            await _settle(traffic, again, outcome)
        outcome.queries = await prober.stop()
        made = await on.builds()
        outcome.builds = sum(one["status"]["phase"] == "Succeeded" for one in made)
        outcome.retried = sum(one["status"]["attempts"] > 1 for one in made)
    return outcome


async def _troubles(
    on: Installation,
    days: list[PastDay],
    builds: str,
    outcome: Outcome,
    prober: Prober,
    steps: Steps,
) -> None:
    told = 0

    async def say(text: str) -> None:
        nonlocal told
        counts = await prober.report()
        shown = ", ".join(f"{counts.get(of)} {of}" for of in ("queries", "failed", "incomplete"))
        steps.say(f"{text} ({shown})")
        problems = counts.get("problems", [])
        for problem in problems[told:]:
            steps.say(f"  {problem}")
        told = len(problems)

    await _rolled(outcome, "hourly", 1)
    await say("an hour was sealed, baked and rolled out")
    killed = await troubles.kill_each(on)
    await say(f"killed and replaced: {', '.join(killed)}")
    await troubles.build_that_fails_once(on, days[0], builds)
    await say("a build failed in its third step and was run again")
    made = await troubles.planned_builds(on, "daily")
    assert made, "the CronJob's command planned no build"
    await say(f"planned and built: {', '.join(made)}")
    await _rolled(outcome, "daily", 1)
    await say("a day was rolled out")
    await troubles.bad_servings(on)
    await say("bad servings were refused or named")
    await say(f"the API server was stopped: {await troubles.stop_api_server(on)}")
    await _rolled(outcome, "hourly", len(_of(outcome, "hourly")) + 2)
    await say("more hours were rolled out")


def _of(outcome: Outcome, tier: str) -> list[tuple[str, str]]:
    return [one for one in outcome.rolled if f"-{tier}-" in one[0]]


async def _rolled(outcome: Outcome, tier: str, number: int) -> None:
    await until(
        lambda: len(_of(outcome, tier)) >= number,
        f"{number} images of the {tier} tier are rolled out",
        limit_seconds=_LONG,
    )


async def _follow(on: Installation, outcome: Outcome) -> None:
    """Note what is rolled out, until cancelled."""
    while True:
        try:
            for one in await asyncio.wait_for(on.servings(), 5.0):
                if troubles.ready_reason(one) == "RolledOut":
                    outcome.rolled.add((one["metadata"]["name"], one["status"]["image"]))
        except (ShashinError, TimeoutError):
            pass  # the API server is stopped
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _background(*work: Any) -> AsyncIterator[None]:
    """Do work while the context is open; what fails there is raised at the end."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for one in ended:
        if isinstance(one, Exception):
            raise one


async def _settle(traffic: Traffic, router: Any, outcome: Outcome) -> None:
    """Wait until everything is found as it should be; notes what is not."""
    wrong: list[str] = ["no router answers"]

    async def settled() -> bool:
        nonlocal wrong
        try:
            wrong = await traffic.wrong(router)
        except ShashinError as error:
            wrong = [error.message]
        return not wrong

    try:
        await until(settled, "all listings are as they should be", limit_seconds=_SETTLE_SECONDS)
    except AssertionError:
        outcome.problems += wrong[:10]


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.on_kubernetes", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="after a failure, keep all until Ctrl-C"
    )
    args = parser.parse_args()
    try:
        cluster = Cluster.from_environment()
        with tempfile.TemporaryDirectory(prefix="shashin-cluster-") as folder:
            outcome = run(play(cluster, Path(folder), keep=args.keep))
    except (ShashinError, AssertionError) as error:
        first, *more = str(error).splitlines()
        echo_error(first)
        for line in more:
            echo(line)
        return 1
    for problem in [*outcome.queries.get("problems", ()), *outcome.problems]:
        echo(problem)
    of = outcome.queries
    echo(
        f"queries: p50 {of.get('p50_ms')} ms, p99 {of.get('p99_ms')} ms, {of.get('missed')} missed"
    )
    echo(outcome.line)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
