"""The stream of events, and the expected result as a plain dictionary. Pure functions.

The model is deliberately simple, so that it can be right where the system is wrong: the event with
the highest version alone determines the outcome of its listing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shashin.client.listing_events import LISTED, REMOVED, SOLD, UPDATED
from shashin.v1 import events_pb2

MAX_PHOTOS = 2


@dataclass(frozen=True)
class PlannedEvent:
    """One event of the stream."""

    listing_id: str
    version: int
    kind: events_pb2.ListingKind.ValueType
    photos: tuple[int, ...] = ()
    """Which of the rendered photos it has."""


@dataclass(frozen=True)
class Expected:
    """Expected state of a searchable listing."""

    version: int
    photos: int


Model = dict[str, Expected | None]
"""Expected state by listing; None if it must not be searchable."""


def stream(*, photos: int, seed: int) -> Iterator[PlannedEvent]:
    """Yield an endless stream: half of the events are new listings, the others change existing ones.

    Some events repeat, as when an app retries; versions have gaps.
    """
    rng = random.Random(seed)
    versions: dict[str, int] = {}
    on_sale: list[str] = []
    ended: list[str] = []
    recent: deque[PlannedEvent] = deque(maxlen=50)
    while True:
        choice = rng.random()
        if recent and choice < 0.03:
            event = rng.choice(recent)
            if versions[event.listing_id] == event.version:
                yield event
            continue
        if choice < 0.55 or not on_sale:
            listing_id, kind = f"chaos-{len(versions):06d}", LISTED
            on_sale.append(listing_id)
        elif choice < 0.72:
            listing_id, kind = rng.choice(on_sale), UPDATED
        elif choice < 0.94 or not ended:
            listing_id = _pop_random(on_sale, rng)
            kind = SOLD if rng.random() < 0.8 else REMOVED
            ended.append(listing_id)
        else:
            listing_id, kind = _pop_random(ended, rng), LISTED
            on_sale.append(listing_id)
        version = versions.get(listing_id, 0) + rng.choice((1, 1, 1, 2, 7))
        versions[listing_id] = version
        shown = kind in {LISTED, UPDATED}
        chosen = rng.sample(range(photos), rng.randint(1, MAX_PHOTOS)) if shown else []
        recent.append(PlannedEvent(listing_id, version, kind, tuple(chosen)))
        yield recent[-1]


def _pop_random(listings: list[str], rng: random.Random) -> str:
    place = rng.randrange(len(listings))
    listings[place], listings[-1] = listings[-1], listings[place]
    return listings.pop()


def model_of(events: Iterable[PlannedEvent]) -> Model:
    """Return the expected state of each listing once all events are processed."""
    newest: dict[str, PlannedEvent] = {}
    for event in events:
        known = newest.get(event.listing_id)
        if known is None or event.version >= known.version:
            newest[event.listing_id] = event
    return {
        listing_id: Expected(event.version, len(event.photos)) if event.photos else None
        for listing_id, event in newest.items()
    }


def batches_of(events: Iterable[PlannedEvent], at_most: int) -> Iterator[list[PlannedEvent]]:
    """Yield the events in order, in batches in which no listing occurs twice.

    A batch that was not acknowledged is resent as a whole, which must not put an older version after
    a newer one.
    """
    batch: list[PlannedEvent] = []
    for event in events:
        if len(batch) >= at_most or any(e.listing_id == event.listing_id for e in batch):
            yield batch
            batch = []
        batch.append(event)
    if batch:
        yield batch
