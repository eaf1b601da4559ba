"""Which replica of a group to ask, when to ask another one, and how often that is allowed. Pure.

Times are seconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import ceil

from shashin.discovery.protocol import Endpoint

_UNRESPONSIVE_SECONDS = 0.2
_UNRESPONSIVE_DELAYS = 4.0


class Standing(IntEnum):
    """What is known of a replica; a lower one is asked first."""

    READY = 0
    """It has described itself."""
    NEW = 1
    """It has not been asked yet: it may be far from warm."""
    SET_ASIDE = 2
    """A call to it has just failed or hung."""
    UNREADY = 3
    """It does not describe itself, or says that it does not serve."""
    LEFT = 4
    """It is no longer in discovery: it drains."""


@dataclass(frozen=True)
class Candidate:
    """A replica as of now."""

    endpoint: Endpoint
    standing: Standing = Standing.READY
    outstanding: int = 0
    """Calls under way to it."""


def choose_replica(
    candidates: Sequence[Candidate],
    *,
    zone: str = "",
    preferred: Endpoint | None = None,
    chance: random.Random,
) -> Candidate:
    """Return the replica to ask next, of at least one.

    The standing counts first, then whether it is the preferred one, then the zone (an empty ``zone``
    prefers none). Of two that are drawn from the best, it is the one with fewer calls under way:
    see Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    """

    def rank(candidate: Candidate) -> tuple[Standing, bool, bool]:
        endpoint = candidate.endpoint
        return candidate.standing, endpoint != preferred, bool(zone) and endpoint.zone != zone

    best = min(map(rank, candidates))
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
        self._estimate: float | None = None

    def observe(self, seconds: float) -> None:
        """Note how long an answer took, or has taken so far."""
        self._recent.append(seconds)
        self._estimate = None

    def seconds(self) -> float:
        """Return the delay, in seconds."""
        if len(self._recent) < self._warm_up:
            return self._default
        if self._estimate is None:
            p95 = sorted(self._recent)[ceil(0.95 * len(self._recent)) - 1]
            self._estimate = min(max(p95, self._shortest), self._longest)
        return self._estimate


def unresponsive_after(hedge_delay: float) -> float:
    """Return after how many seconds a call is too slow for a replica that works."""
    return max(_UNRESPONSIVE_SECONDS, _UNRESPONSIVE_DELAYS * hedge_delay)


def last_resort_after(hedge_delay: float, *, seconds_left: float, replicas_left: int) -> float:
    """Return after how many seconds another replica is asked, whether or not a hedge is allowed.

    Before the deadline each of the replicas that are left gets its turn, and as much time for it.
    """
    return min(unresponsive_after(hedge_delay), seconds_left / (replicas_left + 1))


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
