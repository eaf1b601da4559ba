"""One run of a load: prepares listings and queries, sends requests, and sells what it published."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Literal

from shashin.client.router import RouterClient, embed
from shashin.errors import DeadlineExceeded, KafkaUnavailable, UserError
from shashin.kafka.producer import Producer
from shashin.kafka.topic_admin import check_topics
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.runtime.command_traces import command_traced
from shashin.workload.load.drivers import EVENTS, QUERIES, SALES, Listings, Queries
from shashin.workload.load.generator import Generator, OpenLoop, Users
from shashin.workload.load.rates import Arrivals, Schedule
from shashin.workload.load.recorder import Recorder
from shashin.workload.load.stock import StockListing

QueryBy = Literal["photo", "vector", "listing"]

_SEARCHABLE_SECONDS = 120.0
_POLL_SECONDS = 0.2
_PROGRESS_SECONDS = 0.5
_CLIENT_ID = "shashin-load"


@dataclass(frozen=True)
class LoadOptions:
    """Options of a run."""

    run: str
    """Its name: the ids of its listings begin with ``load-<run>-``."""
    schedules: dict[str, Schedule]
    """By kind."""
    seconds: float
    arrivals: Arrivals
    seed: int
    staying: int
    """Listings that are published first and searched for; they stay on sale for the whole run."""
    query_by: Collection[QueryBy]
    users: int = 0
    think_seconds: float = 1.0
    clean: bool = True


@dataclass(frozen=True)
class Target:
    """Addresses, HOST:PORT."""

    kafka: str
    router: str
    embedder: str | None
    """Only for queries by vector."""


async def check_target(target: Target) -> None:
    """Check that router, Kafka and the topic of events are there, before anything is prepared.

    Raises:
        ShashinError: naming what is not, and what to do.
    """
    async with RouterClient(target.router) as router:
        await router.status()
    try:
        await check_topics(target.kafka, [LISTINGS_EVENTS])
    except KafkaUnavailable as error:
        raise KafkaUnavailable(
            f"{error.message}: `shashin up --kafka {target.kafka}` starts the services of this Kafka "
            "and creates their topics"
        ) from error


Progress = Callable[[str, float, float | None], None]
"""Takes what is done, how much of it, and of how much."""


class LoadRun:
    """A run; ``recorder`` has what came of its requests, also while it runs."""

    def __init__(
        self, options: LoadOptions, target: Target, stock: Sequence[StockListing], show: Progress
    ) -> None:
        self._options = options
        self._target = target
        self._stock = stock
        self._show = show
        self.recorder = Recorder([*options.schedules, *([QUERIES] if options.users else [])])
        self.seconds = 0.0
        self.interrupted = False
        self.sold = 0
        """Listings that were sold at the end."""

    async def play(self) -> None:
        """Run until the end, or until cancelled once, which still sells what was published.

        Raises:
            ShashinError: if something does not respond before the first request, or at the end.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(command_traced())
            router = await stack.enter_async_context(RouterClient(self._target.router))
            producer = await stack.enter_async_context(
                Producer(self._target.kafka, client_id=_CLIENT_ID)
            )
            listings = Listings(self._options.run, self._stock, producer)
            try:
                queries = await self._prepare(listings, router)
                await self._generate(listings, queries)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                self.interrupted = True
            finally:
                if self._options.clean:
                    self.sold = await listings.sell_all()

    async def _prepare(self, listings: Listings, router: RouterClient) -> Queries | None:
        """Publish what stays, wait until it is searchable, and return the queries."""
        options = self._options
        await listings.publish_staying(options.staying)
        deadline = time.monotonic() + _SEARCHABLE_SECONDS
        while (found := len(await router.locate(listings.staying))) < options.staying:
            self._show("searchable", found, options.staying)
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"{options.staying - found} of {options.staying} listings are not searchable "
                    f"after {_SEARCHABLE_SECONDS:.0f} s: `shashin dlq ls` shows whether their photos "
                    "can be read, `shashin status` whether every process is healthy"
                )
            await asyncio.sleep(_POLL_SECONDS)
        if QUERIES not in self.recorder.kinds:
            return None
        photos = [listing.query for listing in self._stock]
        by = options.query_by
        if "vector" in by and self._target.embedder is None:
            raise UserError("queries by vector need an embedder: give its address with --embedder")
        vectors = (
            list(await embed(self._target.embedder, photos))
            if "vector" in by and self._target.embedder is not None
            else []
        )
        ids = listings.staying if "listing" in by else []
        if "listing" in by and not ids:
            raise UserError("queries by listing need listings that stay: give --listings 1 or more")
        return Queries(
            router,
            photos=photos if "photo" in by else (),
            vectors=vectors,
            listing_ids=ids,
            seed=options.seed,
        )

    async def _generate(self, listings: Listings, queries: Queries | None) -> None:
        options = self._options
        sends = {EVENTS: listings.publish, SALES: listings.sell}
        if queries is not None:
            sends[QUERIES] = queries.search
        loops: list[OpenLoop | Users] = [
            OpenLoop(
                kind,
                # A seed of its own: the arrivals of different kinds are independent.
                schedule.due_times(options.seconds, options.arrivals, options.seed * 31 + number),
                sends[kind],
            )
            for number, (kind, schedule) in enumerate(options.schedules.items())
        ]
        if options.users:
            loops.append(
                Users(
                    QUERIES,
                    options.users,
                    options.think_seconds,
                    options.seconds,
                    sends[QUERIES],
                    options.seed,
                )
            )
        generator = Generator(self.recorder)
        showing = asyncio.create_task(self._show_progress())
        try:
            await generator.run(*loops)
        finally:
            self.seconds = min(generator.seconds, options.seconds)
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing

    async def _show_progress(self) -> None:
        began = time.monotonic()
        while True:
            at = min(time.monotonic() - began, self._options.seconds)
            for kind, recorded in self.recorder.kinds.items():
                schedule = self._options.schedules.get(kind)
                due = (
                    None
                    if schedule is None
                    else math.ceil(schedule.requests(self._options.seconds))
                )
                self._show(f"{kind} done", recorded.total.done, due)
            self._show("seconds", at, self._options.seconds)
            await asyncio.sleep(_PROGRESS_SECONDS)
