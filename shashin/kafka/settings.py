"""Settings of every service that dead-letters records."""

from __future__ import annotations

from pydantic import Field

from shashin.kafka.dead_letter_policy import DeadLetterPolicy
from shashin.kafka.lost_records import OnLostRecords
from shashin.runtime.settings import ServiceSettings


class ConsumerSettings(ServiceSettings):
    """Handling of records that fail."""

    attempts: int = Field(
        5,
        ge=1,
        le=100,
        description="Attempts at a record that fails with a retryable error, before it is "
        "dead-lettered.",
    )
    dead_letter_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Maximum share of the last SHASHIN_DEAD_LETTER_WINDOW records that may be "
        "dead-lettered. If more would be, the service dead-letters nothing, pauses consumption "
        "and reports it on /healthz.",
    )
    dead_letter_window: int = Field(
        200,
        ge=1,
        le=100_000,
        description="Number of recent records that SHASHIN_DEAD_LETTER_SHARE is measured over.",
    )

    on_lost_records: OnLostRecords = Field(
        "stop",
        description="What to do when a topic's retention has deleted records before they were "
        "read: `stop` reading and report the gap on /healthz, or `continue` after it and count "
        "it in shashin_lost_records_total.",
    )

    def dead_letter_policy(self) -> DeadLetterPolicy:
        """Return the dead-letter policy."""
        return DeadLetterPolicy(self.attempts, self.dead_letter_window, self.dead_letter_share)
