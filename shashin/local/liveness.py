"""When a process that does not answer its liveness probe is restarted: the rule, without I/O.

As with Kubernetes' startup probes, a process that has never answered has a longer bound than one
that has stopped answering: a slow start is no stall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

STARTUP_SECONDS = 300.0
"""How long a process may take until its first answer.

The embedder starts slowest: it imports torch, a few seconds on an idle machine and more than two
minutes on a small one where everything starts at the same time. A process that will never answer
costs no more than this wait, one that is killed too early never comes up.
"""

STALLED_SECONDS = 30.0
"""How long a process that has answered once may fail its liveness probe."""

FAILURES = 3
"""Probes in a row that have to fail, however long they took: after the supervisor itself was
paused or starved, the one probe under way has timed out and says nothing of the process."""


@dataclass(frozen=True)
class Liveness:
    """When a process was started and when it last answered, in seconds of the monotonic clock."""

    started: float
    last_answer: float | None = None
    failures: int = 0
    """Probes that failed since the last answer."""

    def answered(self, at: float) -> Liveness:
        """Return this after an answer."""
        return replace(self, last_answer=at, failures=0)

    def failed(self) -> Liveness:
        """Return this after a probe without an answer."""
        return replace(self, failures=self.failures + 1)


def reason_to_restart(
    liveness: Liveness, now: float, *, startup_seconds: float, stalled_seconds: float
) -> str | None:
    """Return why a process has to be restarted; None if it may go on."""
    if liveness.failures < FAILURES:
        return None
    if liveness.last_answer is None:
        if now - liveness.started > startup_seconds:
            return f"its start took longer than {startup_seconds:g} s"
        return None
    silent = now - liveness.last_answer
    return f"it gave no liveness answer for {silent:.0f} s" if silent > stalled_seconds else None
