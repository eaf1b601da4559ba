"""Two index servers as replicas of each other: no query notices when one dies, hangs, ends or is old."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shashin.client.router import RouterClient
from shashin.errors import ShashinError
from shashin.kafka.producer import Producer
from tests.support.embedded_listings import DIMENSIONS, MODEL, IndexClient, embedded, vector_of
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]

NEAR, FAR = "near", "far"
DEADLINE_MS = 20_000
"""Far beyond what any machine needs: what hangs is noticed long before it."""
SEARCHERS = 4


@dataclass
class Queries:
    """Searches for listings all the time, each of which has to be found by a complete answer."""

    router: RouterClient
    listings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    answered: int = 0

    async def ask(self, listing: str) -> None:
        try:
            answer = await self.router.search(
                vector=vector_of(listing), k=5, within_seconds=2 * DEADLINE_MS / 1000
            )
        except ShashinError as error:
            self.problems.append(f"{listing}: {error.message}")
            return
        found = [hit.listing_id for hit in answer.hits]
        if not answer.coverage.complete or answer.failed_endpoints or found[0] != listing:
            self.problems.append(f"{listing}: found {found}, {answer.coverage} {answer}")
        elif len(set(found)) != len(found):
            self.problems.append(f"{listing}: twice in {found}")
        self.answered += 1

    async def are_answered(self, count: int = 40) -> None:
        """Wait for so many further answers, of queries that begin from now on."""
        enough = self.answered + SEARCHERS + count
        await until(lambda: self.answered >= enough or self.problems, f"{count} more answers")
        assert not self.problems, self.problems


@asynccontextmanager
async def asking(router: RunningService, listings: Sequence[str]) -> AsyncIterator[Queries]:
    """Search in the background; at the end, no query may have failed or been incomplete."""
    async with RouterClient(router.grpc) as client:
        queries, done = Queries(client, list(listings)), asyncio.Event()

        async def search(number: int) -> None:
            for turn in itertools.count(number):
                if done.is_set():
                    return
                await queries.ask(queries.listings[turn % len(queries.listings)])

        searching = [asyncio.ensure_future(search(number)) for number in range(SEARCHERS)]
        try:
            await queries.are_answered()
            yield queries
            await queries.are_answered()
        finally:
            done.set()
            await asyncio.gather(*searching)
        assert not queries.problems, queries.problems


@dataclass
class Tiers:
    """The services of one model, and two discoveries: of the router, and of the others."""

    start_service: StartService
    folder: Path
    producer: Producer

    def settings(self, repository: str = "repository") -> dict[str, object]:
        return {"model_id": MODEL, "repository": (self.folder / repository).as_uri()}

    async def start(self) -> None:
        """Start an indexer, the image builder and a router that prefers replicas near it."""
        discovery = (self.folder / "discovery.json").as_uri()
        self.indexer = await self.start_service(
            "indexer",
            **self.settings(),
            dimensions=DIMENSIONS,
            work_folder=self.folder / "indexer",
            discovery=discovery,
            bucket_seconds=2,
            grace_seconds=0.5,
            release_after_seconds=2,
        )
        self.builder = await self.start_service(
            "image_builder", **self.settings(), discovery=discovery
        )

    async def server(self, name: str, *, repository: str = "repository") -> RunningService:
        """Start an hourly index server."""
        return await self.start_service(
            "index_server",
            **self.settings(repository),
            dimensions=DIMENSIONS,
            work_folder=self.folder / name,
        )

    async def router(self) -> RunningService:
        """Start the router."""
        return await self.start_service(
            "router",
            model_id=MODEL,
            dimensions=DIMENSIONS,
            discovery=(self.folder / "of-router.json").as_uri(),
            deadline_ms=DEADLINE_MS,
            zone=NEAR,
        )

    def announce(self, file: str, servers: Mapping[str, tuple[RunningService, str]]) -> None:
        """Write a discovery: the indexer, and index servers with their zones as one group."""
        live = {"name": "indexer", "role": "indexer", "tier": "live", "address": self.indexer.grpc}
        hourly = [
            {
                "name": name,
                "role": "index-server",
                "tier": "hourly",
                "address": server.grpc,
                "group": "hourly-0",
                "zone": zone,
            }
            for name, (server, zone) in servers.items()
        ]
        new = self.folder / f"{file}.new"
        new.write_text(json.dumps({"endpoints": [live, *hourly]}))
        new.rename(self.folder / file)

    async def seal(self, listings: Sequence[str], *servers: RunningService) -> None:
        """Write listings, and wait until the live tier has released them to all these servers."""
        await self.producer.send_all([embedded(listing) for listing in listings])
        async with IndexClient(self.indexer.grpc) as live:
            for listing in listings:

                async def found(listing: str = listing) -> bool:
                    if await live.finds(listing):
                        return True
                    async with IndexClient(servers[0].grpc) as first:
                        return await first.finds(listing)

                await until(found, f"{listing} is searchable")

            async def released() -> bool:
                return (await live.describe()).rows == 0

            await until(released, "the live tier has released all rows")


async def until_ready(router: RunningService, count: int) -> None:
    """Wait until so many hourly endpoints in the router's discovery are ready."""

    async def known() -> bool:
        name = 'shashin_router_endpoints{state="ready",tier="hourly"}'
        return await router.metric(name) == count

    await until(known, f"the router knows {count} ready replicas")


