"""What can succeed later is tried again, with pauses that grow, until it does or no retry can help."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice, pairwise, repeat

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import KafkaUnavailable, ObjectStoreUnavailable, RecordError
from shashin.kafka import retry
from shashin.kafka.retry import backoff_seconds, until_done
from shashin.runtime.health import Health
from tests.support.waiting import until

SECONDS = st.floats(0.001, 1000)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "backoff_seconds", lambda: repeat(0.0))


@given(SECONDS, SECONDS)
def test_pauses_double_up_to_the_greatest_and_each_is_between_half_and_the_whole(
    first: float, greatest: float
) -> None:
    whole = min(first, greatest)
    for pause in islice(backoff_seconds(first=first, greatest=greatest), 30):
        assert whole / 2 <= pause <= whole
        whole = min(whole * 2, greatest)


def test_pauses_never_come_to_an_end() -> None:
    pauses = list(islice(backoff_seconds(), 5000))
    assert all(5.0 <= pause <= 10.0 for pause in pauses[10:])


def test_two_that_failed_together_do_not_come_back_together() -> None:
    one, two = (list(islice(backoff_seconds(), 20)) for _ in range(2))
    assert one != two
    assert all(a != b for a, b in pairwise(one[10:])), "nor does one come back at a beat"


class Failing:
    """Fails with each of these errors in turn, then succeeds; ``hook`` runs in every try."""

    def __init__(self, *errors: Exception, hook: Callable[[], object] = lambda: None) -> None:
        self._errors: Iterator[Exception] = iter(errors)
        self._hook = hook
        self.tries = 0

    async def __call__(self) -> str:
        self.tries += 1
        self._hook()
        for error in self._errors:
            raise error
        return "done"


async def done(do: Callable[[], Awaitable[str]], stopping: asyncio.Event | None = None) -> str:
    return await until_done("do it", do, stopping=stopping or asyncio.Event(), beat=None)


async def test_what_succeeds_is_done_once() -> None:
    do = Failing()
    assert await done(do) == "done"
    assert do.tries == 1


async def test_what_can_succeed_later_is_tried_again_and_every_failure_is_said(
    no_pauses: None,
) -> None:
    do = Failing(KafkaUnavailable("first"), ObjectStoreUnavailable("second"))
    with structlog.testing.capture_logs() as logged:
        assert await done(do) == "done"
    assert do.tries == 3
    assert [(line["what"], line["tries"], line["error"]) for line in logged] == [
        ("do it", 1, "first"),
        ("do it", 2, "second"),
    ]


@pytest.mark.parametrize("error", [RecordError("too large"), ZeroDivisionError("a bug")])
async def test_what_no_retry_can_help_is_raised_at_once(no_pauses: None, error: Exception) -> None:
    do = Failing(KafkaUnavailable("gone"), error)
    with pytest.raises(type(error), match=str(error)):
        await done(do)
    assert do.tries == 2


async def test_the_last_error_is_raised_when_the_process_is_to_stop(no_pauses: None) -> None:
    stopping = asyncio.Event()
    errors = [KafkaUnavailable(str(number)) for number in range(1, 9)]
    do = Failing(*errors, hook=lambda: stopping.set() if do.tries == 3 else None)
    with pytest.raises(KafkaUnavailable, match="3"):
        await done(do, stopping)


async def test_a_process_that_is_to_stop_does_not_wait_for_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "backoff_seconds", lambda: repeat(3600.0))
    stopping = asyncio.Event()
    do = Failing(KafkaUnavailable("first"), KafkaUnavailable("second"))
    waiting = asyncio.ensure_future(done(do, stopping))
    await until(lambda: do.tries == 1, "it waits to try again")
    stopping.set()
    with pytest.raises(KafkaUnavailable, match="second"):
        await asyncio.wait_for(waiting, 60)


async def test_the_heart_beats_while_it_waits(no_pauses: None) -> None:
    # A dependency that is gone is no reason to be restarted.
    now = 0.0

    def half_a_minute_passes() -> None:
        nonlocal now
        assert health.liveness_problems() == []
        now += 30

    health = Health(stall_seconds=40, clock=lambda: now)
    beat = health.heartbeat("reader")
    do = Failing(*(KafkaUnavailable("gone") for _ in range(20)), hook=half_a_minute_passes)
    assert await until_done("do it", do, stopping=asyncio.Event(), beat=beat) == "done"
    assert do.tries == 21
