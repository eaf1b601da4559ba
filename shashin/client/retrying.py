"""When a failed call is sent again: within its deadline, with jitter, and from a budget. Pure but for a lock."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from shashin.client.failures import Failure

_RETRIED = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"}
"""Statuses of calls that had no effect and may succeed elsewhere or later. A deadline is the caller's own."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call is sent, and how long after a failure."""

    attempts: int = 4
    """How often a call is sent at most; 1 for never again."""
    first_pause_seconds: float = 0.05
    """The longest pause after the first failure; it doubles with each further one."""
    longest_pause_seconds: float = 1.0
    budget: float = 0.2
    """How many retries each call adds to the client's budget, so that an outage is not amplified."""
    budget_at_start: float = 10.0
    """The budget of a new client, and the most that it can have."""

    def pause_seconds(self, failure: Failure, failures: int, share: float) -> float | None:
        """Return how long to wait before the call is sent again; None if it is not.

        ``failures`` is how often it has failed, and ``share``, from 0 to 1 at random, how much of the pause is
        taken (full jitter). A pause that the server asked for comes first, whole.
        """
        error = failure.error
        if failures >= self.attempts or failure.status not in _RETRIED or not error.retryable:
            return None
        # Beyond 60 doublings it is the longest one anyway, and a float would overflow at 1024.
        doubled = self.first_pause_seconds * 2.0 ** min(failures - 1, 60)
        return error.retry_after_seconds + share * min(doubled, self.longest_pause_seconds)


DEFAULT_RETRIES = RetryPolicy()


class RetryBudget:
    """How many retries all calls of a client have left; for use by several threads."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._per_call, self._most = policy.budget, policy.budget_at_start
        self._left = policy.budget_at_start
        self._lock = threading.Lock()

    def note_call(self) -> None:
        """Add what a new call brings."""
        with self._lock:
            self._left = min(self._most, self._left + self._per_call)

    def takes_retry(self) -> bool:
        """Take one retry; returns whether there was one."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True