async def test_no_query_fails_or_is_incomplete_while_a_replica_is_killed_paused_or_ended(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    tiers = Tiers(start_service, tmp_path, producer)
    await tiers.start()
    near, far = await tiers.server(NEAR), await tiers.server(FAR)
    servers = {"near-0": (near, NEAR), "far-0": (far, FAR)}
    for file in ("discovery.json", "of-router.json"):
        tiers.announce(file, servers)
    listings = [f"listing-{number}" for number in range(20)]
    await tiers.seal(listings, near, far)
    router = await tiers.router()
    await until_ready(router, 2)
    async with asking(router, listings) as queries:
        await near.kill()
        await queries.are_answered()
        await until_ready(router, 1)
        await queries.are_answered()
        await near.start()
        await near.until_ready()
        await until_ready(router, 2)
        await queries.are_answered()

        near.process.send_signal(signal.SIGSTOP)
        await queries.are_answered()
        await until_ready(router, 1)
        await queries.are_answered()
        near.process.send_signal(signal.SIGCONT)
        await until_ready(router, 2)
        await queries.are_answered()

        # It is still in discovery: it refuses new calls itself.
        assert await near.stop() == 0
        await queries.are_answered()
        tiers.announce("of-router.json", {"far-0": (far, FAR)})
        await queries.are_answered()
    assert await router.metric("shashin_fleet_retries_total") > 0


async def test_no_query_is_incomplete_while_an_old_replica_is_replaced_by_one_with_more_shards(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    tiers = Tiers(start_service, tmp_path, producer)
    await tiers.start()
    new = await tiers.server("new")
    # The live tier and the image builder know only the new one, so the old one is not waited for.
    tiers.announce("discovery.json", {"new": (new, FAR)})
    first = [f"first-{number}" for number in range(10)]
    await tiers.seal(first, new)
    shutil.copytree(tmp_path / "repository", tmp_path / "old-repository")
    old = await tiers.server("old", repository="old-repository")
    tiers.announce("of-router.json", {"old": (old, NEAR), "new": (new, FAR)})
    router = await tiers.router()
    await until_ready(router, 2)
    async with asking(router, first) as queries:
        second = [f"second-{number}" for number in range(10)]
        await tiers.seal(second, new)
        queries.listings += second
        await queries.are_answered()
        async with IndexClient(old.grpc) as client:
            assert (await client.describe()).rows == len(first)

        async def has_filled() -> bool:
            return await router.metric("shashin_router_filled_gaps_total") > 0

        # Until the live tier has released the rows, there is none.
        await until(has_filled, "a gap is filled")

        newer = await tiers.server("newer")
        tiers.announce(
            "of-router.json", {"old": (old, NEAR), "new": (new, FAR), "newer": (newer, NEAR)}
        )
        await until_ready(router, 3)
        tiers.announce("of-router.json", {"new": (new, FAR), "newer": (newer, NEAR)})
        assert await old.stop() == 0
        await until_ready(router, 2)
        await queries.are_answered()
        filled = await router.metric("shashin_router_filled_gaps_total")
        await queries.are_answered()
        assert await router.metric("shashin_router_filled_gaps_total") == filled


async def test_indexer_and_image_builder_report_a_discovery_that_may_be_out_of_date(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    tiers = Tiers(start_service, tmp_path, producer)
    await tiers.start()
    (tmp_path / "discovery.json").write_text("half a fi")
    for service in (tiers.indexer, tiers.builder):

        async def reported(service: RunningService = service) -> bool:
            return "discovery.json is invalid" in await service.probe("healthz")

        await until(reported, f"{service.name} reports it")
        assert await service.get("readyz") is not None
    tiers.announce("discovery.json", {})
    for service in (tiers.indexer, tiers.builder):

        async def is_well(service: RunningService = service) -> bool:
            return "discovery.json" not in await service.probe("healthz")

        await until(is_well, f"{service.name} reports it no longer")
