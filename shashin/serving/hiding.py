"""Applies records of ``listings.hidden`` to the served shards: sales at once, updates a little later.

The endpoints of one search are not searched at the same moment. If the old version of an updated
listing were hidden at once, a search could reach the live tier before it has the new version, and
an index server after it has lost the old one. So the old version stays visible for longer than a
search may take, and merging keeps the newest version that was found.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from prometheus_client import Counter

from shashin.kafka.records import InRecord
from shashin.runtime.logging import get_logger
from shashin.serving.served_shards import ServedShards
from shashin.v1 import events_pb2

HIDDEN_RECORDS = Counter("shashin_hidden_records", "Records of listings.hidden applied.")
BAD_RECORDS = Counter(
    "shashin_hidden_bad_records", "Invalid records of listings.hidden, which are skipped."
)

log = get_logger(__name__)


class Hiding:
    """Applies records in the order in which they are received."""

    def __init__(
        self,
        served: ServedShards,
        *,
        superseded_after_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._served = served
        self._after_seconds = superseded_after_seconds
        self._clock = clock
        self._later: deque[tuple[float, str, int]] = deque()
        """Due time, listing and version of updates, oldest first."""

    def apply(self, record: InRecord) -> None:
        """Apply a record, or keep it until it is due; an invalid one is skipped and counted."""
        message = events_pb2.HiddenListing()
        try:
            message.ParseFromString(record.value)
        except Exception as error:  # noqa: BLE001
            BAD_RECORDS.inc()
            log.warning("skipping an invalid HiddenListing", record=str(record), error=str(error))
            return
        if not message.listing_id:
            BAD_RECORDS.inc()
            log.warning("skipping a HiddenListing without an id", record=str(record))
            return
        HIDDEN_RECORDS.inc()
        listing_id, below = message.listing_id, message.below_version
        # No search has begun before the map is loaded. A repeat that changes nothing needs no delay.
        if (
            message.reason == events_pb2.HIDDEN_REASON_SUPERSEDED
            and self._served.hidden_loaded
            and below > self._served.hidden.below(listing_id)
        ):
            self._later.append((self._clock() + self._after_seconds, listing_id, below))
            self._served.supersede(listing_id, below)
        else:
            self._served.hide(listing_id, below)

    def apply_due(self) -> None:
        """Apply the updates that are due."""
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            _, listing_id, below = self._later.popleft()
            self._served.hide(listing_id, below)

    def seconds_until_due(self, at_most: float) -> float:
        """Return the seconds until the next update is due: a millisecond to ``at_most``."""
        if not self._later:
            return at_most
        return min(at_most, max(0.001, self._later[0][0] - self._clock()))
