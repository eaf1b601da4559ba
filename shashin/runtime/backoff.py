"""Jittered exponential backoff."""

from __future__ import annotations

import random
from collections.abc import Iterator


def backoff_seconds(*, first: float = 0.1, longest: float = 10.0) -> Iterator[float]:
    """Yield waits that double up to ``longest`` seconds, each jittered down to as little as half."""
    wait = min(first, longest)
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(wait * 2, longest)
