"""When a process that died is restarted, and how a restart is recorded."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

FIRST_PAUSE_SECONDS = 0.3
MAX_PAUSE_SECONDS = 20.0
HEALTHY_SECONDS = 30.0
"""Ready time after which earlier deaths no longer count."""

CRASH_LOOP_DEATHS = 4
WRONG_SETTINGS = 2
"""Exit code of a service that cannot run with its settings."""


@dataclass
class RestartHistory:
    """Consecutive deaths of one process."""

    random: random.Random = field(default_factory=random.Random)
    in_a_row: int = 0
    ever_ready: bool = False

    def died(self, *, ready_for: float) -> float:
        """Record a death after ``ready_for`` seconds of readiness; returns the pause before a restart.

        The pause doubles with each consecutive death up to ``MAX_PAUSE_SECONDS``, and is drawn
        from its upper half, so that processes that died together do not restart together.
        """
        self.in_a_row = 1 if ready_for >= HEALTHY_SECONDS else self.in_a_row + 1
        doubled = FIRST_PAUSE_SECONDS * (1 << min(self.in_a_row - 1, 16))
        limit = min(MAX_PAUSE_SECONDS, doubled)
        return limit * self.random.uniform(0.5, 1.0)

    @property
    def crash_looping(self) -> bool:
        """Whether it has died too often in a row."""
        return self.in_a_row >= CRASH_LOOP_DEATHS

    def is_hopeless(self, exit_code: int) -> bool:
        """Return whether restarting cannot help: it was never ready, and reports wrong settings."""
        return exit_code == WRONG_SETTINGS and not self.ever_ready


def how_it_ended(exit_code: int) -> str:
    """Describe how a process ended, as a clause; a negative exit code is a signal."""
    if exit_code < 0:
        return f"it was killed by signal {-exit_code}"
    return f"it exited with code {exit_code}"


@dataclass(frozen=True)
class Restart:
    """One restart of a process."""

    reason: str
    """Why, as a clause that follows "because"."""
    at: float
    """Seconds since the epoch."""

    def document(self) -> dict[str, Any]:
        """Return this for the process table."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Any) -> Restart | None:
        """Parse what ``document()`` returned; None if it is something else."""
        try:
            return cls(str(document["reason"]), float(document["at"]))
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def time(self) -> datetime:
        """When, in UTC."""
        return datetime.fromtimestamp(self.at, UTC)

    def line(self, log_format: str) -> str:
        """Return the line for the process's own log, in its format: json or console."""
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
