"""Listings that come, change and go while everything else happens, and what must be found of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shashin.client.listing_events import LISTED, SOLD, UPDATED, listing_event, record_of
from shashin.client.router import RouterClient, embed
from shashin.kafka.producer import Producer
from shashin.v1 import events_pb2
from tests.on_kubernetes.host import HostServices
from tests.support.rendered_listings import RenderedListing, rendered

STABLE = 20
_POOL = 30
_PAUSE_SECONDS = 0.15


@dataclass
class Traffic:
    """Events of an app."""

    host: HostServices
    producer: Producer
    expected: dict[str, int | None] = field(default_factory=dict)
    """The version of each listing that must be found; None: it was sold."""
    _pool: Sequence[RenderedListing] = ()
    _uris: Mapping[str, str] = field(default_factory=dict)

    async def prepare(self) -> dict[str, npt.NDArray[np.float32]]:
        """Publish listings that stay; returns their vectors."""
        self._pool = await asyncio.to_thread(
            lambda: [rendered(number) for number in range(STABLE + _POOL)]
        )
        photos = {listing.listing_id: listing.photos[0] for listing in self._pool}
        self._uris = await self.host.put_photos(photos)
        stable = self._pool[:STABLE]
        for listing in stable:
            await self._send(listing, f"stable-{listing.listing_id}", 1, LISTED)
        vectors = await embed(self.host.embedder, [one.photos[0] for one in stable])
        return {
            f"stable-{one.listing_id}": vector for one, vector in zip(stable, vectors, strict=True)
        }

    async def run(self) -> None:
        """Send events until cancelled."""
        chance = random.Random(1)
        number = 0
        while True:
            known = [i for i, version in self.expected.items() if version and i.startswith("new-")]
            listing = chance.choice(self._pool[STABLE:])
            if known and chance.random() < 0.3:
                listing_id = chance.choice(known)
                kind = SOLD if chance.random() < 0.7 else UPDATED
                version = (self.expected[listing_id] or 0) + 1
            else:
                number += 1
                listing_id, kind, version = f"new-{number:05d}", LISTED, 1
            # An event that was sent is expected, even if this is cancelled meanwhile.
            await asyncio.shield(self._send(listing, listing_id, version, kind))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _send(
        self,
        listing: RenderedListing,
        listing_id: str,
        version: int,
        kind: events_pb2.ListingKind.ValueType,
    ) -> None:
        uris = [] if kind == SOLD else [self._uris[listing.listing_id]]
        self.expected[listing_id] = None if kind == SOLD else version
        event = listing_event(
            listing_id, version, kind, photo_uris=uris, attributes=listing.attributes
        )
        await self.producer.send_all([record_of(event)])

    async def wrong(self, router: RouterClient) -> list[str]:
        """Return what is not found as it should be."""
        located = await router.locate(sorted(self.expected))
        found = {i: located[i].version if i in located else None for i in self.expected}
        return [
            f"{listing_id}: version {found[listing_id]}, expected {version}"
            for listing_id, version in self.expected.items()
            if found[listing_id] != version
        ]
