"""A shop that lists and sells rendered products at a gentle rate: ``python -m shashin.workload.shopkeeper``.

A stand-in for the app, with which docker-compose.yml shows a system at work. Photos are stored before
the event that names them, and the position after the event: a shop that is killed in between repeats
one event, which changes nothing.
"""

from __future__ import annotations

import asyncio
import json

from shashin.client.listing_events import (
    LISTED,
    SOLD,
    ListingAttributes,
    listing_event,
    send_events,
)
from shashin.errors import ObjectNotFound, UserError
from shashin.kafka.producer import Producer
from shashin.metrics.shop import EVENTS
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.rendering import require_rendering
from shashin.runtime.scope import Loop, LoopScope, ServiceScope
from shashin.runtime.service import run_service
from shashin.v1 import events_pb2
from shashin.workload.shop import ShopEvent, shop_event
from shashin.workload.shop_settings import ShopSettings

POSITION_KEY = "position.json"


class Shopkeeper:
    """Sends the shop's events, and remembers how far it is."""

    def __init__(self, settings: ShopSettings, store: ObjectStore, producer: Producer) -> None:
        self._settings = settings
        self._store = store
        self._producer = producer

    def loop(self) -> Loop:
        """Return the loop that sends events."""
        return Loop("shop", self._run, ready_when="the shop has its stock")

    async def _run(self, scope: LoopScope) -> None:
        position = await scope.retry("the shop's position", self._read_position)
        while scope.next_turn():
            event = shop_event(position)
            if event is not None:
                await scope.retry("the shop's event", lambda sent=event: self._send(sent))  # type: ignore[misc]
            position += 1
            reached = position
            await scope.retry("the shop's position", lambda to=reached: self._keep(to))  # type: ignore[misc]
            if position >= self._settings.shop_stock:
                scope.ready()
                await scope.sleep(1 / self._settings.shop_rate)

    async def _read_position(self) -> int:
        try:
            data, _ = await self._store.read(POSITION_KEY)
        except ObjectNotFound:
            return 0
        try:
            position = json.loads(data)["next"]
        except (ValueError, KeyError, TypeError):
            position = None
        if not isinstance(position, int) or position < 0:
            raise UserError(
                f"{POSITION_KEY} in {self._settings.shop_photos} is {data[:80]!r}, no position: delete "
                "it to let the shop begin anew"
            )
        return position

    async def _keep(self, position: int) -> None:
        await self._store.write(POSITION_KEY, json.dumps({"next": position}).encode())

    async def _send(self, event: ShopEvent) -> None:
        message = await (self._listed(event) if event.kind == "listed" else self._sold(event))
        await send_events(self._producer, [message])
        EVENTS.labels(event.kind).inc()

    async def _sold(self, event: ShopEvent) -> events_pb2.ListingEvent:
        return listing_event(event.listing_id, event.version, SOLD)

    async def _listed(self, event: ShopEvent) -> events_pb2.ListingEvent:
        attributes, photos = await asyncio.to_thread(
            rendered,
            self._settings.shop_seed,
            event.number,
            self._settings.shop_photos_each,
        )
        uris = []
        for number, photo in enumerate(photos):
            key = f"{event.listing_id}/{number}.jpg"
            await self._store.write(key, photo)
            uris.append(f"{self._settings.shop_photos.rstrip('/')}/{key}")
        return listing_event(
            event.listing_id, event.version, LISTED, photo_uris=uris, attributes=attributes
        )


def rendered(seed: int, number: int, photos: int) -> tuple[ListingAttributes, list[bytes]]:
    """Return the attributes and the photos (JPEG) of a listing; numbers begin again after a million."""
    from shashin_catalogue import DEMO_NUMBERS, product, render_photo

    shown = product(seed, number % len(DEMO_NUMBERS))
    attributes = ListingAttributes(
        category=shown.category,
        brand=shown.brand,
        price_minor=shown.price_minor,
        currency=shown.currency,
    )
    return attributes, [render_photo(shown, photo) for photo in range(photos)]


async def serve(scope: ServiceScope[ShopSettings]) -> None:
    """Run the shop until SIGTERM."""
    require_rendering()
    settings = scope.settings
    async with opened_object_store(settings.shop_photos) as store:
        # Not entered: it connects with the first event, which is retried.
        producer = Producer(settings.kafka, client_id="shop")
        await scope.run(Shopkeeper(settings, store, producer).loop())


if __name__ == "__main__":
    run_service("shop", ShopSettings, serve)
