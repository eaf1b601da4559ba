"""A stage that copies records, for tests of the consumer loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from shashin.errors import InvalidEvent
from shashin.kafka.consume import StageConsumer, Subscription
from shashin.kafka.dead_letter_policy import DeadLetterPolicy
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.lost_records import OnLostRecords
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.runtime.health import Health
from tests.support.loops import running

GROUP = "test-copy"


class Crash(BaseException):
    """An exception that no error handler catches."""


class Copying:
    """Copies each record of listings.events to images.downloaded; dead-letters bad ones; can crash
    on one.
    """

    def __init__(
        self,
        *,
        crash_on: bytes | None = None,
        output: Callable[[InRecord], bytes] = lambda record: record.value,
    ) -> None:
        self.seen: list[bytes] = []
        self.timestamps_ms: list[int] = []
        """Of the records that were seen."""
        self._crash_on = crash_on
        self._output = output

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        outcomes = []
        for record in records:
            self.seen.append(record.value)
            self.timestamps_ms.append(record.timestamp_ms)
            if record.value == self._crash_on:
                raise Crash
            if record.value.startswith(b"bad"):
                dead_letter = DeadLetter(record, InvalidEvent("it is bad"), "test.copy")
                outcomes.append(Outcome(dead_letters=[dead_letter]))
            else:
                output = OutRecord(
                    IMAGES_DOWNLOADED,
                    record.key,
                    self._output(record),
                    partition=record.partition,
                )
                outcomes.append(Outcome(outputs=[output]))
        return outcomes

    def partitions_lost(self, partitions: Sequence[int]) -> None:
        del partitions


@asynccontextmanager
async def consuming(
    kafka: str,
    stage: Copying,
    health: Health | None = None,
    writer: Producer | None = None,
    *,
    on_lost_records: OnLostRecords = "stop",
) -> AsyncIterator[None]:
    """Run the loop while the context is open; a crash of it comes out at the end."""
    async with Producer(kafka, client_id="test") as producer:
        consumer = StageConsumer(
            stage,
            Subscription(
                kafka,
                LISTINGS_EVENTS,
                GROUP,
                max_records=10,
                on_lost_records=on_lost_records,
                writes=(IMAGES_DOWNLOADED,),
            ),
            writer or producer,
            DeadLetterPolicy(),
        )
        async with running(consumer.loop(), health=health):
            yield
