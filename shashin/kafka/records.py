"""Records as read from Kafka, and the outcome of processing them in a pipeline stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from shashin.errors import ShashinError
    from shashin.kafka.dead_letters import DeadLetter
    from shashin.kafka.producer import OutRecord


@dataclass(frozen=True)
class InRecord:
    """A record read from Kafka."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()

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


@dataclass(frozen=True)
class Outcome:
    """The outcome of one record: its output records and dead letters."""

    outputs: Sequence[OutRecord] = ()
    dead_letters: Sequence[DeadLetter] = ()
    retry_for: ShashinError | None = None
    """The retryable error; None when this outcome is final."""

    @property
    def dead_lettered(self) -> bool:
        """Whether the whole record is dead-lettered."""
        return any(dead_letter.scope == "record" for dead_letter in self.dead_letters)


class Stage(Protocol):
    """One service's processing of records; it reports errors and never retries."""

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        """Return one outcome per record, in order; may be called again with a subset."""
        ...

    def partitions_lost(self, partitions: Sequence[int]) -> None:
        """Drop the state of these partitions: another consumer owns them now."""
        ...
