"""When a failed call is sent again, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.client.calls import Call, Calls, Pause, Send
from shashin.client.failures import Failure
from shashin.client.photo_input import photos_read
from shashin.client.query import Query
from shashin.client.retrying import RetryBudget, RetryPolicy
from shashin.errors import (
    CallFailed,
    DeadlineExceeded,
    InvalidQuery,
    Overloaded,
    ShashinError,
    Unavailable,
)
from shashin.v1 import search_pb2

AWAY = Failure("UNAVAILABLE", Unavailable("away"))
SHARES = st.floats(0, 1)


@dataclass
class Simulated:
    """Carries out the steps of calls, and moves the clock by what they take."""

    outcomes: Callable[[int], Any]
    """Of the nth request."""
    takes: float = 0.0
    """Seconds that a request takes."""
    now: float = 1000.0
    sent: list[tuple[float, Send, int]] = field(default_factory=list)
    """When, what, and the deadline in the request."""

    def carry_out(self, call: Call[Any]) -> Any:
        outcome = None
        while True:
            try:
                step = call.send(outcome)
            except StopIteration as done:
                return done.value
            if isinstance(step, Pause):
                assert step.seconds >= 0
                self.now += step.seconds
                outcome = None
            else:
                told = getattr(step.request, "deadline_ms", 0)
                self.sent.append((self.now, step, told))
                self.now += min(self.takes, step.seconds)
                outcome = self.outcomes(len(self.sent))

    def search(self, calls: Calls, seconds: float = 10.0) -> Any:
        query = Query(vector=[1.0])
        return self.carry_out(calls.search(query, photos_read(query), seconds))


def calls_on(simulated: Simulated, policy: RetryPolicy, share: float = 1.0) -> Calls:
    return Calls(policy, clock=lambda: simulated.now, jitter=lambda: share)


@given(
    attempts=st.integers(1, 8),
    share=SHARES,
    takes=st.floats(0, 1),
    seconds=st.floats(0.01, 20),
)
def test_an_outage_ends_with_its_cause_in_time_after_few_attempts(
    attempts: int, share: float, takes: float, seconds: float
) -> None:
    simulated = Simulated(lambda _n: AWAY, takes)
    policy = RetryPolicy(attempts=attempts)
    with pytest.raises(Unavailable, match="away"):
        simulated.search(calls_on(simulated, policy, share), seconds)
    assert 1 <= len(simulated.sent) <= attempts
    assert simulated.now <= 1000 + seconds + 1e-6
    for at, step, told in simulated.sent:
        left = 1000 + seconds - at
        assert step.seconds == pytest.approx(left)
        assert told == max(1, int(step.seconds * 1000))


@given(attempts=st.integers(2, 8), answered=st.integers(1, 8))
def test_the_first_answer_ends_the_attempts(attempts: int, answered: int) -> None:
    simulated = Simulated(
        lambda n: AWAY if n < answered else search_pb2.SearchResponse(model_id="one")
    )
    calls = calls_on(simulated, RetryPolicy(attempts=attempts))
    if answered <= attempts:
        assert simulated.search(calls, 60.0).model_id == "one"
    else:
        with pytest.raises(Unavailable):
            simulated.search(calls, 60.0)
    assert len(simulated.sent) == min(answered, attempts)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("INVALID_ARGUMENT", InvalidQuery("k is 0")),
        ("DEADLINE_EXCEEDED", DeadlineExceeded("late")),
        ("INTERNAL", CallFailed("?", reason="Other", retryable=True)),
        ("RESOURCE_EXHAUSTED", CallFailed("too large", reason="RESOURCE_EXHAUSTED")),
    ],
)
def test_what_no_retry_helps_is_sent_once(status: str, error: ShashinError) -> None:
    simulated = Simulated(lambda _n: Failure(status, error))
    with pytest.raises(type(error)):
        simulated.search(calls_on(simulated, RetryPolicy()))
    assert len(simulated.sent) == 1


@given(asked=st.floats(0.01, 5), share=SHARES)
def test_a_server_that_names_a_pause_gets_it(asked: float, share: float) -> None:
    full = Failure("RESOURCE_EXHAUSTED", Overloaded("full", retry_after_seconds=asked))
    simulated = Simulated(lambda n: full if n == 1 else search_pb2.SearchResponse())
    simulated.search(calls_on(simulated, RetryPolicy(), share), 60.0)
    (first, _, _), (second, _, _) = simulated.sent
    assert second - first >= asked - 1e-6


def test_a_pause_beyond_the_deadline_is_not_waited_for() -> None:
    full = Failure("RESOURCE_EXHAUSTED", Overloaded("full", retry_after_seconds=11))
    simulated = Simulated(lambda _n: full)
    with pytest.raises(Overloaded):
        simulated.search(calls_on(simulated, RetryPolicy()), 10.0)
    assert simulated.now == 1000.0


@given(failures=st.integers(1, 2000), share=SHARES)
def test_pauses_grow_up_to_the_longest_with_full_jitter(failures: int, share: float) -> None:
    policy = RetryPolicy(attempts=3000, first_pause_seconds=0.1, longest_pause_seconds=2.0)
    pause, whole = (policy.pause_seconds(AWAY, failures, one) for one in (share, 1.0))
    assert pause is not None
    assert whole is not None
    assert whole == (0.1 * 2 ** (failures - 1) if failures <= 5 else 2.0)
    assert pause == pytest.approx(share * whole)


@given(calls=st.integers(1, 300), answered=st.lists(st.booleans(), min_size=1, max_size=20))
def test_retries_are_a_share_of_calls_whatever_fails(calls: int, answered: list[bool]) -> None:
    def outcome(n: int) -> Any:
        return search_pb2.SearchResponse() if answered[n % len(answered)] else AWAY

    simulated = Simulated(outcome)
    policy = RetryPolicy(budget=0.2, budget_at_start=10.0)
    client = calls_on(simulated, policy, share=0.0)
    for _ in range(calls):
        try:
            simulated.search(client)
        except Unavailable:
            continue
    assert len(simulated.sent) <= calls + 10 + 0.2 * calls + 1e-6


def test_a_budget_is_never_more_than_at_the_start() -> None:
    budget = RetryBudget(RetryPolicy(budget=1.0, budget_at_start=3.0))
    for _ in range(100):
        budget.note_call()
    assert [budget.takes_retry() for _ in range(4)] == [True, True, True, False]


def test_all_pages_of_a_locate_share_its_deadline() -> None:
    simulated = Simulated(lambda _n: search_pb2.LocateResponse(), takes=4.0)
    ids = [f"l{number}" for number in range(3001)]
    with pytest.raises(DeadlineExceeded):
        simulated.carry_out(calls_on(simulated, RetryPolicy()).locate(ids, 10.0))
    assert [len(step.request.listing_ids) for _, step, _ in simulated.sent] == [1000] * 3
    assert [step.seconds for _, step, _ in simulated.sent] == [10.0, 6.0, 2.0]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_timeout_is_more_than_nothing(seconds: float) -> None:
    simulated = Simulated(lambda _n: search_pb2.SearchResponse())
    with pytest.raises(InvalidQuery, match="timeout is"):
        simulated.search(calls_on(simulated, RetryPolicy()), seconds)
