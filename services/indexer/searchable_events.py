"""Counts the events that become searchable, and how long they took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SearchableEvents:
    """Since the start of the process; of events that were not searchable before it."""

    count: int = 0
    seconds: float = 0.0
    """From the event's append to listings.events until it was searchable, summed up."""

    def note(self, seconds: float) -> None:
        """Note an event that is searchable now."""
        self.count += 1
        self.seconds += seconds
