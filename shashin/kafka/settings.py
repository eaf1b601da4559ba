"""Settings of every service that gives records up."""

from __future__ import annotations

from pydantic import Field

from shashin.kafka.settling import GivingUp
from shashin.runtime.settings import ServiceSettings


class ConsumerSettings(ServiceSettings):
    """What a service that reads records can be told of bad ones."""

    tries: int = Field(
        5,
        ge=1,
        le=100,
        description="Tries of a record that may succeed later, before it is a dead letter.",
    )
    dead_letter_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Share of the last SHASHIN_DEAD_LETTER_WINDOW records that may become dead "
        "letters. Where more would, the fault is taken to be here: the service stops reading and "
        "gives up nothing, and /healthz says so.",
    )
    dead_letter_window: int = Field(
        200, ge=1, le=100_000, description="Recent records that SHASHIN_DEAD_LETTER_SHARE is of."
    )

    def giving_up(self) -> GivingUp:
        """Return when a record is given up."""
        return GivingUp(self.tries, self.dead_letter_window, self.dead_letter_share)
