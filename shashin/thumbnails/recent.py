"""The photo hashes that were seen most recently, a bounded number of them. Pure."""

from __future__ import annotations

from collections import OrderedDict

RECENT_HASHES = 50_000
"""About 7 MB."""


class RecentHashes:
    """A set that forgets what was added or looked up longest ago."""

    def __init__(self, limit: int = RECENT_HASHES) -> None:
        self._limit = limit
        self._hashes: OrderedDict[str, None] = OrderedDict()

    def add(self, photo_hash: str) -> None:
        """Remember a hash."""
        self._hashes[photo_hash] = None
        self._hashes.move_to_end(photo_hash)
        if len(self._hashes) > self._limit:
            self._hashes.popitem(last=False)

    def __contains__(self, photo_hash: str) -> bool:
        if photo_hash not in self._hashes:
            return False
        self._hashes.move_to_end(photo_hash)
        return True

    def __len__(self) -> int:
        return len(self._hashes)
