"""The demo's steps: start, render, stream events, search, wait for the last shards, balance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shashin.cli.demo.report import Figures, percentile
from shashin.client.concurrently import together
from shashin.client.coverage_text import coverage_line
from shashin.client.router import RouterClient, embed
from shashin.client.topic_tails import CLIENT_ID, topic_tails
from shashin.errors import UserError
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import (
    DEAD_LETTER_TOPICS,
    IMAGES_DOWNLOADED,
    LISTINGS_EVENTS,
    LISTINGS_HIDDEN,
    VECTORS_EMBEDDED,
)
from shashin.local.system import DEFAULT_MODEL, System, UpOptions
from shashin.objectstore.open import opened_object_store
from shashin.repository.repository import ModelRepository
from shashin.runtime.command_traces import command_traced
from shashin.terminal.console import Stages, echo_stderr
from shashin.v1 import search_pb2
from shashin.workload.bad_input import bad_records
from shashin.workload.balance import Balance
from shashin.workload.ledger import Ledger
from shashin.workload.listings import DemoListing, OwnListing, copy_listings, render_listings
from shashin.workload.memory import PeakMemory
from shashin.workload.plan import StreamPlan, plan_stream, spread
from shashin.workload.progress import PipelineProgress, PipelineWatch
from shashin.workload.searches import Searches, find_ghosts, search_unseen
from shashin.workload.stream import Streamer, probed_listings

PHOTOS_EACH = 3
PARTITIONS = 4
GRACE_SECONDS = 2.0
"""One machine has one clock, so an idle bucket does not need a longer grace period."""

_PROBES = 200
_STALL_SECONDS = 60.0
"""How long to wait without progress before the demo reports what it has."""

_SERVE_SECONDS = 30.0
"""Time allowed for sealing and serving the last shards after the bucket's end and grace period."""

