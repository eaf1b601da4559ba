"""Records as they are read, and what a stage of the pipeline makes of them."""

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
    """A record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()

    @classmethod
    def of(cls, record: ConsumerRecord) -> InRecord:
        """Return a record as the client library gives it."""
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
    """The outcome of one record: what it leads to, and what of it is dead-lettered."""

    outputs: Sequence[OutRecord] = ()
    dead_letters: Sequence[DeadLetter] = ()
    retry_for: ShashinError | None = None
    """The error that a retry may help; None when this outcome is final."""

    @property
    def dead_lettered(self) -> bool:
        """Whether nothing of the record goes on."""
        return any(dead_letter.scope == "record" for dead_letter in self.dead_letters)


class Stage(Protocol):
    """What one service does with records; it names what is wrong with one, and retries nothing."""

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        """Return one outcome per record, in their order; may be called again with some of them."""
        ...

    def partitions_lost(self, partitions: Sequence[int]) -> None:
        """Forget what was remembered of these partitions: somebody else has them now."""
        ...
