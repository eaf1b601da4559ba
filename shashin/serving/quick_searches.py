"""Whether a search is so short that an event loop may stand still for it. Pure.

The way to a thread and back costs about as much as such a search.
"""

from __future__ import annotations

from collections import deque

LONGEST_SECONDS = 0.001
"""For how long an event loop may stand still for a search."""

RECENT = 16
LONGER = 3
"""Of so many searches in a row, at most so many may be longer: now and then, one is interrupted."""


class QuickSearches:
    """What is known of searches of one vector without a filter, over the shards that are served."""

    def __init__(self) -> None:
        self._shards: object = None
        self._recent: deque[float] = deque(maxlen=RECENT)

    def observe(self, shards: object, seconds: float) -> None:
        """Note how long a search over these shards took: over others, it may take longer."""
        if shards is not self._shards:
            self._shards = shards
            self._recent.clear()
        self._recent.append(seconds)

    def expected(self, shards: object) -> bool:
        """Whether the next search over these shards will be short."""
        known = shards is self._shards and len(self._recent) == RECENT
        return known and sorted(self._recent)[-1 - LONGER] <= LONGEST_SECONDS
