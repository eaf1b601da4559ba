"""Nothing is dropped silently: events in = searchable + hidden + dead-lettered. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from shashin.client.topic_tails import SeenDeadLetter
from shashin.kafka.records import InRecord
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.v1 import events_pb2

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class EventIn:
    """One record of ``listings.events``."""

    partition: int
    offset: int
    listing_id: str
    version: int
    """0 if the record cannot be parsed."""
    photos: int

    def __str__(self) -> str:
        return f"{self.listing_id or '(no id)'} version {self.version}"


@dataclass(frozen=True)
class Found:
    """What the router finds of a listing."""

    version: int
    photos: int


@dataclass
class Balance:
    """Outcomes of all events; each event is counted once."""

    events_in: int = 0
    searchable: int = 0
    hidden: int = 0
    dead_lettered: int = 0
    photos_searchable: int = 0
    photos_dead_lettered: int = 0
    """Single photos of listings whose other photos are searchable."""
    problems: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The balance in one line."""
        sides = (self.searchable, self.hidden, self.dead_lettered)
        sign = "=" if self.events_in == sum(sides) else "≠"
        return (
            f"{self.events_in:,} events in {sign} {self.searchable:,} searchable + "
            f"{self.hidden:,} hidden + {self.dead_lettered:,} dead-lettered"
        )


def event_in(record: InRecord) -> EventIn:
    """Parse a record of ``listings.events``."""
    try:
        event = events_pb2.ListingEvent.FromString(record.value)
    except DecodeError:
        return EventIn(
            record.partition, record.offset, (record.key or b"").decode(errors="replace"), 0, 0
        )
    return EventIn(
        record.partition, record.offset, event.listing_id, event.version, len(event.photo_uris)
    )


def balance_of(
    events: Iterable[EventIn],
    dead_lettered: Collection[SeenDeadLetter],
    below: Mapping[str, int],
    found: Mapping[str, Found],
) -> Balance:
    """Return the outcome of all events; an event without an outcome is a problem.

    ``below`` is each listing's lowest visible version, ``found`` what the router finds. A listing
    found in a version that should be hidden is a problem as well, and so is a photo that is
    neither searchable nor a dead letter.
    """
    records = [dead_letter for dead_letter in dead_lettered if dead_letter.photo_number is None]
    by_offset = {(r.partition, r.offset) for r in records if r.topic == LISTINGS_EVENTS}
    by_version = {(r.listing_id, r.version) for r in records if r.topic != LISTINGS_EVENTS}
    photos_dead_lettered: dict[tuple[str, int], set[int]] = {}
    for dead_letter in dead_lettered:
        if dead_letter.photo_number is not None:
            photos_dead_lettered.setdefault(
                (dead_letter.listing_id, dead_letter.version), set()
            ).add(dead_letter.photo_number)
    balance = Balance()
    unaccounted = []
    for event in events:
        identity = (event.listing_id, event.version)
        balance.events_in += 1
        location = found.get(event.listing_id)
        if (event.partition, event.offset) in by_offset or identity in by_version:
            balance.dead_lettered += 1
        elif event.version < below.get(event.listing_id, 0):
            balance.hidden += 1
            if location is not None and location.version == event.version:
                balance.problems.append(f"{event} is hidden, but a search can still find it")
        elif location is not None and location.version == event.version:
            balance.searchable += 1
            lost = len(photos_dead_lettered.get(identity, ()))
            balance.photos_searchable += location.photos
            balance.photos_dead_lettered += lost
            if location.photos + lost != event.photos:
                balance.problems.append(
                    f"{event} has {event.photos} photos, of which {location.photos} are "
                    f"searchable and {lost} dead-lettered"
                )
        else:
            unaccounted.append(str(event))
    if unaccounted:
        more = f" and {len(unaccounted) - _NAMED_AT_MOST} more" * (
            len(unaccounted) > _NAMED_AT_MOST
        )
        balance.problems.append(
            f"{len(unaccounted)} events are neither searchable, hidden nor dead-lettered: "
            f"{', '.join(unaccounted[:_NAMED_AT_MOST])}{more}"
        )
    return balance
