"""What a process knows of its own health: alive means that every loop makes progress, ready means
that every loop has reached what it has to.

Loops report here through their handle (shashin.runtime.scope) and nowhere else; the probes read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LONG_WAIT_SECONDS = 5.0
"""A wait that is longer is reported on /healthz."""

START = "start"


@dataclass
class LoopHealth:
    """One loop's progress, readiness and problems."""

    name: str
    ready_when: str
    """What the loop has to reach before the process is ready; empty: nothing."""
    stall_seconds: float
    clock: Callable[[], float]
    last_progress: float
    not_ready: str | None
    """Why it is not ready; None when it is."""
    degraded: dict[str, str] = field(default_factory=dict)
    """Part of its work to what is wrong with it."""
    _waits: list[tuple[str, float]] = field(default_factory=list)
    _sleeping: bool = False

    def progress(self) -> None:
        """Note that the loop came round."""
        self.last_progress = self.clock()

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Wait for something outside of this process.

        The wait is no stall, however long it takes: a restart would not bring back what is gone.
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
        """Sleep for a bounded time, which may be longer than a stall."""
        self._sleeping = True
        try:
            yield
        finally:
            self._sleeping = False
            self.progress()

    def stalled(self) -> str | None:
        """Return how the loop makes no progress; None when it does, sleeps or waits."""
        still = self.clock() - self.last_progress
        if self._waits or self._sleeping or still <= self.stall_seconds:
            return None
        return f"{self.name} made no progress for {still:.0f} s"

    def problems(self) -> list[str]:
        """Return what is wrong and no stall: what is degraded, and long waits."""
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
        """Whether others call this process: then a degraded loop is reported by /healthz alone,
        since nobody should stop asking for what is there."""

    def register(
        self, name: str, *, ready_when: str = "", stall_seconds: float | None = None
    ) -> LoopHealth:
        """Return the health of a new loop, which has to make progress from now on."""
        loop = LoopHealth(
            name=name,
            ready_when=ready_when,
            stall_seconds=self._stall_seconds if stall_seconds is None else stall_seconds,
            clock=self._clock,
            last_progress=self._clock(),
            not_ready=f"waiting for {ready_when}" if ready_when else None,
        )
        self._loops[name] = loop
        return loop

    def forget(self, loop: LoopHealth) -> None:
        """Leave out a loop that has come to its end."""
        if self._loops.get(loop.name) is loop:
            del self._loops[loop.name]

    def liveness_problems(self) -> list[str]:
        """Return what keeps this process from being alive; empty when it is."""
        return [stall for loop in self._loops.values() if (stall := loop.stalled()) is not None]

    def readiness_problems(self) -> list[str]:
        """Return what keeps this process from being ready; empty when it is."""
        problems = [
            f"{loop.name}: {loop.not_ready}"
            for loop in self._loops.values()
            if loop.not_ready is not None
        ]
        return problems if self.ready_when_degraded else problems + self._degraded()

    def problems(self) -> list[str]:
        """Return everything that is wrong; empty when all is well."""
        every = self.liveness_problems() + self.readiness_problems() + self._degraded()
        return list(dict.fromkeys(every))

    def _degraded(self) -> list[str]:
        return [problem for loop in self._loops.values() for problem in loop.problems()]
