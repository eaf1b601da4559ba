"""Admits decodes by the memory that they take: a budget in bytes that threads share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from shashin.errors import PhotoTooLarge


class DecodeBudget:
    """Bytes that all decodes under way may take together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._taken = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """The number of decodes that wait for memory."""
        return len(self._queue)

    @contextmanager
    def reserve(self, wanted: int) -> Iterator[None]:
        """Take ``wanted`` bytes while the context is open; waits for them, first come first served.

        Raises:
            PhotoTooLarge: when the whole budget is smaller.
        """
        if wanted > self._limit:
            raise PhotoTooLarge(
                f"decoding the photo takes {wanted / 1e6:.0f} MB of memory; at most "
                f"{self._limit / 1e6:.0f} MB are allowed: send a smaller one, 256 pixels on the "
                "short side is enough"
            )
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            # In order, so that small photos do not keep a large one waiting for ever.
            self._changed.wait_for(
                lambda: self._queue[0] is ticket and self._taken + wanted <= self._limit
            )
            self._queue.popleft()
            self._taken += wanted
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()
