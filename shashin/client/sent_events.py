"""What became of events that were sent: each is followed by its own version and its own record. Pure.

A listing that can be found does not show that an event was processed, nor does one that cannot be
found: another version of it may be on sale, or may have been sold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shashin.client.topic_tails import HiddenBelow, SeenDeadLetter
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.v1 import events_pb2, search_pb2

_HOW = {
    events_pb2.HIDDEN_REASON_SOLD: "was sold",
    events_pb2.HIDDEN_REASON_REMOVED: "was removed",
}


@dataclass(frozen=True)
class SentEvent:
    """One event, and the position of its record in ``listings.events``."""

    listing_id: str
    version: int
    partition: int
    offset: int


class SentEvents:
    """Events that were sent together, one per listing, with the outcome of each so far."""

    def __init__(self) -> None:
        self.events: dict[str, SentEvent] = {}
        self.outstanding: dict[str, SentEvent] = {}
        """Without an outcome, in the order in which they were sent."""
        self.done: list[str] = []
        """Listings whose event has had its effect."""
        self.dead_lettered: list[SeenDeadLetter] = []
        self.photos_dead_lettered: list[SeenDeadLetter] = []
        """Single photos; their listings are processed without them."""
        self.without_effect: dict[str, str] = {}
        """Why an event that was processed has changed nothing."""
        self._hidden: set[str] = set()

    def add(self, events: Iterable[SentEvent]) -> None:
        """Add events that Kafka has acknowledged."""
        for event in events:
            self.events[event.listing_id] = self.outstanding[event.listing_id] = event

    @property
    def failed(self) -> bool:
        """Whether an event has had no effect, for any reason."""
        return bool(self.dead_lettered or self.without_effect)

    def note_dead_letters(self, dead_letters: Iterable[SeenDeadLetter]) -> None:
        """Note what was dead-lettered, of these events or of others."""
        for dead_letter in dead_letters:
            event = self.events.get(dead_letter.listing_id)
            if event is None or not _is_of(dead_letter, event):
                continue
            if dead_letter.photo_number is not None:
                self.photos_dead_lettered.append(dead_letter)
            elif self.outstanding.pop(event.listing_id, None) is not None:
                self.dead_lettered.append(dead_letter)

    def note_searchable(self, located: Mapping[str, search_pb2.Location]) -> None:
        """Note which listings are searchable; only the version that was sent counts."""
        for listing_id, location in located.items():
            event = self.outstanding.get(listing_id)
            if event is not None and location.version == event.version:
                self._done(listing_id)

    def note_hidden_versions(self, hidden: Mapping[str, HiddenBelow]) -> None:
        """Note hidden versions, for events that make listings searchable.

        An event whose version is hidden can never be found.
        """
        for listing_id, below in hidden.items():
            event = self.outstanding.get(listing_id)
            if event is None or event.version >= below.version:
                continue
            del self.outstanding[listing_id]
            how = _HOW.get(below.reason)
            other = (
                f"version {below.version - 1} of it {how}"
                if how
                else f"version {below.version} of it was searchable before"
            )
            self.without_effect[listing_id] = (
                f"version {event.version} is not searchable: {other}; publish it with a higher "
                "version"
            )

    def note_ended(
        self, hidden: Mapping[str, HiddenBelow], located: Mapping[str, search_pb2.Location]
    ) -> None:
        """Note hidden versions and which listings are searchable, for sales and removals.

        An event has had its effect once its version is hidden and no search finds the listing.
        """
        for listing_id, event in list(self.outstanding.items()):
            if listing_id in hidden and hidden[listing_id].version > event.version:
                self._hidden.add(listing_id)
            if listing_id not in self._hidden:
                continue
            location = located.get(listing_id)
            if location is None:
                self._done(listing_id)
            elif location.version > event.version:
                del self.outstanding[listing_id]
                self.without_effect[listing_id] = (
                    f"version {location.version} is still searchable: it is newer than version "
                    f"{event.version}, which was sent; send a higher one with --version"
                )

    def _done(self, listing_id: str) -> None:
        del self.outstanding[listing_id]
        self.done.append(listing_id)


def _is_of(dead_letter: SeenDeadLetter, event: SentEvent) -> bool:
    if dead_letter.topic == LISTINGS_EVENTS and event.offset >= 0:
        return (dead_letter.partition, dead_letter.offset) == (event.partition, event.offset)
    # A later stage dead-letters its own input, of which only the version is known. So it is if the
    # broker recognised a repeated write whose offset it no longer knew.
    return dead_letter.version == event.version
