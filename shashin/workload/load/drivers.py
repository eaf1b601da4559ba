"""What a load sends: new listings, sales and queries. Each call is one request."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shashin.client.listing_events import LISTED, SOLD, listing_event, record_of
from shashin.client.router import RouterClient
from shashin.kafka.producer import Producer
from shashin.workload.load.recorder import OK
from shashin.workload.load.stock import StockListing

EVENTS, SALES, QUERIES = "events", "sales", "queries"
NOTHING_TO_SELL = "nothing_to_sell"
INCOMPLETE = "incomplete"

_SEND_AT_ONCE = 100


class Listings:
    """The listings of one run: publishes new ones and sells them, the oldest first."""

    def __init__(self, run: str, stock: Sequence[StockListing], producer: Producer) -> None:
        self._prefix = f"load-{run}-"
        self._stock = stock
        self._producer = producer
        self._numbers = itertools.count()
        self._on_sale: deque[str] = deque()
        self.staying: list[str] = []
        """Listings that are on sale for the whole run."""

    async def publish(self) -> str:
        """Publish a listing and wait until Kafka has it; returns the outcome.

        Raises:
            KafkaUnavailable: if it was not acknowledged; the listing may be on sale nevertheless.
        """
        self._on_sale.append(await self._publish())
        return OK

    async def publish_staying(self, count: int) -> None:
        """Publish listings that are not sold before the run ends."""
        for _ in range(count):
            self.staying.append(await self._publish())

    async def sell(self) -> str:
        """Sell the oldest listing that is on sale; returns the outcome.

        Raises:
            KafkaUnavailable: if the sale was not acknowledged; it is sold again when all are.
        """
        if not self._on_sale:
            return NOTHING_TO_SELL
        listing_id = self._on_sale.popleft()
        try:
            await self._sell([listing_id])
        except BaseException:
            self._on_sale.append(listing_id)
            raise
        return OK

    async def sell_all(self) -> int:
        """Sell every listing that may still be on sale; returns how many."""
        ids = [*self.staying, *self._on_sale]
        for start in range(0, len(ids), _SEND_AT_ONCE):
            await self._sell(ids[start : start + _SEND_AT_ONCE])
        self.staying.clear()
        self._on_sale.clear()
        return len(ids)

    async def _publish(self) -> str:
        number = next(self._numbers)
        shown = self._stock[number % len(self._stock)]
        listing_id = f"{self._prefix}{number:06d}"
        event = listing_event(
            listing_id, 1, LISTED, photo_uris=shown.uris, attributes=shown.attributes
        )
        try:
            await self._producer.send_all([record_of(event)])
        except BaseException:
            self._on_sale.append(listing_id)
            raise
        return listing_id

    async def _sell(self, ids: Sequence[str]) -> None:
        await self._producer.send_all(
            record_of(listing_event(listing_id, 2, SOLD)) for listing_id in ids
        )


class Queries:
    """Searches by photos, vectors or listings in turn; at least one of the three is given."""

    def __init__(
        self,
        router: RouterClient,
        *,
        photos: Sequence[bytes] = (),
        vectors: Sequence[npt.NDArray[np.float32]] = (),
        listing_ids: Sequence[str] = (),
        k: int = 10,
        seed: int = 0,
    ) -> None:
        self._router = router
        queries: list[dict[str, Any]] = [
            *({"photo": photo} for photo in photos),
            *({"vector": vector} for vector in vectors),
            *({"listing_id": listing_id} for listing_id in listing_ids),
        ]
        random.Random(seed).shuffle(queries)
        self._queries = itertools.cycle(queries)
        self._k = k

    async def search(self) -> str:
        """Search once; returns the outcome.

        Raises:
            ShashinError: if there was no answer.
        """
        answer = await self._router.search(**next(self._queries), k=self._k)
        return OK if answer.coverage.complete else INCOMPLETE
