"""What a stage of the pipeline does with records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shashin.errors import ShashinError
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.producer import OutRecord
from shashin.kafka.records import InRecord


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
