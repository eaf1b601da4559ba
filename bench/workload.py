"""The system under test and its listings."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from shashin.client.listing_events import LISTED, REMOVED, listing_event, record_of
from shashin.client.router import RouterClient, covered_records, embed
from shashin.kafka.producer import Producer
from shashin.local.system import DEFAULT_MODEL, System, UpOptions
from shashin.terminal.console import Stages
from shashin.v1 import events_pb2
from shashin.workload.listings import DemoListing, render_listings
from shashin.workload.plan import plan_stream
from shashin.workload.stream import Streamer, probed_listings

PHOTOS_EACH = 3
SEED = 11


@dataclass
class Workload:
    """A running system, rendered photos, and fresh listing ids for each run."""

    system: System
    listings: list[DemoListing]
    producer: Producer
    router: RouterClient
    numbers: itertools.count[int]
    start_seconds: float
    on_sale: list[str] = field(default_factory=list)

    def fresh_listings(self, count: int) -> list[DemoListing]:
        """Return listings with new ids that share the rendered photos."""
        fresh = [
            replace(self.listings[i % len(self.listings)], listing_id=f"bench-{next(self.numbers)}")
            for i in range(count)
        ]
        self.on_sale += [listing.listing_id for listing in fresh]
        return fresh

    async def clear(self) -> None:
        """Remove every listing: the next run uses the same photos, so scores would tie."""
        await self.producer.send_all(
            record_of(listing_event(listing_id, 2, REMOVED)) for listing_id in self.on_sale
        )
        while await self.router.locate(self.on_sale):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.on_sale.clear()

    def events(self, listings: Sequence[DemoListing]) -> list[events_pb2.ListingEvent]:
        """Return the LISTED events of the listings."""
        return [
            listing_event(
                listing.listing_id,
                1,
                LISTED,
                photo_uris=listing.photo_uris,
                attributes=listing.attributes,
            )
            for listing in listings
        ]

    async def send_all(self, listings: Sequence[DemoListing]) -> None:
        """Publish all listings without pacing."""
        await self.producer.send_all(record_of(event) for event in self.events(listings))

    async def publish(self, count: int) -> float:
        """Publish fresh listings, wait until they are searchable, and return the seconds that it took."""
        listings, before = self.fresh_listings(count), await self.searchable()
        started = time.monotonic()
        await self.send_all(listings)
        await self.until_searchable(before + count)
        return time.monotonic() - started

    async def until_searchable(self, records: int) -> None:
        """Wait until the router's endpoints hold ``records`` records."""
        while covered_records(await self.router.status()) < records:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def searchable(self) -> int:
        """Return the number of records that the router's endpoints hold."""
        return covered_records(await self.router.status())

    async def streamer(self, seconds: float, photos_per_second: float) -> Streamer:
        """Return a steady stream of new listings, half of which are sampled for freshness.

        A sampled listing is searched by its cover's vector, which is embedded beforehand.
        """
        count = max(1, round(seconds * photos_per_second / PHOTOS_EACH))
        listings = self.fresh_listings(count)
        plan = plan_stream(
            [PHOTOS_EACH] * count,
            photos_per_second=photos_per_second,
            sold_share=0.0,
            updated_share=0.0,
            seed=SEED,
        )
        address = self.system.embedder_address()
        covers = {}
        for number in sorted(probed_listings(plan, count, count // 2 or 1)):
            photo = listings[number].photos[0].read_bytes()
            covers[number] = (await embed(address, [photo]))[0]
        return Streamer(listings, plan, self.producer, self.router, covers)


@asynccontextmanager
async def running(
    system: System, *, listings: int, model: str = DEFAULT_MODEL
) -> AsyncIterator[Workload]:
    """Start the system, render the listings, and stop it at the end."""
    try:
        with Stages() as stages:
            started = time.monotonic()
            await system.start(UpOptions(model=model), stages)
            seconds = time.monotonic() - started
            total = listings * (PHOTOS_EACH + 1)
            rendered = await render_listings(
                system.photos,
                count=listings,
                photos_each=PHOTOS_EACH,
                queried=range(listings),
                seed=SEED,
                progress=lambda done: stages.set("photos rendered", done, total),
            )
        async with (
            Producer(system.kafka_address(), client_id="bench") as producer,
            RouterClient(system.router_address()) as router,
        ):
            numbers = itertools.count(time.time_ns())
            yield Workload(system, rendered, producer, router, numbers, seconds)
    finally:
        await system.stop()
