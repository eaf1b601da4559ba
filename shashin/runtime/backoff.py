"""Waits between attempts: jittered and exponential."""

from __future__ import annotations

import random
from collections.abc import Iterator


def backoff_seconds(*, first: float = 0.1, longest: float = 10.0) -> Iterator[float]:
    """Yield waits that double up to ``longest`` seconds, each between half and the whole of it."""
    wait = min(first, longest)
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(wait * 2, longest)
