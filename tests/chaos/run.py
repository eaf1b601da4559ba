"""One run: start everything on a real Kafka, stream, kill, restart the broker, and compare."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from shashin.client.coverage_text import coverage_line
from shashin.client.listing_events import LISTED, listing_event, record_of
from shashin.client.router import RouterClient, embed
from shashin.errors import ShashinError
from shashin.kafka.producer import Producer
from shashin.local.kafka import EmbeddedKafka
from shashin.local.system import System, UpOptions
from shashin.objectstore.gcs import EMULATOR_VARIABLE
from shashin.objectstore.open import opened_object_store
from shashin.repository.contents import arrangement_problems, read_contents
from shashin.rpc.channel import open_channel
from shashin.runtime.failpoints import VARIABLE as FAILPOINTS
from shashin.terminal.console import Stages, echo_stderr
from shashin.v1 import index_pb2, index_pb2_grpc
from shashin.workload.listings import DemoListing, render_listings
from tests.chaos.app import App
from tests.chaos.builds import Builds
from tests.chaos.damage import Damage
from tests.chaos.evidence import Evidence, lines_of, missing, wrong
from tests.chaos.foreign_app import CODECS, ForeignApp
from tests.chaos.kills import Killer
from tests.chaos.pauses import pause_each, services_of
from tests.chaos.plan import Model, PlannedEvent, batches_of, model_of, stream
from tests.chaos.prober import Prober
from tests.chaos.replicas import ODD, Replicas
from tests.chaos.retention import Retention
from tests.chaos.verdict import FoundRow, Verdict, judge
from tests.support.fake_gcs import BUCKET, SERVER_VARIABLE, FakeGcs
from tests.support.waiting import until

_POOL = 60
"""Rendered products whose photos the streamed listings share."""

_STABLE = 24
_LOOK_UP_AT_ONCE = 500
_STALL_SECONDS = 90.0
_LATER_RATE = 5.0
"""Events per second once the count is reached, while troubles are outstanding."""
_LOOK_SECONDS = 0.5
_MAX_SECONDS = 660.0
"""Of the stream, even if kills are outstanding by then."""


@dataclass(frozen=True)
class Chaos:
    """Options of a run."""

    events: int
    kills: int
    rate: float
    """Events per second."""
    bucket_seconds: int
    seed: int
    state: Path
    pauses_together: bool
    """Whether all services are stopped for the same 40 seconds, not one after the other."""


@dataclass(frozen=True)
class Outcome:
    """Result of a run."""

    verdict: Verdict
    kills: int
    never_killed_at: Sequence[str]
    listings: int
    seconds: float
    line: str


async def play(chaos: Chaos) -> Outcome:
    """Run it.

    Raises:
        ShashinError: if the system does not start.
    """
    started = time.monotonic()
    system = System(chaos.state / "system")
    os.environ[FAILPOINTS] = str(chaos.state / "failpoints")
    # So small and short that photos keep being fetched, cached and evicted.
    os.environ |= {
        "SHASHIN_CACHE_FOLDER": str(chaos.state / "cache"),
        "SHASHIN_CACHE_BYTES": str(1024 * 1024),
        "SHASHIN_CACHE_SECONDS": "2",
    }
    async with _repository(chaos.state) as repository:
        try:
            return await _play(chaos, system, repository, started)
        finally:
            await system.stop()


@asynccontextmanager
async def _repository(state: Path) -> AsyncIterator[str | None]:
    """Yield a bucket on fake-gcs-server if available; None means a folder."""
    if not os.environ.get(SERVER_VARIABLE):
        echo_stderr(f"{SERVER_VARIABLE} is not set: the repository is a folder")
        yield None
        return
    root = state / "gcs"
    root.mkdir(parents=True)
    server = FakeGcs(state / "gcs.log", root=root)
    await server.start()
    try:
        await server.make_bucket()
        os.environ[EMULATOR_VARIABLE] = server.url
        yield f"gs://{BUCKET}/chaos"
    finally:
        await server.kill()


async def _play(chaos: Chaos, system: System, repository: str | None, started: float) -> Outcome:
    with Stages() as stages:
        await system.start(
            UpOptions(
                repository=repository,
                bucket_seconds=chaos.bucket_seconds,
                grace_seconds=1.0,
                partitions=4,
            ),
            stages,
        )
        pool = await render_listings(
            system.photos,
            count=_POOL + _STABLE,
            photos_each=1,
            queried=(),
            seed=chaos.seed,
            progress=lambda done: stages.set("photos rendered", done, _POOL + _STABLE),
        )
        stable = pool[_POOL:]
        kafka = system.kafka_address()
        async with (
            Producer(kafka, client_id="chaos") as producer,
            RouterClient(system.router_address()) as router,
        ):
            await _publish_stable(stable, producer, router)
            vectors = await embed(
                system.embedder_address(), [li.photos[0].read_bytes() for li in stable]
            )
            prober = Prober(
                system.router_address(),
                {li.listing_id: vector for li, vector in zip(stable, vectors, strict=True)},
            )
            killer = Killer(
                chaos.state / "failpoints",
                kills=chaos.kills,
                seed=chaos.seed,
                on_kill=lambda: stages.set("kills", len(killer.killed), chaos.kills),
            )
            app, broker = App(producer, ForeignApp(kafka), pool), _Broker(system)
            services, paused = services_of(system), list[str]()

            def on_pause(name: str) -> None:
                paused.append(name)
                stages.set("services paused", len(paused), len(services))

            probing = asyncio.ensure_future(prober.run())
            killing = asyncio.ensure_future(killer.run())
            pausing = asyncio.ensure_future(
                pause_each(
                    system,
                    services,
                    on_pause,
                    at_once=len(services) if chaos.pauses_together else 1,
                )
            )
            damage = Damage(system)
            # Services that are stopped would not notice.
            damaging = asyncio.ensure_future(_after(pausing, damage.run()))
            replicas = Replicas(system)
            retention = Retention(kafka, system.repository, system.model_id)
            builds = Builds(
                system.folder,
                seed=chaos.seed,
                on_progress=lambda done: stages.set("shards merged by builds", done),
            )
            building = asyncio.ensure_future(builds.run())

            def evidence() -> Evidence:
                return Evidence(
                    expected_pauses=services,
                    expected_codecs=CODECS,
                    expected_replicas=ODD,
                    expected_deletions=Retention.topics,
                    paused=paused,
                    manifest_was_unreadable=damage.happened,
                    sealed=replicas.sealed,
                    sealed_differently=replicas.sealed_differently,
                    replicas_ended=replicas.ended,
                    deleted=retention.deleted,
                    batches=app.foreign.batches,
                    committed=app.foreign.committed,
                    aborted=app.foreign.aborted,
                    complete_answers=prober.complete,
                    builds_succeeded=builds.succeeded,
                    builds_killed=builds.killed,
                    broker_killed=broker.killed,
                )

            async def all_has_happened() -> None:
                while True:
                    await asyncio.sleep(_LOOK_SECONDS)
                    if not missing(evidence()):
                        return

            troubles = [killing, pausing, damaging, asyncio.ensure_future(all_has_happened())]
            background = [
                probing,
                building,
                asyncio.ensure_future(replicas.run()),
                asyncio.ensure_future(retention.run()),
                *troubles,
            ]
            try:
                events = await _stream(chaos, app, broker, troubles, background, stages)
                model = model_of(events) | {
                    li.listing_id: model_of([_stable_event(li)])[li.listing_id] for li in stable
                }
                model |= dict.fromkeys(app.ghosts)
                verdict = await _settled(model, system, router, stages)
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
            seen = evidence()
            verdict.gaps += [*missing(seen), *wrong(seen)]
            if damage.problem:
                verdict.gaps.append(damage.problem)
            verdict.lost |= prober.missed
            verdict.duplicated |= prober.twice
            verdict.gaps += await _gaps(system, router)
    echo_stderr(
        f"{prober.answered} of {prober.asked} concurrent searches were answered, {prober.complete} "
        "of them complete"
    )
    for line in lines_of(seen):
        echo_stderr(line)
    return Outcome(
        verdict,
        len(killer.killed),
        killer.never,
        len(model),
        time.monotonic() - started,
        verdict.line(len(killer.killed), len(model)),
    )


def _stable_event(listing: DemoListing) -> PlannedEvent:
    return PlannedEvent(listing.listing_id, 1, LISTED, (0,))


async def _publish_stable(
    listings: Sequence[DemoListing], producer: Producer, router: RouterClient
) -> None:
    await producer.send_all(
        record_of(listing_event(li.listing_id, 1, LISTED, photo_uris=li.photo_uris))
        for li in listings
    )
    ids = [li.listing_id for li in listings]

    async def all_found() -> bool:
        return len(await router.locate(ids)) == len(ids)

    await until(all_found, "the listings that stay are searchable")


async def _stream(
    chaos: Chaos,
    app: App,
    broker: _Broker,
    troubles: Sequence[asyncio.Future[Any]],
    background: Sequence[asyncio.Future[Any]],
    stages: Stages,
) -> list[PlannedEvent]:
    """Send events at the configured rate until the count is reached and all troubles are over.

    The broker is killed halfway. Returns the sent events.
    """
    started, sent = time.monotonic(), list[PlannedEvent]()
    due = 0.0
    for batch in batches_of(stream(photos=_POOL, seed=chaos.seed), at_most=20):
        _raise_what_failed(background)
        over = all(trouble.done() for trouble in troubles)
        if len(sent) >= chaos.events and (over or _is_overdue(started)):
            break
        due += len(batch) / (chaos.rate if len(sent) < chaos.events else _LATER_RATE)
        await asyncio.sleep(max(0.0, started + due - time.monotonic()))
        await app.send(batch)
        sent += batch
        stages.set("events sent", len(sent), chaos.events)
        if not broker.killed and len(sent) > chaos.events // 2:
            broker.kill()
            stages.set("broker killed", int(broker.killed), 1)
    return sent


def _is_overdue(started: float) -> bool:
    return time.monotonic() - started > _MAX_SECONDS


def _raise_what_failed(background: Sequence[asyncio.Future[Any]]) -> None:
    for task in background:
        if task.done() and (error := task.exception()) is not None:
            raise error


class _Broker:
    """The broker of a system."""

    def __init__(self, system: System) -> None:
        self._kafka = EmbeddedKafka(system.folder)
        self.killed = False

    def kill(self) -> None:
        """Kill it, if it runs; its supervisor starts it again."""
        pid = self._kafka.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.killed = True


async def _after(first: asyncio.Future[Any], then: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.wait([first])
    except asyncio.CancelledError:
        then.close()
        raise
    await then


async def _settled(model: Model, system: System, router: RouterClient, stages: Stages) -> Verdict:
    """Wait until everything matches the model, or stops changing."""
    last, since = -1, time.monotonic()
    while True:
        wrong: int | None = None
        try:
            # What the router finds, and every visible row on its endpoints, to detect old versions.
            verdict = judge(model, await _located(router, list(model)))
            verdict.add(judge(model, await _rows(system, list(model))))
            complete = (await router.status()).coverage.complete
        except (ShashinError, OSError, KeyError):
            pass  # A process is still starting.
        else:
            wrong = verdict.wrong
            stages.set("listings as expected", len(model) - wrong, len(model))
            if verdict.whole and complete:
                return verdict
        if wrong is not None and wrong != last:
            last, since = wrong, time.monotonic()
        if time.monotonic() - since > _STALL_SECONDS:
            return verdict if wrong is not None else Verdict(gaps=["no response at the end"])
        await asyncio.sleep(1.0)


async def _located(router: RouterClient, listing_ids: Sequence[str]) -> dict[str, list[FoundRow]]:
    """Return what the router finds of the listings."""
    return {
        listing_id: [FoundRow("router", at.version, number) for number in at.photo_numbers]
        for listing_id, at in (await router.locate(listing_ids)).items()
    }


async def _rows(system: System, listing_ids: Sequence[str]) -> Mapping[str, list[FoundRow]]:
    """Return every visible row of the listings on every endpoint."""
    found: dict[str, list[FoundRow]] = {}
    addresses = {
        row.name: row.addresses["grpc"]
        for row in system.processes()
        if row.name.startswith("index") and "grpc" in row.addresses
    }
    for name, address in addresses.items():
        async with open_channel(address) as channel:
            stub = index_pb2_grpc.IndexServiceStub(channel)
            await _on(stub.Lookup, name, listing_ids, system.model_id, found)
    return found


async def _on(
    look_up: Callable[..., Awaitable[index_pb2.LookupResponse]],
    endpoint: str,
    listing_ids: Sequence[str],
    model_id: str,
    found: dict[str, list[FoundRow]],
) -> None:
    for start in range(0, len(listing_ids), _LOOK_UP_AT_ONCE):
        request = index_pb2.LookupRequest(
            model_id=model_id, listing_ids=listing_ids[start : start + _LOOK_UP_AT_ONCE]
        )
        try:
            answer = await look_up(request, timeout=20.0)
        except grpc.aio.AioRpcError as error:
            raise ShashinError(f"{endpoint} does not respond: {error.code()}") from None
        for row in answer.rows:
            found.setdefault(row.listing_id, []).append(
                FoundRow(endpoint, row.version, row.photo_number)
            )


async def _gaps(system: System, router: RouterClient) -> list[str]:
    """Return the gaps in the served shards and in the repository."""
    gaps = []
    coverage = (await router.status()).coverage
    if not coverage.complete:
        gaps.append(coverage_line(coverage))
    async with opened_object_store(system.repository) as store:
        _, contents = await read_contents(store)
    gaps += [error.message for error in contents.unreadable]
    gaps += arrangement_problems(contents)
    return gaps


def first_of(problems: Mapping[str, str], count: int = 5) -> list[str]:
    """Return some of the problems as lines."""
    return [f"{listing_id}: {what}" for listing_id, what in list(problems.items())[:count]]
