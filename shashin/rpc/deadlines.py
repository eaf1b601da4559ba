"""Deadlines of calls, with one timer of the event loop for all of them.

Almost every call ends before its deadline, so a timer of its own would be made and cancelled for nothing, at each
end of each call.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

_EARLY_SECONDS = 0.001
"""Timers may be so early, and what is due by then is late: clocks of event loops count milliseconds."""
_GONE = 64
"""So many that were discarded may be in the queue beside as many as are left."""


class Deadlines:
    """What to do when deadlines pass; used on one event loop."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._late: dict[int, Callable[[], object]] = {}
        """By number."""
        self._queue: list[tuple[float, int]] = []
        """A heap of deadlines with their numbers, also of some that were discarded."""
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = math.inf

    def __len__(self) -> int:
        return len(self._late)

    def add(self, at: float, late: Callable[[], object]) -> int:
        """Call ``late`` at a time by the loop's clock; returns the number to discard this by."""
        number = next(self._numbers)
        self._late[number] = late
        heappush(self._queue, (at, number))
        if at < self._looks_at:
            self._look_at(at)
        return number

    def discard(self, number: int) -> None:
        """Forget a deadline, which may have passed."""
        self._late.pop(number, None)
        if len(self._queue) > 2 * len(self._late) + _GONE:
            self._queue = [one for one in self._queue if one[1] in self._late]
            heapify(self._queue)

    def _look_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._look)

    def _look(self) -> None:
        self._timer, self._looks_at = None, math.inf
        due = asyncio.get_running_loop().time() + _EARLY_SECONDS
        try:
            while self._queue and (self._queue[0][0] <= due or self._queue[0][1] not in self._late):
                _, number = heappop(self._queue)
                late = self._late.pop(number, None)
                if late is not None:
                    late()
        finally:
            if self._queue and self._queue[0][0] < self._looks_at:
                self._look_at(self._queue[0][0])
