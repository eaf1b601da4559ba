"""The visibility rule: a row of version v is visible if and only if v >= hidden[listing id].

shashin.serving.hidden_follower follows ``listings.hidden``, and shashin.serving.served_shards applies
its records to the rows of every shard. What was hidden before a row is added is in a store, of which
this module has the one in memory; an indexer has it on disk.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class HiddenEntry(NamedTuple):
    """One record of ``listings.hidden``."""

    listing_id: str
    below_version: int
    """Rows of lower versions are hidden."""
    partition: int = 0
    offset: int = 0


class Visibility(Protocol):
    """Decides whether rows are visible when they are added."""

    def visible(self, listing_id: str, version: int) -> bool:
        """Whether a row of this version is visible."""
        ...


class HiddenMap:
    """The lowest visible version per listing; it only increases, so order and repeats do not matter."""

    def __init__(self) -> None:
        self._below: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._below)

    def entries(self) -> list[tuple[str, int]]:
        """Return every listing with its lowest visible version; safe with a concurrent writer."""
        return list(self._below.items())

    def below(self, listing_id: str) -> int:
        """Return the version below which rows of the listing are hidden; 0 hides none."""
        return self._below.get(listing_id, 0)

    def raise_to(self, listing_id: str, below_version: int) -> bool:
        """Hide lower versions; returns whether this changed anything."""
        if below_version <= self._below.get(listing_id, 0):
            return False
        self._below[listing_id] = below_version
        return True

    def visible(self, listing_id: str, version: int) -> bool:
        """Whether a row of this version is visible."""
        return version >= self._below.get(listing_id, 0)
