"""Calls one replica of each group, and another one when it fails or is slow.

Once the budget of hedges is spent, a replica that hangs is waited for until the call's deadline.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import Counter

from shashin.discovery.protocol import Endpoint, GroupKey
from shashin.serving.fleet import AnswerT, Peer, Round, ask_all
from shashin.serving.replica_choice import Candidate, HedgeBudget, HedgeDelay, choose_replica

ASIDE_SECONDS = 1.0
"""How long a replica that has failed is asked only if no other one is left."""

HEDGES = Counter(
    "shashin_fleet_hedges", "Calls to a second replica because the first is slow.", ["tier"]
)
HEDGES_WON = Counter("shashin_fleet_hedges_won", "Hedges that answered first.", ["tier"])


class ReplicaCalls:
    """Knows how the replicas of each group have answered, and calls them accordingly."""

    def __init__(self, *, zone: str = "") -> None:
        self._zone = zone
        self._chance = random.Random()
        self._outstanding: dict[Endpoint, int] = defaultdict(int)
        self._aside_until: dict[Endpoint, float] = {}
        self._delays: dict[GroupKey, HedgeDelay] = defaultdict(HedgeDelay)
        self._budget = HedgeBudget()

    async def ask_groups(
        self,
        peers: Sequence[Peer],
        send: Callable[[Peer], Awaitable[AnswerT]],
        *,
        method: str,
        model_id: str,
        check: Callable[[AnswerT], str | None] = lambda _answer: None,
    ) -> Round[AnswerT]:
        """Ask all groups concurrently; of each, the first good answer counts.

        A group of which no replica has answered has a failure per replica that was asked.
        """
        groups: dict[GroupKey, list[Peer]] = defaultdict(list)
        for peer in peers:
            groups[peer.endpoint.group_key].append(peer)

        async def ask(peer: Peer) -> Round[AnswerT]:
            self._outstanding[peer.endpoint] += 1
            try:
                return await ask_all([peer], send, method=method, model_id=model_id, check=check)
            finally:
                self._outstanding[peer.endpoint] -= 1
                if not self._outstanding[peer.endpoint]:
                    del self._outstanding[peer.endpoint]

        asked: Round[AnswerT] = Round()
        async with asyncio.TaskGroup() as tasks:
            found = [tasks.create_task(self._ask_group(g, p, ask)) for g, p in groups.items()]
        for task in found:
            one = task.result()
            asked.answers += one.answers
            asked.failures += one.failures
            asked.other_models += one.other_models
        return asked

    async def _ask_group(
        self,
        group: GroupKey,
        peers: list[Peer],
        ask: Callable[[Peer], Awaitable[Round[AnswerT]]],
    ) -> Round[AnswerT]:
        left = list(peers)
        asked: Round[AnswerT] = Round()
        running: dict[asyncio.Task[Round[AnswerT]], Peer] = {}
        hedge: asyncio.Task[Round[AnswerT]] | None = None
        may_hedge = True
        started: dict[asyncio.Task[Round[AnswerT]], float] = {}

        def start() -> asyncio.Task[Round[AnswerT]]:
            peer = self._next(left)
            left.remove(peer)
            task = asyncio.ensure_future(ask(peer))
            running[task], started[task] = peer, time.monotonic()
            return task

        try:
            start()
            self._budget.call()
            while running:
                waits_to_hedge = may_hedge and bool(left)
                done, _ = await asyncio.wait(
                    running,
                    timeout=self._delays[group].seconds() if waits_to_hedge else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done and waits_to_hedge:
                    may_hedge = False
                    if self._budget.take():
                        hedge = start()
                        HEDGES.labels(peers[0].tier).inc()
                for task in done:
                    peer, one = running.pop(task), task.result()
                    if one.answers:
                        self._delays[group].observe(time.monotonic() - started[task])
                        if task is hedge:
                            HEDGES_WON.labels(peer.tier).inc()
                        return one
                    asked.failures += one.failures
                    asked.other_models += one.other_models
                    self._aside_until[peer.endpoint] = time.monotonic() + ASIDE_SECONDS
                if not running and left:
                    start()
            return asked
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _next(self, left: Sequence[Peer]) -> Peer:
        now = time.monotonic()
        self._aside_until = {e: until for e, until in self._aside_until.items() if until > now}
        candidates = {
            peer.endpoint: Candidate(
                peer.endpoint,
                self._outstanding.get(peer.endpoint, 0),
                self._aside_until.get(peer.endpoint, 0.0),
            )
            for peer in left
        }
        chosen = choose_replica(
            list(candidates.values()), zone=self._zone, now=now, chance=self._chance
        )
        assert chosen is not None
        return next(peer for peer in left if peer.endpoint == chosen.endpoint)
