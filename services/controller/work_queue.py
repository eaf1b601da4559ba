"""Which objects are to be looked at, and when. Pure.

Times are seconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from shashin.kube.resource import Key
from shashin.runtime.backoff import backoff_seconds

LONGEST_BACKOFF_SECONDS = 60.0


class WorkQueue:
    """Keys with the time from which each is due; a key is in it at most once."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._backoffs: dict[Key, Iterator[float]] = {}

    def add(self, keys: Collection[Key], now: float) -> None:
        """Make keys due at once, also those that have just failed: what was wrong may have changed."""
        for key in keys:
            self._due[key] = min(now, self._due.get(key, now))

    def take(self, now: float) -> Key | None:
        """Remove and return the key that has been due for the longest; None if none is due."""
        key = min(self._due, key=lambda one: (self._due[one], one), default=None)
        if key is None or self._due[key] > now:
            return None
        del self._due[key]
        return key

    def succeeded(self, key: Key, now: float, again_after: float | None = None) -> None:
        """Note that a key that was taken needs no more work, or none for ``again_after`` seconds."""
        self._backoffs.pop(key, None)
        if again_after is not None:
            self._schedule(key, now + again_after)

    def failed(self, key: Key, now: float, at_least: float = 0.0) -> None:
        """Make a key that was taken due again after its backoff, or ``at_least`` so many seconds."""
        backoff = self._backoffs.setdefault(key, backoff_seconds(longest=LONGEST_BACKOFF_SECONDS))
        self._schedule(key, now + max(next(backoff), at_least))

    def seconds_to_next(self, now: float) -> float | None:
        """Return how long until a key is due; None if there is none."""
        next_at = min(self._due.values(), default=None)
        return None if next_at is None else max(0.0, next_at - now)

    def _schedule(self, key: Key, at: float) -> None:
        # It may have been added while it was worked on.
        self._due[key] = min(at, self._due.get(key, at))
