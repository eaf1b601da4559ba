"""Sends requests when they are due, whatever becomes of those before: an open loop.

With think times it is a closed loop of users instead: each asks again a while after its answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from shashin.errors import ShashinError
from shashin.workload.load.recorder import NOT_SENT, OK, Record, Recorder

Send = Callable[[], Awaitable[str]]
"""Sends one request and returns its outcome; raises a ShashinError if it failed."""


@dataclass(frozen=True)
class OpenLoop:
    """Requests of one kind, and when they are due, in seconds from the begin."""

    kind: str
    due_times: Iterable[float]
    send: Send


@dataclass(frozen=True)
class Users:
    """Users of one kind, who wait for each answer, and then think."""

    kind: str
    count: int
    think_seconds: float
    """On average; the times are exponentially distributed."""
    seconds: float
    """How long they stay."""
    send: Send
    seed: int = 0


class Generator:
    """Runs loops beside each other, and records every request."""

    def __init__(self, recorder: Recorder, *, max_in_flight: int = 2000) -> None:
        self._recorder = recorder
        self._max_in_flight = max_in_flight
        self._in_flight: set[asyncio.Task[None]] = set()
        self._started = 0.0

    async def run(self, *loops: OpenLoop | Users) -> None:
        """Send every request, and wait for all answers; cancelling it cancels those in flight."""
        self._started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for loop in loops:
                    if isinstance(loop, Users):
                        for number in range(loop.count):
                            group.create_task(self._stay(loop, number))
                    else:
                        group.create_task(self._follow(loop))
            while self._in_flight:
                await asyncio.wait(self._in_flight)
        finally:
            for task in self._in_flight:
                task.cancel()
            await asyncio.gather(*self._in_flight, return_exceptions=True)

    @property
    def seconds(self) -> float:
        """Seconds since the begin."""
        return time.perf_counter() - self._started

    async def _follow(self, loop: OpenLoop) -> None:
        for due in loop.due_times:
            # Also without a wait: others get their turn when this is behind.
            await asyncio.sleep(max(0.0, due - self.seconds))
            if len(self._in_flight) >= self._max_in_flight:
                now = self.seconds
                self._recorder.add(Record(loop.kind, due, now, now, NOT_SENT))
                continue
            task = asyncio.create_task(self._one(loop.kind, due, loop.send))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def _stay(self, users: Users, number: int) -> None:
        chance = random.Random(f"{users.seed} {number}")
        due = chance.random() * users.think_seconds
        while due < users.seconds:
            await asyncio.sleep(max(0.0, due - self.seconds))
            await self._one(users.kind, due, users.send)
            thought = chance.expovariate(1 / users.think_seconds) if users.think_seconds else 0.0
            due = self.seconds + thought

    async def _one(self, kind: str, due: float, send: Send) -> None:
        sent = self.seconds
        try:
            outcome = await send()
        except ShashinError as error:
            outcome = error.reason
        self._recorder.add(Record(kind, due, sent, self.seconds, outcome or OK))
