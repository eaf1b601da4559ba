"""How much work may be in progress at once, so that what is admitted is answered in time. Pure.

For what the router waits for: endpoints that get more queries than they can answer take longer for each of
them. So the limit is adapted to what answers take (additive increase, multiplicative decrease): it shrinks
while more than a quarter of them are late, and grows while they are not. Late is more than the target, and
more than three times what such a query takes with no more in progress than is always admitted: queries that
are slow by themselves, or because an endpoint hangs, do not take less time if fewer of them are admitted, and
refusing some would help nobody.
"""

from __future__ import annotations

import math

_WINDOW_SECONDS = 0.1
_LATE_SHARE = 0.25
_LATE_FACTOR = 3.0
_DECREASE = 0.8
_SMOOTHING = 0.1
"""Weight of a new duration in that of queries without others."""
_MAX_WINDOWS = 64
"""Windows without any query that count: by then the limit is back at its maximum."""


class ConcurrencyLimit:
    """The work in progress, in units of a query by one vector, and its limit."""

    def __init__(
        self,
        *,
        at_least: float,
        at_most: float,
        target_seconds: float,
    ) -> None:
        self._at_least, self._at_most = at_least, max(at_least, at_most)
        self._target = target_seconds
        self.limit = self._at_most
        self.in_progress = 0.0
        self._alone: dict[str, float] = {}
        """By kind of query, what one takes with no more in progress than always may be."""
        self._ends_at = 0.0
        """Of the window, by the caller's monotonic clock."""
        self._answered = self._late = 0
        self._peak = 0.0
        """Most work that was in progress at once in this window."""

    def fits(self, cost: float, *, besides: float = 0.0) -> bool:
        """Whether so much work may begin now. Whatever it costs, it may if there is no other.

        ``besides`` is the work of calls that have arrived, at least, whether it is in progress or not.
        """
        present = max(self.in_progress, besides)
        return not present or present + cost <= self.limit

    def begin(self, cost: float, now: float) -> bool:
        """Count work as in progress; returns whether no more is than always may be, for ``end``."""
        if now >= self._ends_at:
            self._turn(now)
        self.in_progress += cost
        self._peak = max(self._peak, self.in_progress)
        return self.in_progress <= max(cost, self._at_least)

    def end(
        self, cost: float, kind: str, seconds: float | None, now: float, *, alone: bool
    ) -> None:
        """Count work as done; ``seconds`` is how long it took, None if that says nothing."""
        self.in_progress = max(0.0, self.in_progress - cost)
        if seconds is not None:
            self._answered += 1
            known = self._alone.get(kind)
            self._late += seconds > max(self._target, _LATE_FACTOR * (known or 0.0))
            if alone:
                before = seconds if known is None else known
                self._alone[kind] = before + _SMOOTHING * (seconds - before)
        if now >= self._ends_at:
            self._turn(now)

    def _turn(self, now: float) -> None:
        """Adapt the limit at the end of a window."""
        windows = 1 + int((now - self._ends_at) / _WINDOW_SECONDS)
        if self._answered and self._late > _LATE_SHARE * self._answered:
            # Of what there was: a limit that was never reached says nothing.
            used = min(self.limit, self._peak)
            self.limit = max(self._at_least, _DECREASE * used)
        else:
            for _ in range(min(windows, _MAX_WINDOWS)):
                self.limit = min(self._at_most, self.limit + math.sqrt(self.limit))
        self._answered = self._late = 0
        self._peak = self.in_progress
        self._ends_at = now + _WINDOW_SECONDS
