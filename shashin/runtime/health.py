"""The health of a process: alive means that every loop makes progress, ready means that every loop
has met its readiness condition.

Loops report only through their handle (shashin.runtime.scope); the probes read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LONG_WAIT_SECONDS = 5.0
"""Longer waits are reported on /healthz."""

START = "start"


@dataclass
class LoopHealth:
    """One loop's progress, readiness and problems."""

    name: str
    ready_when: str
    """The loop's readiness condition; empty if it has none."""
    stall_seconds: float
    clock: Callable[[], float]
    last_progress: float
    not_ready: str | None
    """Why it is not ready; None when it is."""
    optional: bool = False
    """Whether the process is ready whatever problems this loop has: nothing else needs its work."""
    degraded: dict[str, str] = field(default_factory=dict)
    """Degraded part of its work to the problem."""
    _waits: list[tuple[str, float]] = field(default_factory=list)
    _sleeping: bool = False

    def progress(self) -> None:
        """Record progress."""
        self.last_progress = self.clock()

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Mark the block as a wait for something outside this process.

        Such a wait is never a stall: restarting the process would not fix a dependency.
        """
        wait = (what, self.clock())
        self._waits.append(wait)
        try:
            yield
        finally:
            self._waits.remove(wait)
            self.progress()

    @contextmanager
    def sleeping(self) -> Iterator[None]:
        """Mark the block as a bounded sleep, which may exceed the stall limit."""
        self._sleeping = True
        try:
            yield
        finally:
            self._sleeping = False
            self.progress()

    def stalled(self) -> str | None:
        """Describe the loop's stall; None if it makes progress, sleeps or waits."""
        idle = self.clock() - self.last_progress
        if self._waits or self._sleeping or idle <= self.stall_seconds:
            return None
        return f"{self.name} made no progress for {idle:.0f} s"

    def problems(self) -> list[str]:
        """Return all problems except stalls: degraded parts and long waits."""
        found = [f"{part}: {why}" for part, why in self.degraded.items()]
        now = self.clock()
        found += [
            f"{self.name}: waiting for {what} for {now - since:.0f} s"
            for what, since in self._waits
            if now - since > LONG_WAIT_SECONDS and what not in self.degraded
        ]
        return found


class Health:
    """The health of one process."""

    def __init__(
        self, *, stall_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._loops: dict[str, LoopHealth] = {}
        self.ready_when_degraded = False
        """True for servers: a degraded loop is then reported only on /healthz, so that clients
        keep calling the parts that still work."""

    def register(
        self,
        name: str,
        *,
        ready_when: str = "",
        optional: bool = False,
        stall_seconds: float | None = None,
    ) -> LoopHealth:
        """Register a loop, which has to make progress from now on; returns its health."""
        loop = LoopHealth(
            name=name,
            ready_when=ready_when,
            stall_seconds=self._stall_seconds if stall_seconds is None else stall_seconds,
            clock=self._clock,
            last_progress=self._clock(),
            not_ready=f"waiting for {ready_when}" if ready_when else None,
            optional=optional,
        )
        self._loops[name] = loop
        return loop

    def forget(self, loop: LoopHealth) -> None:
        """Remove a loop that has ended."""
        if self._loops.get(loop.name) is loop:
            del self._loops[loop.name]

    def liveness_problems(self) -> list[str]:
        """Return why this process is not alive; empty when it is."""
        return [stall for loop in self._loops.values() if (stall := loop.stalled()) is not None]

    def readiness_problems(self) -> list[str]:
        """Return why this process is not ready; empty when it is."""
        problems = [
            f"{loop.name}: {loop.not_ready}"
            for loop in self._loops.values()
            if loop.not_ready is not None
        ]
        if self.ready_when_degraded:
            return problems
        return problems + self._degraded(loop for loop in self._loops.values() if not loop.optional)

    def problems(self) -> list[str]:
        """Return all problems; empty when healthy."""
        problems = self.liveness_problems() + self.readiness_problems()
        problems += self._degraded(self._loops.values())
        return list(dict.fromkeys(problems))

    @staticmethod
    def _degraded(loops: Iterable[LoopHealth]) -> list[str]:
        return [problem for loop in loops for problem in loop.problems()]
