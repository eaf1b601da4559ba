"""One cycle of the canary after another: publish, search until found, sell, search until gone."""

from __future__ import annotations

import time
from dataclasses import dataclass

import grpc

from services.canary.mosaic import mosaic
from services.canary.settings import CanarySettings
from services.canary.watch import Answer, AskAgain, Failed, Failure, Goal, Reached, judge
from shashin.errors import KafkaUnavailable
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.metrics.canary import CYCLES, FAILURES, FOUND_SECONDS, GONE_SECONDS, LAST_SUCCESS
from shashin.objectstore.protocol import ObjectStore
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.v1 import events_pb2, search_pb2, search_pb2_grpc

LISTINGS = 8
"""Listings of a canary, used in turn: which ones a crash may have left is known without a record."""
CATEGORY = "shashin-canary"

_K = 10
_SEARCH_SECONDS = 5.0

log = get_logger(__name__)


@dataclass(frozen=True)
class KnownListing:
    """A listing of the canary."""

    listing_id: str
    photo: bytes
    key: str
    """Of the photo in the store."""


def known_listings(replica: str) -> list[KnownListing]:
    """Return the listings of a canary."""
    found = []
    for number in range(LISTINGS):
        listing_id = f"shashin-canary-{replica}-{number}"
        # The photos of two canaries differ, so that each finds its own first.
        seed = int.from_bytes(listing_id.encode(), "big")
        found.append(KnownListing(listing_id, mosaic(seed), f"{listing_id}.png"))
    return found


class Canary:
    """Publishes, searches for and sells its listings; one cycle at a time."""

    def __init__(
        self,
        settings: CanarySettings,
        producer: Producer,
        search: search_pb2_grpc.SearchServiceAsyncStub,
        store: ObjectStore,
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._search = search
        self._store = store
        self._listings = known_listings(settings.replica)
        self._version = 0
        self._problem = ""
        self._unsold: set[str] = set()
        """Listings that may be on sale: their sale was not acknowledged."""

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("cycles", self._run, ready_when="what an earlier run left is sold")

    async def _run(self, scope: LoopScope) -> None:
        await scope.retry("the canary's photos", self._put_photos)
        # An event that an earlier run sent comes before its sale in the log, so it does not matter
        # how far it has come.
        await scope.retry("selling what an earlier run left", lambda: self._sell(*self._listings))
        scope.ready()
        number = 0
        while scope.next_turn():
            began = time.monotonic()
            failure = await self._cycle(scope, self._listings[number % LISTINGS])
            if scope.stopping:
                return
            self._record(scope, failure)
            number += 1
            await scope.sleep(max(0.0, began + self._settings.every_seconds - time.monotonic()))

    def _record(self, scope: LoopScope, failure: Failure | None) -> None:
        CYCLES.inc()
        if failure is None:
            LAST_SUCCESS.set_to_current_time()
            scope.clear("the last cycle")
            return
        FAILURES.labels(failure).inc()
        scope.degraded("the last cycle", f"{failure}: {self._problem}")
        log.warning("cycle failed", failure=failure, problem=self._problem)

    async def _cycle(self, scope: LoopScope, listing: KnownListing) -> Failure | None:
        """Run a cycle; returns why it failed. The listing is sold at its end, whatever happened."""
        settings = self._settings
        try:
            if self._unsold:
                await self._sell(*(one for one in self._listings if one.listing_id in self._unsold))
            sent = time.monotonic()
            try:
                await self._publish(listing)
                found = await self._until(
                    Goal.FOUND, scope, listing, sent, settings.found_limit_seconds
                )
            finally:
                # Also if it was not acknowledged, or has not been found: it may yet come.
                sold = time.monotonic()
                await self._sell(listing)
        except KafkaUnavailable as error:
            self._problem = error.message
            return Failure.PUBLISH_FAILED
        if isinstance(found, Failure):
            return found
        FOUND_SECONDS.observe(found)
        gone = await self._until(Goal.GONE, scope, listing, sold, settings.gone_limit_seconds)
        if isinstance(gone, Failure):
            return gone
        GONE_SECONDS.observe(gone)
        return None

    async def _until(
        self, goal: Goal, scope: LoopScope, listing: KnownListing, since: float, limit: float
    ) -> float | Failure:
        """Search until the goal is reached; returns the seconds ``since``, or why it was not."""
        asked = 0
        while True:
            answer = await self._ask(listing)
            asked += 1
            elapsed = time.monotonic() - since
            match judge(goal, answer, asked=asked, elapsed=elapsed, limit=limit):
                case Reached():
                    return elapsed
                case Failed(failure):
                    if answer is not None:
                        self._problem = (
                            f"{listing.listing_id} is not {goal} after {limit:.0f} s; "
                            f"rank {answer.rank}, {'' if answer.complete else 'in'}complete answer"
                        )
                    return failure
                case AskAgain(pause):
                    if not await scope.sleep(pause):
                        return Failure.UNAVAILABLE  # Nobody counts it: the process ends.

    async def _ask(self, listing: KnownListing) -> Answer | None:
        request = search_pb2.SearchRequest(photo=listing.photo, k=_K)
        try:
            answer = await self._search.Search(request, timeout=_SEARCH_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._problem = (
                f"the router at {self._settings.router} did not answer ({error.code().name}): "
                f"{error.details()}"
            )
            return None
        ids = [hit.listing_id for hit in answer.hits]
        rank = ids.index(listing.listing_id) + 1 if listing.listing_id in ids else None
        return Answer(rank, answer.coverage.complete)

    async def _put_photos(self) -> None:
        for listing in self._listings:
            await self._store.write(listing.key, listing.photo)

    async def _publish(self, listing: KnownListing) -> None:
        self._unsold.add(listing.listing_id)
        event = self._event(listing, events_pb2.LISTING_KIND_LISTED)
        event.photo_uris.append(f"{self._settings.photos.rstrip('/')}/{listing.key}")
        event.attributes.category = CATEGORY
        event.attributes.listed_at.seconds = event.occurred_at.seconds
        await self._send(event)

    async def _sell(self, *listings: KnownListing) -> None:
        await self._send(*(self._event(one, events_pb2.LISTING_KIND_SOLD) for one in listings))
        self._unsold.difference_update(one.listing_id for one in listings)

    def _event(
        self, listing: KnownListing, kind: events_pb2.ListingKind.ValueType
    ) -> events_pb2.ListingEvent:
        # Milliseconds, so that an earlier run's versions are lower without a record of them.
        self._version = max(self._version + 1, time.time_ns() // 1_000_000)
        event = events_pb2.ListingEvent(
            listing_id=listing.listing_id, version=self._version, kind=kind
        )
        event.occurred_at.GetCurrentTime()
        return event

    async def _send(self, *events: events_pb2.ListingEvent) -> None:
        await self._producer.send_all(
            OutRecord(LISTINGS_EVENTS, event.listing_id.encode(), event.SerializeToString())
            for event in events
        )
