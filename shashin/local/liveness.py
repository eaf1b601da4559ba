"""When a process that fails its liveness probe is restarted: the rule, without I/O.

As with Kubernetes' startup probes, a process that has never passed has a higher limit than one
that stopped passing: a slow start is not a stall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

STARTUP_SECONDS = 300.0
"""How long a process may take until it first passes its liveness probe.

The embedder starts slowest: importing torch takes a few seconds on an idle machine, and more than
two minutes on a small one where everything starts at once. A process that will never respond costs
no more than this wait; one that is killed too early never comes up.
"""

STALLED_SECONDS = 30.0
"""How long a process that has passed once may fail its liveness probe."""

FAILURES = 3
"""Consecutive probes that have to fail, however long they took: if the supervisor itself was paused
or starved, the timeout of a single pending probe says nothing about the process."""


@dataclass(frozen=True)
class Liveness:
    """When a process was started and when it last responded, in monotonic seconds."""

    started: float
    last_answer: float | None = None
    failures: int = 0
    """Failed probes since the last response."""

    def answered(self, at: float) -> Liveness:
        """Return the state after a passed probe."""
        return replace(self, last_answer=at, failures=0)

    def failed(self) -> Liveness:
        """Return the state after a failed probe."""
        return replace(self, failures=self.failures + 1)


def reason_to_restart(
    liveness: Liveness, now: float, *, startup_seconds: float, stalled_seconds: float
) -> str | None:
    """Return why a process has to be restarted; None if it may keep running."""
    if liveness.failures < FAILURES:
        return None
    if liveness.last_answer is None:
        if now - liveness.started > startup_seconds:
            return f"it did not start within {startup_seconds:g} s"
        return None
    silent = now - liveness.last_answer
    return f"it failed its liveness probe for {silent:.0f} s" if silent > stalled_seconds else None
