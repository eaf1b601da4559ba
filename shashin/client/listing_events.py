"""Listing events as the app backend would send them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shashin.codecs.listing_rules import listing_id_problem
from shashin.errors import UserError
from shashin.kafka.producer import Acknowledged, OutRecord, Producer
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.v1 import events_pb2

LISTED = events_pb2.LISTING_KIND_LISTED
UPDATED = events_pb2.LISTING_KIND_UPDATED
SOLD = events_pb2.LISTING_KIND_SOLD
REMOVED = events_pb2.LISTING_KIND_REMOVED


@dataclass(frozen=True)
class ListingAttributes:
    """Attributes that a search can filter on."""

    category: str = ""
    brand: str = ""
    price_minor: int = 0
    """Minor units of the currency."""
    currency: str = ""
    """ISO 4217; empty when there is no price."""
    listed_at: int | None = None
    """Unix seconds."""


def version_now() -> int:
    """Return a version for an event that happens now: Unix milliseconds.

    A listing's versions have to increase from event to event; with the clock, no state is needed.
    """
    return time.time_ns() // 1_000_000


def listing_event(
    listing_id: str,
    version: int,
    kind: events_pb2.ListingKind.ValueType,
    *,
    photo_uris: Sequence[str] = (),
    attributes: ListingAttributes | None = None,
) -> events_pb2.ListingEvent:
    """Return the event, with the current time."""
    event = events_pb2.ListingEvent(
        listing_id=listing_id, version=version, kind=kind, photo_uris=photo_uris
    )
    event.occurred_at.GetCurrentTime()
    if attributes is not None:
        event.attributes.category = attributes.category
        event.attributes.brand = attributes.brand
        event.attributes.price_minor = attributes.price_minor
        event.attributes.currency = attributes.currency
        event.attributes.listed_at.seconds = (
            event.occurred_at.seconds if attributes.listed_at is None else attributes.listed_at
        )
    return event


def record_of(event: events_pb2.ListingEvent) -> OutRecord:
    """Return the event's record for ``listings.events``."""
    return OutRecord(LISTINGS_EVENTS, event.listing_id.encode(), event.SerializeToString())


async def send_events(
    producer: Producer, events: Iterable[events_pb2.ListingEvent]
) -> list[Acknowledged]:
    """Send the events, wait until Kafka has acknowledged them, and return where each is."""
    return await producer.send_all(record_of(event) for event in events)


def check_listing_id(listing_id: str) -> None:
    """Check a listing id typed by a user.

    Raises:
        UserError: if no listing can have it.
    """
    try:
        problem = listing_id_problem(listing_id)
    except UnicodeEncodeError:
        problem = "bytes that are not UTF-8 text"
    if problem is not None:
        raise UserError(f"{listing_id!r} is not a listing id: it has {problem}")
