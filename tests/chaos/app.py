"""The app: sends events until they are acknowledged, half of them with another client library."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shashin.client.listing_events import LISTED, SOLD, listing_event, record_of
from shashin.errors import KafkaUnavailable
from shashin.kafka.producer import OutRecord, Producer
from shashin.workload.listings import DemoListing
from tests.chaos.foreign_app import ForeignApp
from tests.chaos.plan import PlannedEvent

_AGAIN_SECONDS = 0.5
_FOREIGN_EVERY = 5
"""Every so many batches, one goes through the other client library, which connects anew."""


class App:
    """Sends batches of events in order."""

    def __init__(
        self, producer: Producer, foreign: ForeignApp, pool: Sequence[DemoListing]
    ) -> None:
        self.foreign = foreign
        self.ghosts: list[str] = []
        """Listings that only aborted transactions have."""
        self._producer = producer
        self._pool = pool
        self._batches = 0

    async def send(self, batch: Sequence[PlannedEvent]) -> None:
        """Send a batch until it is acknowledged."""
        self._batches += 1
        records = [self._record(event) for event in batch]
        if self._batches % _FOREIGN_EVERY == 0 and await self.foreign.send(
            records, self._never(batch)
        ):
            return
        while True:
            try:
                await self._producer.send_all(records)
            except KafkaUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    def _record(self, event: PlannedEvent) -> OutRecord:
        uris = [self._pool[number].photo_uris[0] for number in event.photos]
        return record_of(
            listing_event(event.listing_id, event.version, event.kind, photo_uris=uris)
        )

    def _never(self, batch: Sequence[PlannedEvent]) -> list[OutRecord]:
        """Return what must never take effect: a new listing, and the sale of one of the batch."""
        ghost = f"ghost-{self._batches:06d}"
        self.ghosts.append(ghost)
        sold = batch[0].listing_id
        return [
            record_of(listing_event(ghost, 1, LISTED, photo_uris=self._pool[0].photo_uris[:1])),
            record_of(listing_event(sold, batch[0].version + 1_000_000, SOLD)),
        ]
