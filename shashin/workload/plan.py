"""The planned stream of events, decided before the first one is sent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from shashin.client.listing_events import LISTED, SOLD, UPDATED
from shashin.v1 import events_pb2

_EARLIEST_CHANGE = 1.0
"""Minimum seconds between a listing and its change, so that the listing is searchable by then."""


@dataclass(frozen=True)
class PlannedEvent:
    """One event of the stream."""

    at: float
    """Seconds after the start of the stream."""
    listing: int
    """Index of the listing."""
    kind: events_pb2.ListingKind.ValueType
    version: int


@dataclass(frozen=True)
class StreamPlan:
    """The whole stream, in chronological order."""

    events: tuple[PlannedEvent, ...]
    sold: frozenset[int]
    updated: frozenset[int]

    @property
    def with_photos(self) -> int:
        """Number of events with photos, which should end up with vectors."""
        return sum(event.kind != SOLD for event in self.events)

    @property
    def seconds(self) -> float:
        """When the last event is due."""
        return self.events[-1].at if self.events else 0.0


def plan_stream(
    photo_counts: Sequence[int],
    *,
    photos_per_second: float,
    sold_share: float,
    updated_share: float,
    seed: int,
) -> StreamPlan:
    """Return a stream with a steady rate of photos.

    A share of the listings is sold during the stream, another share updated; the seed decides
    which ones and when. No listing is both, so every sold one must be hidden at the end.
    """
    rng = random.Random(seed)
    count = len(photo_counts)
    sold_count = round(count * sold_share)
    chosen = rng.sample(range(count), min(count, sold_count + round(count * updated_share)))
    sold, updated = frozenset(chosen[:sold_count]), frozenset(chosen[sold_count:])
    listed_at, now = [], 0.0
    for photos in photo_counts:
        listed_at.append(now)
        now += photos / photos_per_second
    events = [PlannedEvent(at, i, LISTED, 1) for i, at in enumerate(listed_at)]
    for i in sorted(sold | updated):
        latest = max(now, listed_at[i] + 2 * _EARLIEST_CHANGE)
        at = rng.uniform(listed_at[i] + _EARLIEST_CHANGE, latest)
        events.append(PlannedEvent(at, i, SOLD if i in sold else UPDATED, 2))
    return StreamPlan(tuple(sorted(events, key=lambda e: (e.at, e.listing))), sold, updated)


def spread(candidates: Sequence[int], count: int) -> list[int]:
    """Return ``count`` evenly spaced candidates, or all of them."""
    if count >= len(candidates):
        return list(candidates)
    return [candidates[i * len(candidates) // count] for i in range(count)]
