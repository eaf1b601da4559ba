"""The deadline of one call; the remaining time bounds every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_RESERVE_SHARE, _RESERVE_SECONDS = 0.1, 0.05
"""Reserved for merging and sending the response, so that the caller gets it in time."""


@dataclass(frozen=True)
class Deadline:
    """The time by which endpoints must respond."""

    seconds: float
    """Total time of the call."""
    expires_at: float
    clock: Callable[[], float]

    @classmethod
    def within(cls, *bounds: float | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline of the shortest bound, in seconds from now; None means no bound."""
        seconds = min(bound for bound in bounds if bound is not None)
        reserve = min(_RESERVE_SECONDS, _RESERVE_SHARE * max(0.0, seconds))
        return cls(seconds, clock() + seconds - reserve, clock)

    def remaining(self) -> float:
        """Return the remaining seconds; 0 once the deadline has passed."""
        return max(0.0, self.expires_at - self.clock())
