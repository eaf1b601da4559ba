"""The visibility rule as a dictionary in memory: what all else is compared with."""

from __future__ import annotations


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
