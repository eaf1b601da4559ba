"""Dead letters: unprocessable records, unchanged, with the reason in their headers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter

from shashin.errors import ShashinError
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord
from shashin.kafka.topics import DEAD_LETTER_SUFFIX
from shashin.runtime.logging import get_logger

DEAD_LETTERS = Counter(
    "shashin_dead_letters",
    "Records or photos that were dead-lettered, by reason.",
    ["topic", "scope", "reason"],
)

Scope = Literal["record", "photo"]

_HEADER_PREFIX = "shashin-"

log = get_logger(__name__)


@dataclass(frozen=True)
class DeadLetter:
    """A record, or one of its photos, that is dead-lettered, and why."""

    record: InRecord
    error: ShashinError
    step: str
    """The service and step that failed, for example ``downloader.fetch``."""
    attempts: int = 1
    scope: Scope = "record"
    """record: the whole record is dropped; photo: one photo is dropped, the rest continues."""
    photo_number: int | None = None

    def as_record(self) -> OutRecord:
        """Return the record for ``<topic>.dlq``: unchanged, with the cause in extra headers."""
        cause = {
            "shashin-error": self.error.reason,
            "shashin-message": self.error.message,
            "shashin-step": self.step,
            "shashin-attempts": str(self.attempts),
            "shashin-scope": self.scope,
            "shashin-topic": self.record.topic,
            "shashin-partition": str(self.record.partition),
            "shashin-offset": str(self.record.offset),
            "shashin-at": str(int(time.time() * 1000)),
        }
        if self.photo_number is not None:
            cause["shashin-photo-number"] = str(self.photo_number)
        # A record that was copied back from a .dlq topic still has the earlier cause.
        kept = [
            header for header in self.record.headers if not header[0].startswith(_HEADER_PREFIX)
        ]
        return OutRecord(
            topic=self.record.topic + DEAD_LETTER_SUFFIX,
            key=self.record.key,
            value=self.record.value,
            headers=[*kept, *((name, value.encode()) for name, value in cause.items())],
        )


def note_dead_letters(dead_letters: Iterable[DeadLetter]) -> None:
    """Count and log dead letters."""
    for dead_letter in dead_letters:
        DEAD_LETTERS.labels(
            dead_letter.record.topic, dead_letter.scope, dead_letter.error.reason
        ).inc()
        log.warning(
            "dead letter",
            record=str(dead_letter.record),
            scope=dead_letter.scope,
            step=dead_letter.step,
            attempts=dead_letter.attempts,
            reason=dead_letter.error.reason,
            error=dead_letter.error.message,
        )
