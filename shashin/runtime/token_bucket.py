"""A limit on how often something may happen: so many times a second, and a burst after a pause."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Holds up to ``burst`` tokens, full at first, and gets ``per_second`` of them every second."""

    def __init__(
        self, per_second: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clock = clock
        self._tokens = burst
        self._at = clock()

    def take(self) -> bool:
        """Take one token; returns False, and takes nothing, if there is none."""
        now = self._clock()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def seconds_to_next(self) -> float:
        """Return the seconds until there is a token; 0 if there is one now."""
        missing = 1 - self._tokens - (self._clock() - self._at) * self.per_second
        return max(0.0, missing / self.per_second)
