"""Reads partitions from given offsets: positions are not those of a consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from shashin.errors import KafkaUnavailable, RecordsLost
from shashin.kafka.broker_check import BrokerCheck
from shashin.kafka.damaged_batches import DamagedBatches
from shashin.kafka.lost_records import lost_below
from shashin.kafka.polls import poll
from shashin.kafka.records import InRecord
from shashin.kafka.topic_id import topic_id_of
from shashin.kafka.topics import DEAD_LETTER_SUFFIX
from shashin.runtime.scope import LoopScope


class LogReader:
    """Reads all or some partitions of one topic; the caller manages the positions.

    ``group`` is only used for the offsets that ``commit`` writes for lag dashboards, and those that
    ``committed`` reads to measure another process's lag; no reader starts at them.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        client_id: str,
        group: str | None = None,
        fetch_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._client_id = client_id
        self._damaged: DamagedBatches | None = None
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            client_id=client_id,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_wait_ms=500,
            retry_backoff_ms=500,
            metadata_max_age_ms=10_000,
        )

    async def __aenter__(self) -> LogReader:
        try:
            await self._consumer.start()
        except KafkaError as error:
            await self._consumer.stop()
            raise KafkaUnavailable(
                f"kafka at {self._bootstrap} does not respond: {error}"
            ) from error
        except BaseException:
            # Cancelled: what was opened so far would stay.
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._damaged is not None:
            await self._damaged.close()
        await self._consumer.stop()

    async def partitions(self) -> list[int]:
        """Return the topic's partitions, sorted.

        Raises:
            KafkaUnavailable: when the topic does not exist (yet) or the broker does not respond.
        """
        try:
            found = (await self._consumer._client.fetch_all_metadata()).partitions_for_topic(  # noqa: SLF001
                self._topic
            )
        except KafkaError as error:
            raise KafkaUnavailable(f"cannot get partitions of {self._topic}: {error}") from error
        if not found:
            raise KafkaUnavailable(f"topic {self._topic} does not exist at {self._bootstrap}")
        return sorted(found)

    async def topic_id(self) -> str:
        """Return the topic's id, which a topic that is created again does not keep; empty if the
        broker has none.

        Raises:
            KafkaUnavailable: when the broker does not respond, or the topic does not exist (yet).
        """
        return await topic_id_of(self._consumer, self._topic)

    def known_partitions(self) -> list[int]:
        """Return the topic's partitions from cached metadata, without a request."""
        return sorted(self._consumer.partitions_for_topic(self._topic) or ())

    async def position(self, partition: int) -> int:
        """Return the offset of the next record to read."""
        return int(await self._consumer.position(TopicPartition(self._topic, partition)))

    async def begin_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the first offset that each partition still retains."""
        return await self._offsets(self._consumer.beginning_offsets, partitions)

    async def end_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return each partition's end: the offset of its next record, or of the first one of a
        transaction that is still open.
        """
        return await self._offsets(self._consumer.end_offsets, partitions)

    def high_watermark(self, partition: int) -> int:
        """Return a partition's end as of the last read, with transactions that are still open; 0 if
        nothing was read yet.
        """
        return self._consumer.highwater(TopicPartition(self._topic, partition)) or 0

    async def _offsets(self, fetch: object, partitions: Sequence[int]) -> dict[int, int]:
        tps = [TopicPartition(self._topic, p) for p in partitions]
        # The request waits for the metadata that this asks for. Otherwise it would fail for want of
        # the leaders, ask for them itself, and be repeated only after retry_backoff_ms.
        self._consumer._client.add_topic(self._topic)  # noqa: SLF001
        try:
            found = await fetch(tps)  # type: ignore[operator]
        except KafkaError as error:
            raise KafkaUnavailable(f"cannot get offsets of {self._topic}: {error!r}") from error
        return {tp.partition: offset for tp, offset in found.items()}

    def start_at(self, positions: Mapping[int, int]) -> None:
        """Start reading these partitions, each from its offset."""
        self._consumer.assign([TopicPartition(self._topic, p) for p in positions])
        for partition, offset in positions.items():
            self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def broker_check(self, loop: LoopScope) -> BrokerCheck:
        """Return the check of the broker, for a loop that reads nothing."""
        return BrokerCheck(self._consumer, self._bootstrap, loop)

    def wait_at_damaged_batches(self, loop: LoopScope) -> None:
        """Hold partitions back at batches that cannot be decoded, until an operator skips them.

        For topics with a ``.dlq`` topic. Otherwise ``read`` returns such a batch as a record.
        """
        topic, client_id = self._topic + DEAD_LETTER_SUFFIX, f"{self._client_id}-skips"
        self._damaged = DamagedBatches(
            self._consumer,
            self._topic,
            lambda: LogReader(self._bootstrap, topic, client_id=client_id),
            loop,
        )

    async def read(self, *, timeout_seconds: float, max_records: int) -> dict[int, list[InRecord]]:
        """Return the next records of each partition, in order; empty on timeout.

        A record whose ``problem`` is set may stand for a batch that cannot be decoded.

        Raises:
            KafkaUnavailable: when the broker does not respond.
            RecordsLost: when the log no longer has a position.
        """
        if self._damaged is not None:
            await self._damaged.retry()
        try:
            read = await poll(
                self._consumer,
                self._topic,
                timeout_ms=int(timeout_seconds * 1000),
                max_records=max_records,
            )
        except OffsetOutOfRangeError as error:
            raise await self._out_of_range() from error
        return read if self._damaged is None else self._damaged.before(read)

    async def _out_of_range(self) -> RecordsLost | KafkaUnavailable:
        """Return the error that names what was lost."""
        partitions = [tp.partition for tp in self._consumer.assignment()]
        begins, ends = await self.begin_offsets(partitions), await self.end_offsets(partitions)
        for partition in partitions:
            position = await self.position(partition)
            if not begins[partition] <= position <= ends[partition]:
                return lost_below(
                    self._topic, partition, position, begins[partition], ends[partition]
                )
        return KafkaUnavailable(f"{self._topic} did not have an offset that it has now")

    async def between(
        self, begins: Mapping[int, int], ends: Mapping[int, int]
    ) -> AsyncIterator[InRecord]:
        """Yield the records of each partition from its begin up to, but not including, its end.

        Raises:
            KafkaUnavailable: when the broker does not respond.
            RecordsLost: when the log no longer has a position.
        """
        remaining = {p: begin for p, begin in begins.items() if begin < ends[p]}
        if remaining:
            self.start_at(remaining)
        while remaining:
            read = await self.read(timeout_seconds=1.0, max_records=1000)
            for partition, records in read.items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            # Compaction leaves gaps, so a position may be past the last record seen.
            remaining = {p: at for p in remaining if (at := await self.position(p)) < ends[p]}

    async def committed(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return the offset that the group has committed for each partition, if it has any."""
        tps = [TopicPartition(self._topic, p) for p in partitions]
        try:
            found = await asyncio.gather(*map(self._consumer.committed, tps))
        except KafkaError as error:
            raise KafkaUnavailable(f"cannot get offsets of a group: {error!r}") from error
        return {
            p: offset for p, offset in zip(partitions, found, strict=True) if offset is not None
        }

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Commit the positions for lag dashboards; a failure is harmless and ignored."""
        try:
            await self._consumer.commit(
                {TopicPartition(self._topic, p): offset for p, offset in positions.items()}
            )
        except KafkaError:
            return
