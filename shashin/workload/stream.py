"""Streaming the planned events on schedule, and measuring the freshness of sampled ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shashin.client.listing_events import SOLD, UPDATED, listing_event, send_events
from shashin.client.router import RouterClient
from shashin.errors import ShashinError
from shashin.kafka.producer import Producer
from shashin.v1 import events_pb2
from shashin.workload.listings import DemoListing
from shashin.workload.plan import PlannedEvent, StreamPlan

_PROBE_SECONDS = 0.025
"""Interval between two searches for a sampled listing."""

_PROBE_LIMIT = 60.0
"""Seconds after which a sampled listing counts as missed."""

_PRICE_CUT = 0.9
"""An updated listing's new price relative to the old one."""


@dataclass
class Freshness:
    """Seconds from sending each sampled event until it took effect."""

    found: list[float] = field(default_factory=list)
    """New listings, until a search finds them."""
    gone: list[float] = field(default_factory=list)
    """Sold listings, until no search finds them."""
    missed: list[str] = field(default_factory=list)
    """Events that did not take effect in time."""


class Streamer:
    """Sends the planned events; the sampled listings' cover vectors are given."""

    def __init__(
        self,
        listings: Sequence[DemoListing],
        plan: StreamPlan,
        producer: Producer,
        router: RouterClient,
        covers: Mapping[int, npt.NDArray[np.float32]],
    ) -> None:
        self._listings = listings
        self._plan = plan
        self._producer = producer
        self._router = router
        self._covers = covers
        self._probes: set[asyncio.Task[None]] = set()
        self._sold: set[int] = set()
        self.freshness = Freshness()
        self.sent = 0
        self.photos_sent = 0
        self.seconds = 0.0

    async def run(self) -> None:
        """Send every event when it is due, then wait for the sampled ones to take effect."""
        started = time.monotonic()
        try:
            for event in self._plan.events:
                late = time.monotonic() - started - event.at
                if late < 0:
                    await asyncio.sleep(-late)
                await self._send(event)
            self.seconds = time.monotonic() - started
            while self._probes:
                await asyncio.wait(self._probes)
        finally:
            for probe in self._probes:
                probe.cancel()

    async def _send(self, event: PlannedEvent) -> None:
        message = event_message(self._listings[event.listing], event)
        sent_at = time.monotonic()
        if event.kind == SOLD:
            self._sold.add(event.listing)
        if event.listing in self._covers and event.kind != UPDATED:
            probe = asyncio.create_task(self._watch(event, sent_at))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        await send_events(self._producer, [message])
        self.sent += 1
        self.photos_sent += len(message.photo_uris)

    async def _watch(self, event: PlannedEvent, sent_at: float) -> None:
        listing_id = self._listings[event.listing].listing_id
        should_find = event.kind != SOLD
        times = self.freshness.found if should_find else self.freshness.gone
        while (searched_at := time.monotonic()) - sent_at < _PROBE_LIMIT:
            if should_find and event.listing in self._sold:
                return  # Sold before it was found, as on a slow machine: no sample.
            try:
                answer = await self._router.search(vector=self._covers[event.listing], k=10)
            except ShashinError:
                pass  # A failed search is inconclusive; the next one may succeed.
            else:
                if should_find == any(hit.listing_id == listing_id for hit in answer.hits):
                    times.append(time.monotonic() - sent_at)
                    return
            await asyncio.sleep(max(0.001, _PROBE_SECONDS - (time.monotonic() - searched_at)))
        self.freshness.missed.append(
            f"{listing_id} was not found {_PROBE_LIMIT:.0f} s after its event"
            if should_find
            else f"{listing_id} was still found {_PROBE_LIMIT:.0f} s after it was sold"
        )


def event_message(listing: DemoListing, planned: PlannedEvent) -> events_pb2.ListingEvent:
    """Return the event; an update has a lower price and the photos in reverse order."""
    if planned.kind == SOLD:
        return listing_event(listing.listing_id, planned.version, SOLD)
    uris, attributes = listing.photo_uris, listing.attributes
    if planned.kind == UPDATED:
        uris = uris[::-1]
        attributes = replace(attributes, price_minor=int(attributes.price_minor * _PRICE_CUT))
    return listing_event(
        listing.listing_id,
        planned.version,
        planned.kind,
        photo_uris=uris,
        attributes=attributes,
    )


def probed_listings(plan: StreamPlan, count: int, at_most: int) -> Collection[int]:
    """Return which listings are sampled: evenly spaced, plus some of the sold ones."""
    step = max(1, -(-count // at_most))
    sold = sorted(plan.sold)
    return {*range(0, count, step), *sold[: max(1, at_most // 4)]}
