"""The deadline of one call: what is left of it bounds every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_RESERVE_SHARE, _RESERVE_SECONDS = 0.1, 0.05
"""Kept back for merging and for the way home: an answer that comes late is no answer."""


@dataclass(frozen=True)
class Deadline:
    """When the endpoints have to have answered."""

    seconds: float
    """The whole time of the call."""
    ends: float
    clock: Callable[[], float]

    @classmethod
    def within(cls, *bounds: float | None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """Return the deadline of the shortest of the bounds, in seconds from now; None is no bound."""
        seconds = min(bound for bound in bounds if bound is not None)
        reserve = min(_RESERVE_SECONDS, _RESERVE_SHARE * max(0.0, seconds))
        return cls(seconds, clock() + seconds - reserve, clock)

    def left(self) -> float:
        """Return the seconds that are left; 0 when it has passed."""
        return max(0.0, self.ends - self.clock())
