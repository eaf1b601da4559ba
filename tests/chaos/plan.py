"""What is streamed, and what has to be found in the end: a plain dictionary. Pure.

The model is deliberately simple, so that it can be right where the system is not: an event of a
higher version decides alone what becomes of its listing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shashin.client.listing_events import LISTED, REMOVED, SOLD, UPDATED
from shashin.v1 import events_pb2

MOST_PHOTOS = 2


@dataclass(frozen=True)
class PlannedEvent:
    """One event of the stream."""

    listing_id: str
    version: int
    kind: events_pb2.ListingKind.ValueType
    photos: tuple[int, ...] = ()
    """Which of the rendered photos it has."""


@dataclass(frozen=True)
class Wanted:
    """How a listing has to be found."""

    version: int
    photos: int


Model = dict[str, Wanted | None]
"""Listing to how it has to be found; None where no search may find it."""


def stream(*, photos: int, seed: int) -> Iterator[PlannedEvent]:
    """Yield events without end: half list something new, the others change what is there.

    An event repeats now and then, as an app that retries does; versions leave gaps.
    """
    dice = random.Random(seed)
    versions: dict[str, int] = {}
    on_sale: list[str] = []
    gone: list[str] = []
    recent: deque[PlannedEvent] = deque(maxlen=50)
    while True:
        choice = dice.random()
        if recent and choice < 0.03:
            event = dice.choice(recent)
            if versions[event.listing_id] == event.version:
                yield event
            continue
        if choice < 0.55 or not on_sale:
            listing_id, kind = f"chaos-{len(versions):06d}", LISTED
            on_sale.append(listing_id)
        elif choice < 0.72:
            listing_id, kind = dice.choice(on_sale), UPDATED
        elif choice < 0.94 or not gone:
            listing_id = _taken_from(on_sale, dice)
            kind = SOLD if dice.random() < 0.8 else REMOVED
            gone.append(listing_id)
        else:
            listing_id, kind = _taken_from(gone, dice), LISTED
            on_sale.append(listing_id)
        version = versions.get(listing_id, 0) + dice.choice((1, 1, 1, 2, 7))
        versions[listing_id] = version
        shown = kind in {LISTED, UPDATED}
        chosen = dice.sample(range(photos), dice.randint(1, MOST_PHOTOS)) if shown else []
        recent.append(PlannedEvent(listing_id, version, kind, tuple(chosen)))
        yield recent[-1]


def _taken_from(listings: list[str], dice: random.Random) -> str:
    place = dice.randrange(len(listings))
    listings[place], listings[-1] = listings[-1], listings[place]
    return listings.pop()


def model_of(events: Iterable[PlannedEvent]) -> Model:
    """Return how each listing has to be found once all events are processed."""
    newest: dict[str, PlannedEvent] = {}
    for event in events:
        known = newest.get(event.listing_id)
        if known is None or event.version >= known.version:
            newest[event.listing_id] = event
    return {
        listing_id: Wanted(event.version, len(event.photos)) if event.photos else None
        for listing_id, event in newest.items()
    }


def batches_of(events: Iterable[PlannedEvent], at_most: int) -> Iterator[list[PlannedEvent]]:
    """Yield the events in order, in batches in which no listing occurs twice.

    A batch that was not acknowledged is sent again whole, and that must not put an older version
    behind a newer one.
    """
    batch: list[PlannedEvent] = []
    for event in events:
        if len(batch) >= at_most or any(e.listing_id == event.listing_id for e in batch):
            yield batch
            batch = []
        batch.append(event)
    if batch:
        yield batch
