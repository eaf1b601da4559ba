"""What a client does in a call, step by step, without doing it: both clients carry out the same steps. Pure.

A call is a generator that yields steps and is sent their outcomes; what it returns is what the call does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from shashin.client.answer import Answer, Located, Status
from shashin.client.answer_messages import answer_of, located_of, status_of
from shashin.client.failures import Failure
from shashin.client.query import Query, ReadPart
from shashin.client.requests import locate_requests, search_request
from shashin.client.retrying import RetryBudget, RetryPolicy
from shashin.errors import DeadlineExceeded, InvalidQuery
from shashin.v1 import search_pb2

_MAX_DEADLINE_MS = 60_000

Method = Literal["Search", "Locate", "Status"]


@dataclass(frozen=True)
class Send:
    """Send a request; the outcome is the response, or a Failure."""

    method: Method
    request: Any
    seconds: float
    """Until the deadline."""


@dataclass(frozen=True)
class Pause:
    """Wait; there is no outcome."""

    seconds: float


Step: TypeAlias = Send | Pause
T = TypeVar("T")
Call: TypeAlias = Generator[Step, Any, T]


class Calls:
    """The calls of one client."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._budget = RetryBudget(policy)
        self._clock = clock
        self._jitter = jitter

    def search(self, query: Query, read: Sequence[ReadPart], seconds: float) -> Call[Answer]:
        """Search within some seconds."""
        request = search_request(query, read)
        return answer_of((yield from self._sent("Search", request, self._deadline(seconds))))

    def locate(self, listing_ids: str | Iterable[str], seconds: float) -> Call[Located]:
        """Locate any number of listings within some seconds."""
        deadline = self._deadline(seconds)
        found = []
        for request in locate_requests(listing_ids):
            found.append((yield from self._sent("Locate", request, deadline)))  # noqa: PERF401
        return located_of(found)

    def status(self, seconds: float) -> Call[Status]:
        """Ask for the status within some seconds."""
        request = search_pb2.StatusRequest()
        return status_of((yield from self._sent("Status", request, self._deadline(seconds))))

    def _deadline(self, seconds: float) -> float:
        if not seconds > 0:
            raise InvalidQuery(
                f"timeout is {seconds:g}; expected more than 0 seconds", field="timeout"
            )
        return self._clock() + seconds

    def _sent(self, method: Method, request: Any, deadline: float) -> Call[Any]:
        """Send a request until it is answered, and return the response."""
        self._budget.note_call()
        failures = 0
        while True:
            left = deadline - self._clock()
            if left <= 0:
                raise DeadlineExceeded("the timeout passed before the call could be sent")
            if isinstance(request, search_pb2.SearchRequest):
                # Else the router would apply its own default.
                request.deadline_ms = max(1, min(_MAX_DEADLINE_MS, int(left * 1000)))
            outcome = yield Send(method, request, left)
            if not isinstance(outcome, Failure):
                return outcome
            failures += 1
            pause = self._policy.pause_seconds(outcome, failures, self._jitter())
            # Rather the cause now than a deadline later.
            if pause is None or pause >= deadline - self._clock() or not self._budget.takes_retry():
                raise outcome.error
            yield Pause(pause)
