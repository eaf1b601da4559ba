"""Holds partitions back at batches that cannot be decoded, until an operator skips them.

Such a batch may hold thousands of good records that another version, or a repaired replica, can
read, so no service skips one by itself. ``shashin dlq skip`` writes it to ``<topic>.dlq`` as a dead
letter with the error ``UndecodableBatch``; whoever waits at it finds that entry and goes on after
the batch. The decision is in the log, so it holds for every reader and across restarts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from shashin.errors import KafkaUnavailable, UndecodableBatch
from shashin.kafka.dead_letters import DeadLetter
from shashin.kafka.records import DamagedBatch, InRecord
from shashin.metrics import kafka as metrics
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import LoopScope

if TYPE_CHECKING:
    from shashin.kafka.log_reader import LogReader

SKIP_STEP = "operator.skip"

_RETRY_SECONDS = 5.0

log = get_logger(__name__)


def skip_dead_letter(record: InRecord) -> DeadLetter:
    """Return the dead letter that lets readers go on after an undecodable batch."""
    assert record.batch is not None
    error = UndecodableBatch(
        f"offsets {record.batch.first_offset} to {record.batch.next_offset - 1} were skipped: "
        f"{record.batch.reason}"
    )
    return DeadLetter(record, error, step=SKIP_STEP)


def skips(entries: Iterable[InRecord]) -> set[tuple[int, int]]:
    """Return the (partition, last offset) of the batches that entries of a ``.dlq`` topic skip."""
    found = set()
    for entry in entries:
        headers = dict(entry.headers)
        if headers.get("shashin-error") == UndecodableBatch.__name__.encode():
            partition, offset = headers.get("shashin-partition"), headers.get("shashin-offset")
            if partition and offset and partition.isdigit() and offset.isdigit():
                found.add((int(partition), int(offset)))
    return found


class DamagedBatches:
    """The partitions of one consumer that wait at an undecodable batch."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        open_dead_letters: Callable[[], LogReader],
        loop: LoopScope,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._open_dead_letters = open_dead_letters
        self._dead_letters: LogReader | None = None
        self._loop = loop
        self._waiting: dict[int, DamagedBatch] = {}
        self._skips: set[tuple[int, int]] = set()
        self._read_to: dict[int, int] = {}
        self._next_retry = 0.0
        self._stack = AsyncExitStack()

    def before(self, read: Mapping[int, Sequence[InRecord]]) -> dict[int, list[InRecord]]:
        """Return the records before each partition's first undecodable batch; wait at the batch.

        A partition that waited and can be read now no longer waits.
        """
        good = {}
        for partition, records in read.items():
            at = next((i for i, record in enumerate(records) if record.batch), len(records))
            if at:
                good[partition] = list(records[:at])
            if at < len(records):
                self._wait_at(partition, records[at])
            elif partition in self._waiting:
                self._forget(partition)
        return good

    def _wait_at(self, partition: int, record: InRecord) -> None:
        assert record.batch is not None
        tp = TopicPartition(self._topic, partition)
        self._consumer.seek(tp, record.batch.first_offset)
        self._consumer.pause(tp)
        if partition not in self._waiting:
            log.error(
                "undecodable batch: the partition waits",
                **record.log_fields,
                first_offset=record.batch.first_offset,
                error=record.batch.reason,
            )
        self._waiting[partition] = record.batch
        self._report()

    def _report(self) -> None:
        metrics.UNDECODABLE_BATCHES.labels(self._topic).set(len(self._waiting))
        for partition, batch in self._waiting.items():
            place = f"{self._topic}:{partition}:{batch.first_offset}"
            self._loop.degraded(
                self._part(partition),
                f"the batch at offset {batch.first_offset} cannot be decoded ({batch.reason}): the "
                f"partition waits; to give its records up, run: shashin dlq skip {place}",
            )

    def _part(self, partition: int) -> str:
        return f"{self._topic}[{partition}]"

    async def retry(self) -> None:
        """Go on after skipped batches, and read the others again: at most every few seconds."""
        if not self._waiting or time.monotonic() < self._next_retry:
            return
        self._next_retry = time.monotonic() + _RETRY_SECONDS
        assigned = {tp.partition for tp in self._consumer.assignment()}
        try:
            await self._read_skips()
        except KafkaUnavailable as error:
            log.warning("cannot read which batches are skipped", error=error.message)
        for partition, batch in list(self._waiting.items()):
            tp = TopicPartition(self._topic, partition)
            if partition not in assigned:
                self._forget(partition)
            elif (partition, batch.next_offset - 1) in self._skips:
                log.warning("undecodable batch skipped", topic=self._topic, partition=partition)
                metrics.SKIPPED_OFFSETS.labels(self._topic).inc(
                    batch.next_offset - batch.first_offset
                )
                self._consumer.seek(tp, batch.next_offset)
                self._consumer.resume(tp)
                self._forget(partition)
            else:
                # It may have been repaired; if not, it is met again.
                self._consumer.resume(tp)

    def _forget(self, partition: int) -> None:
        del self._waiting[partition]
        self._loop.clear(self._part(partition))
        metrics.UNDECODABLE_BATCHES.labels(self._topic).set(len(self._waiting))

    async def _read_skips(self) -> None:
        if self._dead_letters is None:
            self._dead_letters = await self._stack.enter_async_context(self._open_dead_letters())
        reader = self._dead_letters
        if not self._read_to:
            self._read_to = await reader.begin_offsets(await reader.partitions())
        ends = await reader.end_offsets(list(self._read_to))
        self._skips |= skips([entry async for entry in reader.between(self._read_to, ends)])
        self._read_to = ends

    async def close(self) -> None:
        """Close the connection, if there was one."""
        await self._stack.aclose()
