"""The time that one photo may take, without waits that are not its source's fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager


class TimeLimit:
    """The time that all requests for one photo may take together."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._deadline: asyncio.Timeout | None = None

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Count the time in this context; raises TimeoutError when none is left."""
        async with asyncio.timeout(self._left) as self._deadline:
            yield
        self._left = max(0.0, self._ends(self._deadline) - asyncio.get_running_loop().time())

    async def uncounted(self, wait: Awaitable[None]) -> None:
        """Wait for something within ``counted`` without counting the time."""
        assert self._deadline is not None, "not counting"
        clock = asyncio.get_running_loop().time
        left = self._ends(self._deadline) - clock()
        self._deadline.reschedule(None)
        await wait
        self._deadline.reschedule(clock() + left)

    @staticmethod
    def _ends(deadline: asyncio.Timeout) -> float:
        ends = deadline.when()
        assert ends is not None
        return ends
