"""What is known of the replicas of each group: who works, how busy it is, how long its answers take.

No I/O; times are seconds of one monotonic clock.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from shashin.discovery.protocol import Endpoint, GroupKey
from shashin.serving.fleet import Peer
from shashin.serving.replica_choice import (
    Candidate,
    HedgeBudget,
    HedgeDelay,
    Standing,
    choose_replica,
    unresponsive_after,
)

ASIDE_SECONDS = 2.0
"""How long a replica that has failed or hung is asked only if no better one is left."""

ALIVE_SECONDS = 0.2
"""A replica that has answered some call within so many seconds does not hang: it may be overloaded, and
calls to others as well would then only add to the load."""

_HANGS_AFTER_LOST = 2
"""Hedges that a replica loses in a row, without an answer in between, until it counts as hanging."""


class _Kind(NamedTuple):
    """Calls that take about equally long."""

    group: GroupKey
    method: str


class ReplicaRecord:
    """Learns from calls and descriptions which replica to ask next, and how long to wait for it."""

    def __init__(
        self,
        *,
        zone: str = "",
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        """Prefer replicas of ``zone``, if it is not empty."""
        self.clock = clock
        self.budget = HedgeBudget()
        self._zone = zone
        self._chance = random.Random(seed)
        self._outstanding: dict[Endpoint, int] = defaultdict(int)
        self._aside_until: dict[Endpoint, float] = {}
        self._lost_in_row: dict[Endpoint, int] = defaultdict(int)
        self._answered_at: dict[Endpoint, float] = {}
        self._described: dict[Endpoint, Standing] = {}
        self._delays: dict[_Kind, HedgeDelay] = {}

    def describe(self, ready: Iterable[Endpoint], unready: Iterable[Endpoint]) -> None:
        """Replace what is known of who describes itself as serving, and who does not.

        An endpoint in neither is new: it is asked only if no ready one of its group is left.
        """
        self._described = {
            **dict.fromkeys(ready, Standing.READY),
            **dict.fromkeys(unready, Standing.UNREADY),
        }

    def keep_only(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget all endpoints and groups but these."""
        kept = set(endpoints)
        groups = {endpoint.group_key for endpoint in kept}
        for known in (self._aside_until, self._lost_in_row, self._answered_at, self._described):
            for endpoint in known.keys() - kept:
                del known[endpoint]
        for kind in [kind for kind in self._delays if kind.group not in groups]:
            del self._delays[kind]

    def choose(self, left: Sequence[Peer], preferred: Peer | None = None) -> Peer:
        """Return the replica to ask next, of at least one."""
        candidates = {
            peer.endpoint: Candidate(
                peer.endpoint, self.standing(peer), self._outstanding.get(peer.endpoint, 0)
            )
            for peer in left
        }
        chosen = choose_replica(
            list(candidates.values()),
            zone=self._zone,
            preferred=None if preferred is None else preferred.endpoint,
            chance=self._chance,
        )
        return next(peer for peer in left if peer.endpoint == chosen.endpoint)

    def standing(self, peer: Peer) -> Standing:
        """Return what is known of a replica."""
        if peer.removed:
            return Standing.LEFT
        standing = self._described.get(peer.endpoint, Standing.NEW)
        if self._aside_until.get(peer.endpoint, 0.0) > self.clock():
            return max(standing, Standing.SET_ASIDE)
        return standing

    def hedge_delay(self, group: GroupKey, method: str) -> float:
        """Return after how many seconds a call is hedged."""
        return self._delays.get(_Kind(group, method), _NO_CALLS).seconds()

    def begin(self, peer: Peer) -> None:
        """Note a call that is sent."""
        self._outstanding[peer.endpoint] += 1

    def end(self, peer: Peer) -> None:
        """Note that a call has ended, however."""
        left = self._outstanding.pop(peer.endpoint) - 1
        if left:
            self._outstanding[peer.endpoint] = left

    def answered(self, peer: Peer, method: str, seconds: float) -> None:
        """Note an answer and how long it took."""
        self._lost_in_row.pop(peer.endpoint, None)
        self._aside_until.pop(peer.endpoint, None)
        self._answered_at[peer.endpoint] = self.clock()
        self._observe(peer, method, seconds)

    def overtaken(self, peer: Peer, method: str, seconds_so_far: float) -> None:
        """Note a call that another replica has answered first, although it was asked later.

        Its time so far belongs to the estimate: without the slowest calls, every estimate would be
        shorter than the one before. A replica that hangs says nothing about how long calls take.
        """
        endpoint = peer.endpoint
        self._lost_in_row[endpoint] += 1
        hangs = self.hangs(peer, method, seconds_so_far)
        if not hangs:
            self._observe(peer, method, seconds_so_far)
        if hangs or self._lost_in_row[endpoint] >= _HANGS_AFTER_LOST:
            self.set_aside(peer)

    def is_alive(self, peer: Peer) -> bool:
        """Whether a replica has just answered some call."""
        answered_at = self._answered_at.get(peer.endpoint)
        return answered_at is not None and self.clock() - answered_at < ALIVE_SECONDS

    def hangs(self, peer: Peer, method: str, seconds_so_far: float) -> bool:
        """Whether a call is too slow for a replica that works, and no other call shows that it does."""
        delay = self.hedge_delay(peer.endpoint.group_key, method)
        return seconds_so_far >= unresponsive_after(delay) and not self.is_alive(peer)

    def set_aside(self, peer: Peer) -> None:
        """Prefer others for a while."""
        self._aside_until[peer.endpoint] = self.clock() + ASIDE_SECONDS

    def _observe(self, peer: Peer, method: str, seconds: float) -> None:
        kind = _Kind(peer.endpoint.group_key, method)
        self._delays.setdefault(kind, HedgeDelay()).observe(seconds)


_NO_CALLS = HedgeDelay()
