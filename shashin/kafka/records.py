"""Records as read from Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord


@dataclass(frozen=True)
class InRecord:
    """A record read from Kafka."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes | None]] = ()
    """Names may repeat, and a value may be null."""

    @classmethod
    def of(cls, record: ConsumerRecord) -> InRecord:
        """Convert a record of the client library."""
        return cls(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value or b"",
            record.headers,
        )

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"
