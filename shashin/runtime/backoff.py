"""Jittered exponential backoff, and how long one operation is retried."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator


def backoff_seconds(*, first: float = 0.1, longest: float = 10.0) -> Iterator[float]:
    """Yield waits that double up to ``longest`` seconds, each jittered down to as little as half."""
    wait = min(first, longest)
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(wait * 2, longest)


class Patience:
    """Bounds the retries of one operation: jittered pauses, until ``seconds`` without progress."""

    def __init__(self, seconds: float, *, longest_pause: float) -> None:
        self._seconds = seconds
        self._longest_pause = longest_pause
        self.progress()

    def progress(self) -> None:
        """Record progress: the time for retries starts again."""
        self._until = time.monotonic() + self._seconds
        self._pauses = backoff_seconds(longest=self._longest_pause)

    async def pause(self, failure: Exception) -> None:
        """Wait before the next attempt, or raise ``failure`` if there has to be none."""
        pause = next(self._pauses)
        if time.monotonic() + pause > self._until:
            raise failure
        await asyncio.sleep(pause)
