"""Health: alive means that every loop makes progress, ready means that every condition holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Heartbeat:
    """The pulse of one loop: it beats once a turn, also when there was nothing to do."""

    name: str
    clock: Callable[[], float]
    last: float = 0.0

    def beat(self) -> None:
        """Say that the loop came round."""
        self.last = self.clock()


@dataclass
class Health:
    """What a process knows of its own health; read by the probes and by nobody else."""

    stall_seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    serving: bool = False
    """Whether others call this process. Then a loop that stands still is told by /healthz and leaves
    /readyz alone: nobody should stop asking for what is there."""
    _beats: dict[str, Heartbeat] = field(default_factory=dict)
    _conditions: dict[str, str | None] = field(default_factory=dict)
    _standing: dict[str, str] = field(default_factory=dict)
    _failure: str | None = None

    def heartbeat(self, name: str) -> Heartbeat:
        """Register a loop; from now on it has to beat within ``stall_seconds``."""
        beat = Heartbeat(name, self.clock, self.clock())
        self._beats[name] = beat
        return beat

    def finished(self, beat: Heartbeat) -> None:
        """Forget a loop that has come to its end."""
        self._beats.pop(beat.name, None)

    def require(self, condition: str, *, waiting_for: str = "start") -> None:
        """Register a condition that does not hold yet."""
        self._conditions.setdefault(condition, waiting_for)

    def set_ready(self, condition: str) -> None:
        """Say that a condition holds."""
        self._conditions[condition] = None

    def set_unready(self, condition: str, why: str) -> None:
        """Say that a condition does not hold, and why."""
        self._conditions[condition] = why

    def hold(self, loop: str, why: str) -> None:
        """Say that a loop stands still, waiting for something that is not here."""
        self._standing[loop] = why

    def go_on(self, loop: str) -> None:
        """Say that a loop goes on."""
        self._standing.pop(loop, None)

    def fail(self, why: str) -> None:
        """Say that this process cannot go on: it is neither alive nor ready from now on."""
        self._failure = why

    def liveness_problems(self) -> list[str]:
        """Return what keeps this process from being alive; empty when it is."""
        now = self.clock()
        problems = [self._failure] if self._failure else []
        problems += [
            f"{beat.name} made no progress for {now - beat.last:.0f} s"
            for beat in self._beats.values()
            if now - beat.last > self.stall_seconds
        ]
        return problems

    def readiness_problems(self) -> list[str]:
        """Return what keeps this process from being ready; empty when it is."""
        problems = [self._failure] if self._failure else []
        problems += [f"{name}: {why}" for name, why in self._conditions.items() if why is not None]
        return problems if self.serving else problems + self._standing_problems()

    def problems(self) -> list[str]:
        """Return everything that is not as it should be; empty when all is well."""
        every = self.liveness_problems() + self.readiness_problems() + self._standing_problems()
        return list(dict.fromkeys(every))

    def _standing_problems(self) -> list[str]:
        return [f"{loop}: {why}" for loop, why in self._standing.items()]
