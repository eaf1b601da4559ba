"""From records to outcomes that are final: what may succeed later is tried again, and a storm of
dead letters is taken for a fault of this process, not of the records.

Every loop that gives records up does so through here: the consumer groups of
shashin.kafka.consume, and the indexer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from shashin.errors import TooManyDeadLetters, UnexpectedFailure
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.records import InRecord, Outcome, Stage
from shashin.kafka.retry import backoff_seconds
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import sleep_unless

if TYPE_CHECKING:
    from shashin.runtime.health import Health, Heartbeat

RETRIES = Counter("shashin_retries", "Records tried again, by why.", ["topic", "reason"])
STOPPED = Gauge(
    "shashin_consumer_stopped",
    "1 while a consumer has stopped because it would give up too many records, else 0.",
    ["topic"],
)

log = get_logger(__name__)


@dataclass(frozen=True)
class GivingUp:
    """When a record is given up, and when giving up is refused."""

    tries: int = 5
    """Of a record whose error a retry may help."""
    window: int = 200
    """Recent records that are looked at."""
    share: float = 0.25
    """Of these, the most that may be given up."""


class Interrupted(Exception):
    """The process is to stop while records wait for another try: they are left for the next one."""


class RecentRecords:
    """How many of the records of late were given up."""

    def __init__(self, policy: GivingUp) -> None:
        self._policy = policy
        self._given_up: deque[bool] = deque(maxlen=policy.window)

    def would_exceed(self, given_up: Sequence[bool]) -> bool:
        """Whether these records, one flag each, would make too many."""
        recent = [*self._given_up, *given_up][-self._policy.window :]
        return sum(recent) > self._policy.share * self._policy.window

    def note(self, given_up: Sequence[bool]) -> None:
        """Remember records."""
        self._given_up.extend(given_up)

    def refuse(self, topic: str, given_up: Sequence[bool], first: DeadLetter) -> TooManyDeadLetters:
        """Return the error of records that would make too many."""
        return TooManyDeadLetters(
            f"{sum(given_up)} of {len(given_up)} records of {topic} would be dead letters now, more "
            f"than {self._policy.share:.0%} of the last {self._policy.window} in all; the first is "
            f"{first.record}: {first.error.reason}: {first.error.message}. Nothing of them is given "
            "up. Mend what is wrong and start again, or allow more with SHASHIN_DEAD_LETTER_SHARE"
        )


class Settler:
    """Has a stage process records until each outcome is final."""

    def __init__(
        self,
        stage: Stage,
        policy: GivingUp,
        *,
        topic: str,
        health: Health,
        beat: Heartbeat,
        stopping: asyncio.Event,
    ) -> None:
        self._stage = stage
        self._policy = policy
        self._topic = topic
        self._health = health
        self._beat = beat
        self._stopping = stopping
        self._recent = RecentRecords(policy)
        self._condition = f"processing of {topic}"

    async def settle(self, records: Sequence[InRecord]) -> list[Outcome]:
        """Return one final outcome a record.

        While so many fail in a way that a retry may help that what they need must be away, nothing
        is given up: the loop stands still, says why, and goes on when it is back.

        Raises:
            TooManyDeadLetters: when too many fail in a way that no retry can help.
            Interrupted: when the process is to stop before all is final.
        """
        for wait in backoff_seconds(first=1.0):
            outcomes = await self._tried(records)
            given_up = [outcome.given_up for outcome in outcomes]
            if not any(given_up) or not self._recent.would_exceed(given_up):
                self._recent.note(given_up)
                self._health.go_on(self._condition)
                return outcomes
            for_good = [outcome.given_up and outcome.try_again is None for outcome in outcomes]
            first = next(letter for outcome in outcomes for letter in outcome.dead_letters)
            refusal = self._recent.refuse(self._topic, given_up, first)
            if self._recent.would_exceed(for_good):
                raise refusal
            self._health.hold(self._condition, refusal.message)
            log.warning("waiting to try again", topic=self._topic, error=refusal.message)
            await self._pause(wait)
        raise AssertionError("unreachable: the waits never end")

    async def _tried(self, records: Sequence[InRecord]) -> list[Outcome]:
        """Process the records, those that may succeed later up to ``tries`` times."""
        outcomes: dict[int, Outcome] = {}
        waiting = list(range(len(records)))
        for tries, wait in enumerate(backoff_seconds(), start=1):
            found = await self._processed([records[i] for i in waiting])
            outcomes |= zip(waiting, (_with_tries(o, tries) for o in found), strict=True)
            waiting = [i for i in waiting if outcomes[i].try_again is not None]
            if not waiting or tries >= self._policy.tries:
                break
            for i in waiting:
                error = outcomes[i].try_again
                assert error is not None
                RETRIES.labels(self._topic, error.reason).inc()
                log.info("trying again", record=str(records[i]), tries=tries, error=error.message)
            await self._pause(wait)
        return [outcomes[i] for i in range(len(records))]

    async def _processed(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        try:
            return await self._stage.process(records)
        except Exception as error:
            if len(records) > 1:
                log.exception("processing failed: taking its records one by one", topic=self._topic)
                return [(await self._processed([record]))[0] for record in records]
            log.exception("processing failed", record=str(records[0]))
            failure = UnexpectedFailure(f"{records[0]}: {type(error).__name__}: {error}")
            letter = DeadLetter(records[0], failure, step=f"process {self._topic}")
            return [Outcome(dead_letters=[letter], try_again=failure)]

    async def _pause(self, seconds: float) -> None:
        self._beat.beat()
        if await sleep_unless(self._stopping, seconds):
            raise Interrupted
        self._beat.beat()


def _with_tries(outcome: Outcome, tries: int) -> Outcome:
    letters = [replace(letter, tries=tries) for letter in outcome.dead_letters]
    return replace(outcome, dead_letters=letters)


async def stand_still(
    error: TooManyDeadLetters,
    topic: str,
    *,
    health: Health,
    beat: Heartbeat,
    stopping: asyncio.Event,
) -> None:
    """Say that the loop has stopped, and keep the process for its other work until it is to end.

    It stays alive: restarting it would only give up the next records.
    """
    STOPPED.labels(topic).set(1)
    health.hold(f"processing of {topic}", error.message)
    log.error("stopped: too many dead letters", topic=topic, error=error.message)
    while not await sleep_unless(stopping, 1.0):
        beat.beat()
