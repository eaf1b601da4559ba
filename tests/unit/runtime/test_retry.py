"""Retryable errors are retried with exponential backoff."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice, pairwise, repeat

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from shashin.errors import KafkaUnavailable, ObjectStoreUnavailable, RecordError
from shashin.runtime import scope
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.health import Health
from tests.support.loops import loop_scope
from tests.support.waiting import until

SECONDS = st.floats(0.001, 1000)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "backoff_seconds", lambda: repeat(0.0))


@given(SECONDS, SECONDS)
def test_waits_double_up_to_the_longest_and_each_is_jittered_down_to_half(
    first: float, longest: float
) -> None:
    whole = min(first, longest)
    for wait in islice(backoff_seconds(first=first, longest=longest), 30):
        assert whole / 2 <= wait <= whole
        whole = min(whole * 2, longest)


def test_waits_never_end() -> None:
    waits = list(islice(backoff_seconds(), 5000))
    assert all(5.0 <= wait <= 10.0 for wait in waits[10:])


def test_two_loops_that_failed_together_do_not_retry_together() -> None:
    one, two = (list(islice(backoff_seconds(), 20)) for _ in range(2))
    assert one != two
    assert all(a != b for a, b in pairwise(one[10:])), "the interval is not fixed either"


class Failing:
    """Fails with each of these errors in turn, then succeeds; ``hook`` runs in every attempt."""

    def __init__(self, *errors: Exception, hook: Callable[[], object] = lambda: None) -> None:
        self._errors: Iterator[Exception] = iter(errors)
        self._hook = hook
        self.attempts = 0

    async def __call__(self) -> str:
        self.attempts += 1
        self._hook()
        for error in self._errors:
            raise error
        return "done"


async def done(
    do: Callable[[], Awaitable[str]],
    stop: asyncio.Event | None = None,
    health: Health | None = None,
) -> str:
    return await loop_scope(health, stop=stop).retry("doing it", do)


async def test_a_successful_call_is_made_once() -> None:
    do = Failing()
    assert await done(do) == "done"
    assert do.attempts == 1


async def test_retryable_errors_are_retried_and_every_failure_is_logged(
    no_waits: None,
) -> None:
    do = Failing(KafkaUnavailable("first"), ObjectStoreUnavailable("second"))
    with structlog.testing.capture_logs() as logged:
        assert await done(do) == "done"
    assert do.attempts == 3
    assert [(line["what"], line["attempts"], line["error"]) for line in logged] == [
        ("doing it", 1, "first"),
        ("doing it", 2, "second"),
    ]


async def test_each_retry_is_counted_by_its_error(no_waits: None) -> None:
    def retries(error: str) -> float:
        name, labels = "shashin_operation_retries_total", {"reason": error}
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = retries("KafkaUnavailable"), retries("ObjectStoreUnavailable")
    failing = Failing(*(KafkaUnavailable("away") for _ in range(3)), ObjectStoreUnavailable("full"))
    assert await done(failing) == "done"
    after = retries("KafkaUnavailable"), retries("ObjectStoreUnavailable")
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)


async def test_a_retried_operation_is_reported_with_its_error_until_it_succeeds(
    no_waits: None,
) -> None:
    health, seen = Health(), list[list[str]]()
    do = Failing(KafkaUnavailable("gone"), hook=lambda: seen.append(health.problems()))
    await done(do, health=health)
    assert seen == [[], ["doing it: gone"]]
    assert health.problems() == []


@pytest.mark.parametrize("error", [RecordError("too large"), ZeroDivisionError("a bug")])
async def test_an_error_that_is_not_retryable_is_raised_at_once(
    no_waits: None, error: Exception
) -> None:
    do, health = Failing(KafkaUnavailable("gone"), error), Health()
    with pytest.raises(type(error), match=str(error)):
        await done(do, health=health)
    assert do.attempts == 2
    assert health.problems() == []


async def test_an_error_that_a_person_has_to_fix_is_retried_when_it_is_named(
    no_waits: None,
) -> None:
    do = Failing(RecordError("too large"))
    assert await loop_scope().retry("doing it", do, also=(RecordError,)) == "done"


async def test_the_last_error_is_raised_when_the_loop_must_stop(no_waits: None) -> None:
    stop = asyncio.Event()
    errors = [KafkaUnavailable(str(number)) for number in range(1, 9)]
    do = Failing(*errors, hook=lambda: stop.set() if do.attempts == 3 else None)
    with pytest.raises(KafkaUnavailable, match="3"):
        await done(do, stop)


async def test_a_loop_that_must_stop_does_not_wait_any_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scope, "backoff_seconds", lambda: repeat(3600.0))
    stop = asyncio.Event()
    do = Failing(KafkaUnavailable("first"), KafkaUnavailable("second"))
    waiting = asyncio.ensure_future(done(do, stop))
    await until(lambda: do.attempts == 1, "it waits for the retry")
    stop.set()
    with pytest.raises(KafkaUnavailable, match="second"):
        await asyncio.wait_for(waiting, 60)


async def test_an_unavailable_dependency_is_never_a_stall_during_or_between_attempts(
    no_waits: None,
) -> None:
    now = 0.0

    def an_hour_passes() -> None:
        nonlocal now
        assert health.liveness_problems() == []
        now += 3600
        assert health.liveness_problems() == []
        assert health.problems()

    health = Health(stall_seconds=40, clock=lambda: now)
    do = Failing(*(KafkaUnavailable("gone") for _ in range(20)), hook=an_hour_passes)
    assert await done(do, health=health) == "done"
    assert do.attempts == 21
