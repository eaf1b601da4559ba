"""An app of the test's own: stores photos on the stack's S3, sends events, and knows what must be found."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aioboto3
from botocore.config import Config

from shashin.client.listing_events import LISTED, SOLD, listing_event, send_events
from shashin.client.router import RouterClient
from shashin.errors import ShashinError
from shashin.kafka.producer import Producer
from shashin.v1 import events_pb2
from tests.support.rendered_listings import rendered

BUCKET = "shashin-photos"
ACCESS_KEY, SECRET = "compose-stack", "only-for-this-stack"
_ATTEMPTS_SECONDS = 90.0


@dataclass(frozen=True)
class Wrong:
    """A listing that is not found as it should be."""

    listing_id: str
    what: str

    def __str__(self) -> str:
        return f"{self.listing_id} {self.what}"


@dataclass
class App:
    """Publishes and sells listings; what Kafka acknowledged must be found, or not be found."""

    kafka: str
    s3: str
    published: dict[str, bytes] = field(default_factory=dict)
    """The photo of each listing that was published."""
    sold: set[str] = field(default_factory=set)

    async def publish(self, numbers: Iterable[int]) -> None:
        """Publish listings one by one."""
        session = aioboto3.Session(ACCESS_KEY, SECRET, region_name="us-east-1")
        config = Config(s3={"addressing_style": "path"})
        async with (
            self._producer() as producer,
            session.client("s3", endpoint_url=self.s3, config=config) as client,
        ):
            for number in numbers:
                listing = await asyncio.to_thread(rendered, number)
                listing_id = f"own-{number:05d}"
                key = f"own/{listing_id}.jpg"
                body = io.BytesIO(listing.photos[0])
                await client.put_object(Bucket=BUCKET, Key=key, Body=body)
                event = listing_event(
                    listing_id,
                    1,
                    LISTED,
                    photo_uris=[f"s3://{BUCKET}/{key}"],
                    attributes=listing.attributes,
                )
                await _sent(producer, event)
                self.published[listing_id] = listing.photos[0]

    async def sell(self, listing_ids: Iterable[str]) -> None:
        """Sell listings."""
        async with self._producer() as producer:
            for listing_id in listing_ids:
                await _sent(producer, listing_event(listing_id, 2, SOLD))
                self.sold.add(listing_id)

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Producer]:
        """Yield a producer, which connects with its first record: Kafka may be down now."""
        producer = Producer(self.kafka, client_id="compose-test")
        try:
            yield producer
        finally:
            await producer.close()

    async def wrong(self, router: RouterClient) -> list[Wrong]:
        """Return what is not found as it should be."""
        located = await router.locate(sorted(self.published))
        return [
            Wrong(listing_id, "is still found" if listing_id in self.sold else "is not found")
            for listing_id in sorted(self.published)
            if (listing_id in located) == (listing_id in self.sold)
        ]

    async def searched(self, router: RouterClient) -> list[Wrong]:
        """Search for each listing by its photo over gRPC; returns what a search gets wrong."""
        wrong = []
        for listing_id, photo in sorted(self.published.items()):
            try:
                answer = await router.search(photo=photo, k=10)
            except ShashinError as error:
                wrong.append(Wrong(listing_id, f"cannot be searched for: {error.message}"))
                continue
            is_hit = any(hit.listing_id == listing_id for hit in answer.hits)
            if is_hit == (listing_id in self.sold):
                what = "still" if is_hit else "not"
                wrong.append(Wrong(listing_id, f"is {what} among the hits"))
            elif not answer.coverage.complete:
                wrong.append(Wrong(listing_id, "has an incomplete answer"))
        return wrong


async def _sent(producer: Producer, event: events_pb2.ListingEvent) -> None:
    """Send an event until Kafka, which may be down, acknowledges it."""
    async with asyncio.timeout(_ATTEMPTS_SECONDS):
        while True:
            try:
                await send_events(producer, [event])
            except ShashinError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(0.5)
            else:
                return
