"""Reading the outcome of every event from Kafka and the router."""

from __future__ import annotations

from collections.abc import Mapping

from shashin.client.router import RouterClient
from shashin.client.topic_tails import SeenDeadLetter, TopicTail, hidden_below, new_dead_letters
from shashin.codecs.limits import MAX_LISTING_ID_BYTES
from shashin.kafka.topics import LISTINGS_EVENTS, LISTINGS_HIDDEN
from shashin.workload.balance import Balance, EventIn, Found, balance_of, event_in


class Ledger:
    """Every event of ``listings.events``, and its outcome as of the last look."""

    def __init__(self, tails: Mapping[str, TopicTail], router: RouterClient) -> None:
        self._tails = tails
        self._router = router
        self._events: list[EventIn] = []
        self._below: dict[str, int] = {}
        self.dead_lettered: list[SeenDeadLetter] = []

    async def look(self) -> Balance:
        """Read new records, look up every listing in the router, and return the balance.

        Raises:
            ShashinError: if Kafka or the router does not respond.
        """
        self._events += [
            event_in(record) for record in await self._tails[LISTINGS_EVENTS].new_records()
        ]
        self.dead_lettered += await new_dead_letters(self._tails)
        for listing_id, below in hidden_below(
            await self._tails[LISTINGS_HIDDEN].new_records()
        ).items():
            self._below[listing_id] = max(below.version, self._below.get(listing_id, 0))
        # An invalid event may have an id that the router would reject.
        ids = {
            e.listing_id
            for e in self._events
            if 1 <= len(e.listing_id.encode()) <= MAX_LISTING_ID_BYTES
        }
        found = {
            listing_id: Found(location.version, len(location.photo_numbers))
            for listing_id, location in (await self._router.locate(sorted(ids))).items()
        }
        return balance_of(self._events, self.dead_lettered, self._below, found)
