"""Bounds the memory of originals: a budget in bytes that the photos of one event loop share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from shashin.errors import PhotoTooLarge


class ByteBudget:
    """Bytes that all originals in memory may take together; granted first come, first served."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._taken = 0
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def taken(self) -> int:
        """The bytes that are held now."""
        return self._taken

    @property
    def waiting(self) -> int:
        """The number of photos that wait for memory."""
        return len(self._queue)

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Return one photo's share, empty at first; it is given back when the context exits."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.shrink(0)

    async def take(self, wanted: int) -> None:
        """Take bytes, once there is room for them.

        Raises:
            PhotoTooLarge: when the whole budget is smaller.
        """
        if wanted > self._limit:
            raise PhotoTooLarge(
                f"the photo has {wanted} bytes; all photos in memory may have {self._limit}: raise "
                "SHASHIN_ORIGINAL_BYTES, or send a smaller one"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((turn, wanted))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue = deque(entry for entry in self._queue if entry[0] is not turn)
                self._admit()
            else:  # granted just before
                self.give_back(wanted)
            raise

    def give_back(self, size: int) -> None:
        """Return bytes."""
        self._taken -= size
        self._admit()

    def _admit(self) -> None:
        # In order, so that small photos do not keep a large one waiting for ever.
        while self._queue and self._taken + self._queue[0][1] <= self._limit:
            turn, wanted = self._queue.popleft()
            if not turn.cancelled():
                self._taken += wanted
                turn.set_result(None)


class Lease:
    """One photo's share of a budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    async def hold(self, size: int) -> None:
        """Hold this many bytes instead of those held so far; waits until there is room.

        What was held is given back first: a photo that waits holds nothing, so that all of them
        together cannot wait for each other.
        """
        self.shrink(0)
        await self._budget.take(size)
        self._held = size

    def shrink(self, size: int) -> None:
        """Give back all but ``size`` bytes."""
        surplus = max(0, self._held - size)
        self._held -= surplus
        if surplus:
            self._budget.give_back(surplus)
