"""When to dead-letter a record, and when to pause because too many would be dead-lettered.

Used by every loop that dead-letters records: the consumer groups of shashin.kafka.consume, and
the indexer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from shashin.errors import RecordsLost, TooManyDeadLetters
from shashin.kafka.dead_letters import DeadLetter
from shashin.metrics import kafka as metrics
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope

log = get_logger(__name__)


@dataclass(frozen=True)
class DeadLetterPolicy:
    """When a record is dead-lettered, and when consumption pauses instead."""

    attempts: int = 5
    """Maximum attempts at a record with a retryable error."""
    window: int = 200
    """Number of recent records that ``share`` is measured over."""
    share: float = 0.25
    """Maximum share of these that may be dead-lettered."""


class RecentRecords:
    """Tracks which of the recent records were dead-lettered."""

    def __init__(self, policy: DeadLetterPolicy) -> None:
        self._policy = policy
        self._dead_lettered: deque[bool] = deque(maxlen=policy.window)

    def would_exceed(self, dead_lettered: Sequence[bool]) -> bool:
        """Whether adding these records, one flag each, would exceed the allowed share."""
        recent = [*self._dead_lettered, *dead_lettered][-self._policy.window :]
        return sum(recent) > self._policy.share * self._policy.window

    def note(self, dead_lettered: Sequence[bool]) -> None:
        """Add records to the window."""
        self._dead_lettered.extend(dead_lettered)

    def refuse(
        self, topic: str, dead_lettered: Sequence[bool], first: DeadLetter
    ) -> TooManyDeadLetters:
        """Return the error for records that would exceed the allowed share."""
        return TooManyDeadLetters(
            f"{sum(dead_lettered)} of {len(dead_lettered)} records of {topic} would be "
            f"dead-lettered, which exceeds {self._policy.share:.0%} of the last "
            f"{self._policy.window}; the first is {first.record}: {first.error.reason}: "
            f"{first.error.message}. None was dead-lettered. Fix the cause and restart, or raise "
            "SHASHIN_DEAD_LETTER_SHARE"
        )


async def pause_consumption(
    error: TooManyDeadLetters | RecordsLost, topic: str, loop: LoopScope
) -> None:
    """Report that consumption is paused, and wait until the process stops.

    The process stays alive: a restart without a decision of the operator would change nothing, or
    only dead-letter the next records.
    """
    metrics.PAUSED.labels(topic).set(1)
    loop.degraded(f"processing of {topic}", error.message)
    log.error("consumption paused", topic=topic, error=error.message)
    await loop.until_stopped()
