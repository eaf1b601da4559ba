"""Which replica of a group to ask, when to ask a second one, and how often that is allowed. Pure.

Times are seconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from shashin.discovery.protocol import Endpoint


@dataclass(frozen=True)
class Candidate:
    """A replica as of now."""

    endpoint: Endpoint
    outstanding: int = 0
    """Calls under way to it."""
    aside_until: float = 0.0
    """It has just failed, and is asked only if no other replica is left before this time."""


def choose_replica(
    candidates: Sequence[Candidate], *, zone: str, now: float, chance: random.Random
) -> Candidate | None:
    """Return the replica to ask next; None if there is none.

    Those that have just failed come last, those of another zone before them (an empty ``zone``
    prefers none). Of two that are drawn from the best, it is the one with fewer calls under way:
    see Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    """

    def rank(candidate: Candidate) -> tuple[bool, bool]:
        return candidate.aside_until > now, bool(zone) and candidate.endpoint.zone != zone

    best = min(map(rank, candidates), default=None)
    if best is None:
        return None
    drawn = [candidate for candidate in candidates if rank(candidate) == best]
    if len(drawn) > 2:
        drawn = chance.sample(drawn, 2)
    else:
        chance.shuffle(drawn)
    return min(drawn, key=lambda candidate: candidate.outstanding)


class HedgeDelay:
    """How long to wait for a replica before a second one is asked: the p95 of a group's recent calls."""

    def __init__(
        self,
        *,
        default: float = 0.1,
        shortest: float = 0.01,
        longest: float = 0.5,
        warm_up: int = 20,
        calls: int = 256,
    ) -> None:
        """Estimate from the last ``calls`` answers; ``default`` seconds before there are ``warm_up``."""
        self._default = default
        self._shortest = shortest
        self._longest = longest
        self._warm_up = warm_up
        self._recent: deque[float] = deque(maxlen=calls)

    def observe(self, seconds: float) -> None:
        """Note how long an answer took."""
        self._recent.append(seconds)

    def seconds(self) -> float:
        """Return the delay, in seconds."""
        if len(self._recent) < self._warm_up:
            return self._default
        p95 = sorted(self._recent)[ceil(0.95 * len(self._recent)) - 1]
        return min(max(p95, self._shortest), self._longest)


class HedgeBudget:
    """Caps hedges at a share of the calls, so that slow replicas do not get twice the load.

    Each call earns a share of a hedge, up to ``burst`` hedges, and each hedge spends one: over any
    ``n`` calls there are at most ``share * n + burst`` hedges.
    """

    def __init__(self, *, share: float = 0.05, burst: int = 10) -> None:
        self._share = share
        self._burst = float(burst)
        self._saved = 0.0

    def call(self) -> None:
        """Note a call that is not a hedge."""
        self._saved = min(self._burst, self._saved + self._share)

    def take(self) -> bool:
        """Spend a hedge; returns whether it is allowed."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True
