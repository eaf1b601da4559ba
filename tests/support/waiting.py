"""Waiting for a state instead of sleeping; the limit only ends tests that would hang."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def until(probe: Callable[[], Any], what: str, *, limit_seconds: float = 60.0) -> Any:
    """Ask again and again until the answer, awaited where it can be, is true; returns it."""
    deadline = time.monotonic() + limit_seconds
    while True:
        answer = probe()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {limit_seconds:.0f} s: {what}")
        await asyncio.sleep(0.02)
