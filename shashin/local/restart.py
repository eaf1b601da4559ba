"""When a process that died is started again, and how it is recorded; the supervisor does both."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

FIRST_PAUSE_SECONDS = 0.3
LONGEST_PAUSE_SECONDS = 20.0
HEALTHY_SECONDS = 30.0
"""A process that was ready for so long has its earlier deaths forgiven."""

CRASH_LOOP_DEATHS = 4
WRONG_SETTINGS = 2
"""The exit code by which a service says that it cannot run as it is set."""


@dataclass
class RestartHistory:
    """The deaths of one process, one after another."""

    random: random.Random = field(default_factory=random.Random)
    in_a_row: int = 0
    ever_ready: bool = False

    def died(self, *, ready_for: float) -> float:
        """Note a death of a process that was ready for so many seconds; returns the pause.

        The pause doubles with each death in a row up to ``LONGEST_PAUSE_SECONDS``, and is drawn
        from its upper half, so that processes that died together do not come back together.
        """
        self.in_a_row = 1 if ready_for >= HEALTHY_SECONDS else self.in_a_row + 1
        doubled = FIRST_PAUSE_SECONDS * (1 << min(self.in_a_row - 1, 16))
        longest = min(LONGEST_PAUSE_SECONDS, doubled)
        return longest * self.random.uniform(0.5, 1.0)

    @property
    def crash_looping(self) -> bool:
        """Whether starting it again evidently does not help."""
        return self.in_a_row >= CRASH_LOOP_DEATHS

    def is_hopeless(self, exit_code: int) -> bool:
        """Say whether it cannot come up as it is set: it never did, and says so itself."""
        return exit_code == WRONG_SETTINGS and not self.ever_ready


def how_it_ended(exit_code: int) -> str:
    """Return how a process ended, as a clause; a negative exit code is a signal."""
    if exit_code < 0:
        return f"it was killed by signal {-exit_code}"
    return f"it ended with exit code {exit_code}"


@dataclass(frozen=True)
class Restart:
    """One time that a process was started again."""

    reason: str
    """Why, as a clause that stands after "because"."""
    at: float
    """Seconds since the epoch."""

    def document(self) -> dict[str, Any]:
        """Return this as the process table holds it."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Any) -> Restart | None:
        """Read what ``document()`` wrote; None if it is something else."""
        try:
            return cls(str(document["reason"]), float(document["at"]))
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def time(self) -> datetime:
        """When, in UTC."""
        return datetime.fromtimestamp(self.at, UTC)

    def line(self, log_format: str) -> str:
        """Return the line that the process's own log gets, in its format: json or console."""
        event = f"supervisor: restarted because {self.reason}"
        timestamp = self.time.isoformat().replace("+00:00", "Z")
        if log_format == "console":
            return f"{timestamp} [warning  ] {event}"
        return json.dumps(
            {
                "event": event,
                "service": "supervisor",
                "level": "warning",
                "timestamp": timestamp,
            }
        )
