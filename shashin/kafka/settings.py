"""Settings of every service that dead-letters records."""

from __future__ import annotations

from pydantic import Field

from shashin.kafka.dead_letter_policy import DeadLetterPolicy
from shashin.runtime.settings import ServiceSettings


class ConsumerSettings(ServiceSettings):
    """How a service that reads records treats bad ones."""

    attempts: int = Field(
        5,
        ge=1,
        le=100,
        description="Attempts at a record that may succeed later, before it is dead-lettered.",
    )
    dead_letter_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of the last SHASHIN_DEAD_LETTER_WINDOW records that may be "
        "dead-lettered. When more would be, the fault is taken to be here: the service pauses "
        "consumption, dead-letters nothing, and /healthz says so.",
    )
    dead_letter_window: int = Field(
        200, ge=1, le=100_000, description="Recent records that SHASHIN_DEAD_LETTER_SHARE is of."
    )

    def dead_letter_policy(self) -> DeadLetterPolicy:
        """Return when a record is dead-lettered."""
        return DeadLetterPolicy(self.attempts, self.dead_letter_window, self.dead_letter_share)
