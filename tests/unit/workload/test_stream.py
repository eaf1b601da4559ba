"""Streaming a plan: what is sampled for freshness, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from shashin.client.listing_events import LISTED, SOLD, ListingAttributes
from shashin.client.router import RouterClient
from shashin.kafka.producer import Producer
from shashin.v1 import search_pb2
from shashin.workload.listings import DemoListing
from shashin.workload.plan import PlannedEvent, StreamPlan
from shashin.workload.stream import Streamer
from tests.unit.indexer.sent_records import SentRecords


class SlowRouter:
    """Finds a listing only once the stream has sent so many events."""

    def __init__(self, sent: SentRecords, *, finds_after: int) -> None:
        self._sent = sent
        self._finds_after = finds_after

    async def search(self, **_query: Any) -> search_pb2.SearchResponse:
        found = self._finds_after <= len(self._sent.records)
        return search_pb2.SearchResponse(hits=[search_pb2.Hit(listing_id="lamp")] if found else [])


def streamer(*events: PlannedEvent, finds_after: int) -> Streamer:
    sent = SentRecords()
    sold = frozenset(event.listing for event in events if event.kind == SOLD)
    return Streamer(
        [DemoListing("lamp", (Path("/photos/lamp.jpg"),), ListingAttributes(), None)],
        StreamPlan(events, sold, frozenset()),
        cast("Producer", sent),
        cast("RouterClient", SlowRouter(sent, finds_after=finds_after)),
        {0: np.ones(4, dtype=np.float32)},
    )


async def test_a_listing_that_is_found_is_a_sample_of_freshness() -> None:
    stream = streamer(PlannedEvent(0.0, 0, LISTED, 1), finds_after=1)
    await stream.run()
    assert (len(stream.freshness.found), stream.freshness.missed) == (1, [])


async def test_a_listing_that_is_sold_before_it_was_found_is_no_sample_and_no_miss() -> None:
    listed, sold = PlannedEvent(0.0, 0, LISTED, 1), PlannedEvent(0.05, 0, SOLD, 2)
    stream = streamer(listed, sold, finds_after=99)
    await stream.run()
    assert (stream.freshness.found, stream.freshness.missed) == ([], [])
    assert len(stream.freshness.gone) == 1
