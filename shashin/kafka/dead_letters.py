"""Dead letters: unprocessable records, with the reason in their headers.

A record is kept unchanged if it fits. Records arrive compressed, so one may be many times larger
than its topic's limit suggests: then as much of it as fits is kept, with its length and hash, and the
position where the original is for as long as its topic retains it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from shashin.errors import ShashinError
from shashin.kafka.producer import OutRecord
from shashin.kafka.record_traces import extract, inject
from shashin.kafka.records import InRecord
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, MAX_DEAD_LETTER_BYTES
from shashin.metrics import kafka as metrics
from shashin.runtime import tracing
from shashin.runtime.logging import get_logger

if TYPE_CHECKING:
    from shashin.runtime.spans import Span

Scope = Literal["record", "photo"]

_HEADER_PREFIX = "shashin-"

TRUNCATED_FROM, SHA256 = "shashin-truncated-from", "shashin-sha256"
"""Length and hash of the original value, if only its beginning is kept."""

_MAX_VALUE_BYTES = MAX_DEAD_LETTER_BYTES - 512 * 1024
"""The rest is for the key, all headers and the batch around the record."""
_MAX_HEADERS_BYTES = 256 * 1024
_MAX_KEY_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 16 * 1024

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
    span: Span | None = field(default_factory=tracing.current, compare=False, repr=False)
    """The span in which it failed, if tracing is on."""

    def as_record(self) -> OutRecord:
        """Return the record for ``<topic>.dlq``, with the cause in extra headers; it always fits."""
        value, key = self.record.value, self.record.key
        cause = {
            "shashin-error": self.error.reason,
            "shashin-message": self.error.message[:_MAX_MESSAGE_BYTES],
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
        if len(value) > _MAX_VALUE_BYTES:
            cause[TRUNCATED_FROM] = str(len(value))
            cause[SHA256] = hashlib.sha256(value).hexdigest()
            value = value[:_MAX_VALUE_BYTES]
        if key is not None and len(key) > _MAX_KEY_BYTES:
            cause["shashin-key-truncated-from"] = str(len(key))
            key = key[:_MAX_KEY_BYTES]
        # A record that was copied back from a .dlq topic still has the earlier cause.
        kept = [
            header for header in self.record.headers if not header[0].startswith(_HEADER_PREFIX)
        ]
        if self.span is not None and extract(kept) is None:
            # So that a replay continues the trace that began when the record was read.
            kept = list(inject(kept, self.span.carrier))
        if (size := _header_bytes(kept)) > _MAX_HEADERS_BYTES:
            cause["shashin-headers-left-out"] = f"{len(kept)} with {size} bytes"
            kept = []
        return OutRecord(
            topic=self.record.topic + DEAD_LETTER_SUFFIX,
            key=key,
            value=value,
            headers=[*kept, *((name, text.encode()) for name, text in cause.items())],
        )


def _header_bytes(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(
        len(name.encode(errors="replace")) + len(value or b"") + 10 for name, value in headers
    )


def note_dead_letters(dead_letters: Iterable[DeadLetter]) -> None:
    """Count and log dead letters."""
    for dead_letter in dead_letters:
        metrics.DEAD_LETTERS.labels(
            dead_letter.record.topic, dead_letter.scope, dead_letter.error.reason
        ).inc()
        log.warning(
            "dead letter",
            **dead_letter.record.log_fields,
            **({} if dead_letter.span is None else dead_letter.span.log_fields),
            scope=dead_letter.scope,
            step=dead_letter.step,
            attempts=dead_letter.attempts,
            reason=dead_letter.error.reason,
            error=dead_letter.error.message,
        )
