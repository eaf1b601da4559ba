"""Retryable errors are retried; a burst of dead letters pauses the loop and drops no records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import (
    InvalidEvent,
    PhotoUnavailable,
    ShashinError,
    TooManyDeadLetters,
)
from shashin.kafka import processing
from shashin.kafka.dead_letter_policy import (
    DeadLetterPolicy,
    RecentRecords,
    pause_consumption,
)
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.processing import BatchProcessor, Interrupted
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome
from shashin.runtime.health import Health
from tests.support.loops import loop_scope
from tests.support.waiting import until

TOPIC = "listings.events"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(**_bounds: float) -> object:
        return iter(lambda: 0.001, None)

    monkeypatch.setattr(processing, "backoff_seconds", at_once)


def records(*values: str) -> list[InRecord]:
    return [InRecord(TOPIC, 0, n, 0, b"key", value.encode()) for n, value in enumerate(values)]


class Scripted:
    """Processes each record as its value says."""

    def __init__(self) -> None:
        self.processed: list[str] = []
        self.unavailable = True

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        outcomes = []
        for record in records:
            value = record.value.decode()
            self.processed.append(value)
            if value == "bug":
                raise ZeroDivisionError("unexpected")
            outcomes.append(self._outcome(value, record))
        return outcomes

    def _outcome(self, value: str, record: InRecord) -> Outcome:
        if value == "bad":
            return Outcome(dead_letters=[DeadLetter(record, InvalidEvent("bad"), "test")])
        seen = self.processed.count(value)
        if value.startswith("later") and seen < int(value.removeprefix("later")):
            return self._not_yet(record, PhotoUnavailable("not yet"))
        if value.startswith("unavailable") and self.unavailable:
            return self._not_yet(record, PhotoUnavailable("the source is unavailable"))
        return Outcome()

    def _not_yet(self, record: InRecord, error: ShashinError) -> Outcome:
        return Outcome(dead_letters=[DeadLetter(record, error, "test")], retry_for=error)

    def partitions_lost(self, partitions: Sequence[int]) -> None:
        del partitions


def processor(
    stage: Scripted,
    policy: DeadLetterPolicy,
    health: Health | None = None,
    stop: asyncio.Event | None = None,
) -> BatchProcessor:
    return BatchProcessor(stage, policy, TOPIC, loop_scope(health, stop=stop))


async def test_only_retryable_records_are_retried_and_order_is_kept() -> None:
    stage = Scripted()
    outcomes = await processor(stage, DeadLetterPolicy(attempts=5)).outcomes(
        records("good", "later3", "bad", "fine")
    )
    assert [outcome.dead_lettered for outcome in outcomes] == [False, False, True, False]
    assert stage.processed == ["good", "later3", "bad", "fine", "later3", "later3"]


async def test_after_its_attempts_a_record_is_a_dead_letter_that_counts_them() -> None:
    (outcome,) = await processor(Scripted(), DeadLetterPolicy(attempts=4)).outcomes(
        records("later9")
    )
    (dead_letter,) = outcome.dead_letters
    assert (dead_letter.attempts, dead_letter.error.reason) == (4, "PhotoUnavailable")


async def test_a_record_that_crashes_processing_does_not_affect_others() -> None:
    outcomes = await processor(Scripted(), DeadLetterPolicy(attempts=2)).outcomes(
        records("good", "bug", "fine", "bad")
    )
    assert [outcome.dead_lettered for outcome in outcomes] == [False, True, False, True]
    (dead_letter,) = outcomes[1].dead_letters
    assert dead_letter.error.reason == "UnexpectedFailure"
    assert dead_letter.error.message == f"{TOPIC}[0]@1: ZeroDivisionError: unexpected"
    assert dead_letter.attempts == 2


async def test_too_many_permanent_failures_are_refused_naming_the_first() -> None:
    policy = DeadLetterPolicy(attempts=2, window=10, share=0.3)
    processing_records = processor(Scripted(), policy)
    await processing_records.outcomes(records("bad", "good", "bad", "bad"))
    with pytest.raises(TooManyDeadLetters, match=r"1 of 2 records .* InvalidEvent: bad"):
        await processing_records.outcomes(records("good", "bad"))


async def test_old_bad_records_do_not_count() -> None:
    processing_records = processor(Scripted(), DeadLetterPolicy(window=4, share=0.5))
    for _ in range(10):
        outcomes = await processing_records.outcomes(records("bad", "good", "good", "bad"))
        assert sum(outcome.dead_lettered for outcome in outcomes) == 2


async def test_when_a_dependency_is_unavailable_nothing_is_dead_lettered_and_consumption_resumes() -> (
    None
):
    stage, health = Scripted(), Health()
    work = asyncio.ensure_future(
        processor(stage, DeadLetterPolicy(attempts=2, window=4, share=0.5), health).outcomes(
            records("unavailable1", "unavailable2", "unavailable3", "bad")
        )
    )
    (problem,) = await until(health.readiness_problems, "it reports what it waits for")
    assert "the source is unavailable" in problem
    stage.unavailable = False
    outcomes = await work
    assert [outcome.dead_lettered for outcome in outcomes] == [False, False, False, True]
    assert not health.readiness_problems()


async def test_a_stopping_loop_does_not_dead_letter_waiting_records() -> None:
    stopping = asyncio.Event()
    work = asyncio.ensure_future(
        processor(Scripted(), DeadLetterPolicy(attempts=100), stop=stopping).outcomes(
            records("unavailable")
        )
    )
    stopping.set()
    with pytest.raises(Interrupted):
        await work


async def test_a_loop_that_paused_consumption_is_alive_and_not_ready() -> None:
    health, stop = Health(), asyncio.Event()
    paused = asyncio.ensure_future(
        pause_consumption(
            TooManyDeadLetters("5 of 6 would be"), TOPIC, loop_scope(health, stop=stop)
        )
    )
    assert await until(health.readiness_problems, "it is not ready") == [
        f"processing of {TOPIC}: 5 of 6 would be"
    ]
    assert not health.liveness_problems()
    stop.set()
    await paused


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=12), st.integers(1, 12))
def test_no_window_of_the_log_has_more_dead_letters_than_allowed(
    batches: list[list[bool]], window: int
) -> None:
    policy = DeadLetterPolicy(window=window, share=0.4)
    recent, taken = RecentRecords(policy), list[bool]()
    for batch in batches:
        if not recent.would_exceed(batch):
            recent.note(batch)
            taken += batch
            assert sum(taken[-window:]) <= 0.4 * window
