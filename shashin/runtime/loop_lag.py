"""Observes how responsive the event loop is: how much later than asked for its timers fire.

Whatever holds the loop, a long computation or too many short ones, delays every call and every loop of the
process by as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from shashin.metrics import process as metrics

_EVERY_SECONDS = 0.5


@contextmanager
def loop_lag_observed() -> Iterator[None]:
    """Sample the running loop's lag twice a second while the context is open."""
    watch = _Watch(asyncio.get_running_loop())
    try:
        yield
    finally:
        watch.stop()


class _Watch:
    """One timer at a time: it costs the loop a few microseconds per sample."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._schedule()

    def _schedule(self) -> None:
        self._due = self._loop.time() + _EVERY_SECONDS
        self._timer = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        metrics.LOOP_LAG_SECONDS.observe(max(0.0, self._loop.time() - self._due))
        self._schedule()

    def stop(self) -> None:
        """Take no further sample."""
        self._timer.cancel()