_POLL_SECONDS = 0.3
_TOPICS = (
    LISTINGS_EVENTS,
    IMAGES_DOWNLOADED,
    VECTORS_EMBEDDED,
    LISTINGS_HIDDEN,
    *DEAD_LETTER_TOPICS,
)


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demo."""

    listings: int
    rate: float
    """Photos per second."""
    bucket_seconds: int
    sold_share: float
    updated_share: float
    queries: int
    bad: int
    seed: int
    model: str = DEFAULT_MODEL


class DemoRun:
    """One run of the demo in a fresh system; ``own`` are the user's listings, if any."""

    def __init__(self, options: DemoOptions, own: list[OwnListing] | None, system: System) -> None:
        self._options = options
        self._own = own
        self._system = system
        counts = (
            [PHOTOS_EACH] * options.listings
            if own is None
            else [len(listing.source.photos) for listing in own]
        )
        self._listings = len(counts)
        self._photos = sum(counts)
        self._plan: StreamPlan = plan_stream(
            counts,
            photos_per_second=options.rate,
            sold_share=options.sold_share,
            updated_share=options.updated_share,
            seed=options.seed,
        )
        on_sale = [i for i in range(len(counts)) if i not in self._plan.sold]
        self._queried = spread(on_sale, options.queries)
        self._expected_events = len(self._plan.events) + options.bad
        self.balance = Balance()

    @property
    def query_kind(self) -> str:
        """Describe the query photos."""
        if self._own is None or all(listing.held_back for listing in self._own):
            return "photos that were never published"
        return "photos that were never published, or crops for listings with a single photo"

    async def play(self, started: float) -> Figures:
        """Run everything; ``started`` is the monotonic time at which the demo began."""
        async with AsyncExitStack() as stack:
            stack.enter_context(command_traced())
            stages = stack.enter_context(Stages())
            listings: list[DemoListing] = []
            await together(self._start(stages), self._make_listings(listings, stages))
            echo_stderr(f"search page: {self._system.page_url()}")
            kafka = self._system.kafka_address()
            router = await stack.enter_async_context(RouterClient(self._system.router_address()))
            producer = await stack.enter_async_context(Producer(kafka, client_id=CLIENT_ID))
            tails = await stack.enter_async_context(topic_tails(kafka, _TOPICS))
            memory = PeakMemory(self._system.pids)
            await stack.enter_async_context(memory.watching())
            store = await stack.enter_async_context(opened_object_store(self._system.repository))
            watch = PipelineWatch(
                tails,
                ModelRepository(store),
                self._system.model_id,
                router,
            )
            covers = await self._embed_covers(listings, stages)
            await stack.enter_async_context(
                watch.showing(lambda progress: self._show(progress, stages))
            )
            streamer = Streamer(listings, self._plan, producer, router, covers)
            await streamer.run()
            await producer.send_all(self._bad_records(listings))
            ledger = Ledger(tails, router)
            await self._until_balanced(ledger)
            sold = [listings[i] for i in sorted(self._plan.sold)]
            searches = await search_unseen(
                router,
                [listing for listing in listings if listing.query is not None],
                {listing.listing_id for listing in sold},
                lambda done: stages.set("searched", done, len(self._queried)),
            )
            searches.ghosts |= await find_ghosts(
                router, sold, lambda done: stages.set("sold listings checked", done, len(sold))
            )
            last = await self._until_served(watch)
            self.balance = await ledger.look()
            self._show(last, stages)
            memory.sample()
        figures = self._figures(streamer, searches, last, memory.peaks)
        figures.wall_s = time.monotonic() - started
        return figures

    async def _start(self, stages: Stages) -> None:
        await self._system.start(
            UpOptions(
                bucket_seconds=self._options.bucket_seconds,
                grace_seconds=GRACE_SECONDS,
                partitions=PARTITIONS,
                model=self._options.model,
            ),
            stages,
        )

    async def _make_listings(self, into: list[DemoListing], stages: Stages) -> None:
        if self._own is not None:
            into += await copy_listings(
                self._own,
                self._system.photos,
                queried=self._queried,
                progress=lambda done: stages.set("photos copied", done, self._photos),
            )
            return
        total = self._photos + len(self._queried)
        stages.set("photos rendered", 0, total)
        into += await render_listings(
            self._system.photos,
            count=self._options.listings,
            photos_each=PHOTOS_EACH,
            queried=self._queried,
            seed=self._options.seed,
            progress=lambda done: stages.set("photos rendered", done, total),
        )

    async def _embed_covers(
        self, listings: list[DemoListing], stages: Stages
    ) -> dict[int, npt.NDArray[np.float32]]:
        probed = sorted(probed_listings(self._plan, len(listings), _PROBES))
        covers = {}
        address = self._system.embedder_address()
        for done, number in enumerate(probed):
            stages.set("samples prepared", done, len(probed))
            photo = await asyncio.to_thread(listings[number].photos[0].read_bytes)
            try:
                covers[number] = (await embed(address, [photo]))[0]
            except UserError:
                continue  # A broken photo of the user's: the pipeline dead-letters it.
        stages.set("samples prepared", len(probed), len(probed))
        return covers

    def _bad_records(self, listings: list[DemoListing]) -> list[OutRecord]:
        folder = self._system.photos / "bad"
        return bad_records(self._options.bad, folder, listings[0].photos[0])

    def _show(self, progress: PipelineProgress, stages: Stages) -> None:
        versions = max(self._plan.with_photos, progress.downloaded)
        stages.set("published", progress.published, self._expected_events)
        stages.set("downloaded", progress.downloaded, versions)
        stages.set("embedded", progress.embedded, versions)
        stages.set("searchable", progress.searchable, versions)
        waits = progress.published == self._expected_events and progress.sealed < versions
        note = f"the last bucket of {self._options.bucket_seconds} s is not over" if waits else ""
        stages.set("sealed", progress.sealed, versions, note=note)
        stages.set("served", progress.served, versions)

    async def _until_balanced(self, ledger: Ledger) -> None:
        """Wait until the balance has no problems, or stops changing."""
        stall = StallTimer(_STALL_SECONDS)
        while True:
            self.balance = await ledger.look()
            if not self.balance.problems or stall.expired(self.balance):
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _until_served(self, watch: PipelineWatch) -> PipelineProgress:
        """Wait until everything embedded is sealed and served, or progress stops."""
        limit = 2 * self._options.bucket_seconds + GRACE_SECONDS + _SERVE_SECONDS
        stall = StallTimer(limit)
        while True:
            progress = await watch.look()
            all_served = progress.embedded == progress.sealed == progress.served
            complete = progress.coverage is not None and progress.coverage.complete
            if (all_served and complete) or stall.expired(progress):
                return progress
            await asyncio.sleep(_POLL_SECONDS)

    def _figures(
        self, streamer: Streamer, searches: Searches, last: PipelineProgress, peaks: dict[str, int]
    ) -> Figures:
        fresh, seconds = streamer.freshness, max(streamer.seconds, 1e-9)
        return Figures(
            listings=self._listings,
            photos=self._photos,
            events=self.balance.events_in,
            stream_s=streamer.seconds,
            events_per_s=streamer.sent / seconds,
            photos_per_s=streamer.photos_sent / seconds,
            freshness_p50_s=percentile(fresh.found, 0.5),
            freshness_p99_s=percentile(fresh.found, 0.99),
            freshness_samples=len(fresh.found),
            gone_p50_s=percentile(fresh.gone, 0.5),
            gone_p99_s=percentile(fresh.gone, 0.99),
            gone_samples=len(fresh.gone),
            recall_at_1=searches.recall_at(1),
            recall_at_10=searches.recall_at(10),
            queries=len(searches.ranks),
            query_p50_s=percentile(searches.seconds, 0.5),
            query_p99_s=percentile(searches.seconds, 0.99),
            sold=len(self._plan.sold),
            updated=len(self._plan.updated),
            ghosts=len(searches.ghosts),
            coverage_complete=last.coverage is not None and last.coverage.complete,
            shards_sealed=last.shards_sealed,
            shards_served=last.shards_served,
            searchable=self.balance.searchable,
            hidden=self.balance.hidden,
            dead_lettered=self.balance.dead_lettered,
            photos_dead_lettered=self.balance.photos_dead_lettered,
            peak_memory_bytes=peaks,
            problems=[
                *self.balance.problems,
                *fresh.missed,
                *demo_problems(last, sorted(searches.ghosts), self._expected_events),
            ],
        )


class StallTimer:
    """Expires once the observed value has not changed for a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: object = None
        self._since = time.monotonic()

    def expired(self, value: object) -> bool:
        """Return whether the value has been the same for longer than the limit."""
        if value != self._last:
            self._last, self._since = value, time.monotonic()
        return time.monotonic() - self._since > self._seconds


def demo_problems(last: PipelineProgress, ghosts: Sequence[str], expected_events: int) -> list[str]:
    """Return the problems at the end, apart from those of the balance."""
    problems = []
    if last.published != expected_events:
        problems.append(
            f"{expected_events} events were sent, but listings.events contains {last.published}"
        )
    if ghosts:
        problems.append(f"{len(ghosts)} sold listings are still found: {', '.join(ghosts[:5])}")
    if last.coverage is None or not last.coverage.complete:
        problems.append(coverage_line(last.coverage or search_pb2.Coverage()))
    if last.sealed != last.embedded:
        problems.append(f"{last.sealed} of {last.embedded} embedded versions are sealed")
    if last.served != last.sealed or last.shards_served != last.shards_sealed:
        problems.append(
            f"{last.shards_served} of {last.shards_sealed} sealed shards are served, with "
            f"{last.served} of {last.sealed} versions"
        )
    return problems
