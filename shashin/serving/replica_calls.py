"""Calls one replica of each group, and another one when it fails, is slow or does not respond.

- A replica that fails is replaced by another one at once.
- One that is slower than most is hedged: a second one is asked as well, and the first answer counts.
  Hedges are for latency, so a budget limits their load.
- One that does not respond is not waited for until the deadline: no budget limits the last resort. If it
  answers other calls meanwhile, it is not dead but slow, and the budget applies.

A replica that has failed or hung is set aside for a while, and one that is not known to work is asked
after those that are (``ReplicaRecord.describe``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import grpc

from shashin.discovery.protocol import Endpoint, GroupKey
from shashin.metrics import fleet as metrics
from shashin.runtime import tracing
from shashin.serving.fleet import AnswerT, Failure, OfModel, OtherModel, Peer, outcome_of
from shashin.serving.replica_choice import last_resort_after
from shashin.serving.replica_record import ALIVE_SECONDS, ReplicaRecord

AskedT_co = TypeVar("AskedT_co", bound=OfModel, covariant=True)


@dataclass(frozen=True)
class Replicas:
    """Peers of which one answer is wanted."""

    peers: Sequence[Peer]
    """At least one; all of one group."""
    preferred: Peer | None = None
    """The one to ask first if it works as well as the others."""


@dataclass
class GroupOutcome(Generic[AnswerT]):
    """What a group has answered."""

    answer: tuple[Peer, AnswerT] | None = None
    failures: list[Failure] = field(default_factory=list)
    """Of the replicas that were asked in vain, also if another one has answered."""
    other_models: list[OtherModel] = field(default_factory=list)

    def add(self, peer: Peer, outcome: AnswerT | Failure | OtherModel) -> None:
        """Add the outcome of one call."""
        match outcome:
            case Failure() as failure:
                self.failures.append(failure)
            case OtherModel() as other:
                self.other_models.append(other)
            case answer:
                self.answer = peer, answer

    @property
    def tried(self) -> set[Endpoint]:
        """The replicas that answered, failed or hold another model."""
        found = {failure.endpoint for failure in self.failures}
        found |= {other.endpoint for other in self.other_models}
        return found if self.answer is None else {*found, self.answer[0].endpoint}


def groups_of(peers: Iterable[Peer]) -> dict[GroupKey, list[Peer]]:
    """Return the peers by group, in their order."""
    groups: dict[GroupKey, list[Peer]] = {}
    for peer in peers:
        groups.setdefault(peer.endpoint.group_key, []).append(peer)
    return groups


@dataclass(frozen=True)
class _Call:
    peer: Peer
    started: float
    is_hedge: bool


class _Ask(Protocol[AskedT_co]):
    def __call__(
        self, peer: Peer, *, is_hedge: bool = False
    ) -> Coroutine[Any, Any, AskedT_co | Failure | OtherModel]: ...


class ReplicaCalls:
    """Asks groups of replicas, by what ``record`` knows of them, and adds to it."""

    def __init__(self, record: ReplicaRecord) -> None:
        self.record = record

    async def ask_groups(
        self,
        groups: Sequence[Replicas],
        send: Callable[[Peer], Awaitable[AnswerT]],
        *,
        method: str,
        model_id: str,
        seconds_left: Callable[[], float],
        joined: Callable[[GroupKey], Sequence[Peer]] = lambda _group: (),
        check: Callable[[AnswerT], str | None] = lambda _answer: None,
    ) -> list[GroupOutcome[AnswerT]]:
        """Ask all groups concurrently; returns their outcomes, in the same order.

        Of each group, the first good answer counts. ``seconds_left`` is the time until the deadline of a
        call that is sent now. ``joined`` returns replicas that have joined a group since it was asked last:
        they are asked if all others have failed.
        """

        async def ask(peer: Peer, *, is_hedge: bool = False) -> AnswerT | Failure | OtherModel:
            del is_hedge
            self.record.begin(peer)
            try:
                return await outcome_of(
                    peer, send(peer), method=method, model_id=model_id, check=check
                )
            finally:
                self.record.end(peer)

        async def ask_in_span(
            peer: Peer, *, is_hedge: bool = False
        ) -> AnswerT | Failure | OtherModel:
            assert tracer is not None
            attributes = _attributes_of(peer, is_hedge=is_hedge)
            with tracer.span(f"ask {peer.tier}", parent=parent, attributes=attributes) as span:
                outcome = await ask(peer)
                if isinstance(outcome, Failure):
                    span.fail(outcome.status)
                return outcome

        tracer, parent = tracing.tracer(), tracing.current()
        asked: _Ask[AnswerT] = ask if tracer is None or parent is None else ask_in_span

        async def ask_group(replicas: Replicas) -> GroupOutcome[AnswerT]:
            found: GroupOutcome[AnswerT] = GroupOutcome()
            group = replicas.peers[0].endpoint.group_key
            while True:
                if len(replicas.peers) == 1:
                    found.add(replicas.peers[0], await asked(replicas.peers[0]))
                else:
                    call = _GroupCall(self.record, replicas, method, asked, seconds_left, found)
                    await call.run()
                if found.answer is not None or seconds_left() <= 0:
                    return found
                replicas = Replicas(joined(group))
                if not replicas.peers:
                    return found
                metrics.RETRIES.labels(replicas.peers[0].tier).inc()

        if len(groups) == 1:
            return [await ask_group(groups[0])]
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask_group(replicas)) for replicas in groups]
        return [task.result() for task in asking]


class _GroupCall(Generic[AnswerT]):
    """One call to a group of several replicas."""

    def __init__(
        self,
        record: ReplicaRecord,
        replicas: Replicas,
        method: str,
        ask: _Ask[AnswerT],
        seconds_left: Callable[[], float],
        found: GroupOutcome[AnswerT],
    ) -> None:
        self._record = record
        self._left = list(replicas.peers)
        self._preferred = replicas.preferred
        self._method = method
        self._ask = ask
        self._seconds_left = seconds_left
        self._tier = replicas.peers[0].tier
        self._delay = record.hedge_delay(replicas.peers[0].endpoint.group_key, method)
        self._running: dict[asyncio.Future[AnswerT | Failure | OtherModel], _Call] = {}
        self._found = found
        self._hedge_at: float | None = record.clock() + self._delay
        """When a hedge is due; None once that has been decided."""
        self._last_resort_at = 0.0

    async def run(self) -> None:
        """Ask one replica after another until one answers."""
        self._record.budget.call()
        self._start()
        try:
            while self._running and self._found.answer is None:
                done, _ = await asyncio.wait(
                    self._running,
                    timeout=self._seconds_until_next(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    self._take(self._running.pop(task), task.result())
                if self._found.answer is None and self._left and self._seconds_left() > 0:
                    self._ask_another()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, *, is_hedge: bool = False) -> None:
        peer = self._record.choose(self._left, self._preferred)
        self._left.remove(peer)
        now = self._record.clock()
        self._running[asyncio.ensure_future(self._ask(peer, is_hedge=is_hedge))] = _Call(
            peer, now, is_hedge
        )
        self._last_resort_at = now + last_resort_after(
            self._delay, seconds_left=self._seconds_left(), replicas_left=len(self._left)
        )

    def _seconds_until_next(self) -> float | None:
        if not self._left or self._seconds_left() <= 0:
            return None
        due = self._last_resort_at
        if self._hedge_at is not None:
            due = min(due, self._hedge_at)
        return max(0.0, due - self._record.clock())

    def _ask_another(self) -> None:
        """Ask another replica if it is time to."""
        now = self._record.clock()
        if self._running and now >= self._last_resort_at and self._some_are_alive():
            self._last_resort_at = now + ALIVE_SECONDS
            self._hedge()
        elif not self._running or now >= self._last_resort_at:
            metrics.RETRIES.labels(self._tier).inc()
            for call in self._running.values():
                if self._record.hangs(call.peer, self._method, now - call.started):
                    self._record.set_aside(call.peer)
            self._start()
        elif self._hedge_at is not None and now >= self._hedge_at:
            self._hedge_at = None
            self._hedge()

    def _some_are_alive(self) -> bool:
        return any(self._record.is_alive(call.peer) for call in self._running.values())

    def _hedge(self) -> None:
        if self._record.budget.take():
            metrics.HEDGES.labels(self._tier).inc()
            self._start(is_hedge=True)

    def _take(self, call: _Call, outcome: AnswerT | Failure | OtherModel) -> None:
        if self._found.answer is not None:
            return
        self._found.add(call.peer, outcome)
        seconds = self._record.clock() - call.started
        if self._found.answer is None:
            # With little time, a missed deadline says nothing about the replica.
            if not _timed_out(outcome) or self._record.hangs(call.peer, self._method, seconds):
                self._record.set_aside(call.peer)
            return
        self._record.answered(call.peer, self._method, seconds)
        if call.is_hedge:
            metrics.HEDGES_WON.labels(self._tier).inc()
        for other in self._running.values():
            if other.started <= call.started:
                self._record.overtaken(
                    other.peer, self._method, self._record.clock() - other.started
                )


def _attributes_of(peer: Peer, *, is_hedge: bool) -> dict[str, str | bool | int | float]:
    return {
        "shashin.endpoint": peer.endpoint.name,
        "shashin.tier": peer.tier,
        "shashin.hedge": is_hedge,
    }


def _timed_out(outcome: object) -> bool:
    return isinstance(outcome, Failure) and outcome.status == grpc.StatusCode.DEADLINE_EXCEEDED.name
