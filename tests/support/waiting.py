"""Waiting for a condition instead of sleeping; the limit only ends hanging tests."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def until(
    probe: Callable[[], Any],
    what: str,
    *,
    limit_seconds: float = 60.0,
    every_seconds: float = 0.02,
) -> Any:
    """Poll until the result, awaited if necessary, is truthy; returns it."""
    deadline = time.monotonic() + limit_seconds
    while True:
        answer = probe()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {limit_seconds:.0f} s waiting until {what}")
        await asyncio.sleep(every_seconds)


async def until_in_cluster(probe: Callable[[], Any], what: str) -> Any:
    """Poll a cluster, which may have images to pull, without taking its time for answers."""
    return await until(probe, what, limit_seconds=300.0, every_seconds=0.2)
