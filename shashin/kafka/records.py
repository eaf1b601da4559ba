"""Records as read from Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shashin.kafka.decoding import Undecodable

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

NO_VALUE = "the record has no value (a tombstone)"


@dataclass(frozen=True)
class DamagedBatch:
    """A batch of the log that the client library cannot decode at all."""

    first_offset: int
    next_offset: int
    reason: str


@dataclass(frozen=True)
class InRecord:
    """A record read from Kafka."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    """Empty for a tombstone; raw bytes for what cannot be decoded."""
    headers: Sequence[tuple[str, bytes | None]] = ()
    """Names may repeat, and a value may be null."""
    problem: str = ""
    """Why the value is not what a producer wrote; empty if it is."""
    batch: DamagedBatch | None = None
    """Set if this stands for a whole batch."""

    @classmethod
    def of(cls, record: ConsumerRecord) -> InRecord:
        """Convert a record of the client library."""
        value, problem, batch = record.value, "", None
        if isinstance(value, Undecodable):
            problem = f"the {'batch' if value.is_batch else 'record'} is damaged: {value.reason}"
            if value.is_batch:
                batch = DamagedBatch(value.first_offset, record.offset + 1, value.reason)
        elif value is None:
            value, problem = b"", NO_VALUE
        return cls(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            value,
            record.headers,
            problem,
            batch,
        )

    @property
    def log_fields(self) -> dict[str, str | int]:
        """The fields of a log line about it."""
        return {
            "record": str(self),
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
        }

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"
