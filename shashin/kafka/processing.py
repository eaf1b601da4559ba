"""Processes records until their outcomes are final: retryable errors are retried, and a burst of
dead letters is attributed to this process or its dependencies, not to the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shashin.errors import UnexpectedFailure, UnparsableRecord
from shashin.kafka.dead_letter_policy import DeadLetterPolicy, RecentRecords
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome, Stage
from shashin.metrics import kafka as metrics
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope

log = get_logger(__name__)


class Interrupted(Exception):
    """The process is stopping while records wait for a retry: the next consumer processes them."""


class BatchProcessor:
    """Has a stage process records until each outcome is final."""

    def __init__(self, stage: Stage, policy: DeadLetterPolicy, topic: str, loop: LoopScope) -> None:
        self._stage = stage
        self._policy = policy
        self._topic = topic
        self._loop = loop
        self._recent = RecentRecords(policy)
        self._work = f"processing of {topic}"

    async def outcomes(self, records: Sequence[InRecord]) -> list[Outcome]:
        """Return one final outcome per record.

        If too many fail with retryable errors, a dependency must be unavailable: nothing is
        dead-lettered, and consumption pauses, reports why, and resumes once they succeed.

        Raises:
            TooManyDeadLetters: when too many fail with errors that are not retryable.
            Interrupted: when the process stops before all outcomes are final.
        """
        for wait in backoff_seconds(first=1.0):
            outcomes = await self._outcomes_of(records)
            dead_lettered = [outcome.dead_lettered for outcome in outcomes]
            if not any(dead_lettered) or not self._recent.would_exceed(dead_lettered):
                self._recent.note(dead_lettered)
                self._loop.clear(self._work)
                return outcomes
            permanent = [
                outcome.dead_lettered and outcome.retry_for is None for outcome in outcomes
            ]
            first = next(
                dead_letter for outcome in outcomes for dead_letter in outcome.dead_letters
            )
            refusal = self._recent.refuse(self._topic, dead_lettered, first)
            if self._recent.would_exceed(permanent):
                raise refusal
            self._loop.degraded(self._work, refusal.message)
            log.warning("consumption paused: retrying", topic=self._topic, error=refusal.message)
            await self._pause(wait)
        raise AssertionError("unreachable: the waits never end")

    async def _outcomes_of(self, records: Sequence[InRecord]) -> list[Outcome]:
        """Process the records; those without a readable value are dead-lettered as they are."""
        readable = [record for record in records if not record.problem]
        processed = iter(await self._process_with_retries(readable)) if readable else iter(())
        return [_unreadable(r) if r.problem else next(processed) for r in records]

    async def _process_with_retries(self, records: Sequence[InRecord]) -> list[Outcome]:
        """Process the records, those with retryable errors up to ``attempts`` times."""
        outcomes: dict[int, Outcome] = {}
        waiting = list(range(len(records)))
        for attempts, wait in enumerate(backoff_seconds(), start=1):
            found = await self._process([records[i] for i in waiting])
            outcomes |= zip(waiting, (_with_attempts(o, attempts) for o in found), strict=True)
            waiting = [i for i in waiting if outcomes[i].retry_for is not None]
            if not waiting or attempts >= self._policy.attempts:
                break
            for i in waiting:
                error = outcomes[i].retry_for
                assert error is not None
                metrics.RETRIES.labels(self._topic, error.reason).inc()
                log.info(
                    "retrying", **records[i].log_fields, attempts=attempts, error=error.message
                )
            await self._pause(wait)
        return [outcomes[i] for i in range(len(records))]

    async def _process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        try:
            return await self._stage.process(records)
        except Exception as error:
            if len(records) > 1:
                log.exception("processing failed: retrying records one by one", topic=self._topic)
                return [(await self._process([record]))[0] for record in records]
            log.exception("processing failed", **records[0].log_fields)
            failure = UnexpectedFailure(f"{records[0]}: {type(error).__name__}: {error}")
            dead_letter = DeadLetter(records[0], failure, step=f"process {self._topic}")
            return [Outcome(dead_letters=[dead_letter], retry_for=failure)]

    async def _pause(self, seconds: float) -> None:
        if not await self._loop.sleep(seconds):
            raise Interrupted


def _unreadable(record: InRecord) -> Outcome:
    error = UnparsableRecord(f"{record}: {record.problem}")
    return Outcome(dead_letters=[DeadLetter(record, error, step=f"read {record.topic}")])


def _with_attempts(outcome: Outcome, attempts: int) -> Outcome:
    dead_letters = [replace(dead_letter, attempts=attempts) for dead_letter in outcome.dead_letters]
    return replace(outcome, dead_letters=dead_letters)
