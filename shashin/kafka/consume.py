"""The consumer loop of every consumer group: at-least-once, without skipping records.

Each iteration polls a batch, has the stage turn each record into output records or an error
(retried when that may help: shashin.kafka.processing), writes the outputs and the dead letters,
waits for the broker's acknowledgement, and only then commits the offset after the last record of
each partition. After a crash at any point, the batch is processed again.

Readers that keep their positions elsewhere use shashin.kafka.log_reader instead: the indexer,
whose positions are in the shards' manifests, and the followers of ``listings.hidden``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from prometheus_client import Counter, Histogram

from shashin.errors import KafkaUnavailable, TooManyDeadLetters
from shashin.kafka.broker_check import BrokerCheck
from shashin.kafka.dead_letter_policy import DeadLetterPolicy, pause_consumption
from shashin.kafka.dead_letters import note_dead_letters
from shashin.kafka.processing import BatchProcessor, Interrupted
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome, Stage
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

if TYPE_CHECKING:
    from shashin.kafka.producer import Producer

RECORDS = Counter("shashin_consumed_records", "Records consumed from a topic.", ["topic"])
BATCH_SECONDS = Histogram(
    "shashin_consume_batch_seconds", "Time from poll to commit of a batch, in seconds.", ["topic"]
)

log = get_logger(__name__)


@dataclass(frozen=True)
class Subscription:
    """What a consumer group reads, and in what batch size."""

    bootstrap: str
    topic: str
    group: str
    max_records: int
    """Per batch. Together with ``fetch_bytes`` it bounds the loop's memory."""
    fetch_bytes: int = 8 * 1024 * 1024
    """Prefetched per partition."""


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc, unused-ignore]
    def __init__(self, stage: Stage, loop: LoopScope) -> None:
        self._stage = stage
        self._loop = loop

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._stage.partitions_lost([tp.partition for tp in revoked])

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        log.info("partitions assigned", partitions=sorted(tp.partition for tp in assigned))
        self._loop.ready()


class StageConsumer:
    """Consumes a subscription and processes its records with a stage."""

    def __init__(
        self,
        stage: Stage,
        subscription: Subscription,
        producer: Producer,
        policy: DeadLetterPolicy,
    ) -> None:
        self._stage = stage
        self._subscription = subscription
        self._producer = producer
        self._policy = policy

    def loop(self) -> Loop:
        """Return the loop, ready once the group has assigned it partitions."""
        topic = self._subscription.topic
        return Loop(f"consumer of {topic}", self.run, ready_when=f"partitions of {topic}")

    async def run(self, loop: LoopScope) -> None:
        """Consume until stopped."""
        topic = self._subscription.topic
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._subscription.bootstrap,
            group_id=self._subscription.group,
            client_id=self._subscription.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=self._subscription.fetch_bytes,
            fetch_max_wait_ms=500,
            retry_backoff_ms=500,
            session_timeout_ms=15_000,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=600_000,
        )
        consumer.subscribe([topic], listener=_Rebalance(self._stage, loop))
        refused: TooManyDeadLetters | None = None
        try:
            await loop.retry(
                f"kafka at {self._subscription.bootstrap}", lambda: self._start(consumer)
            )
            await self._consume(consumer, loop)
        except Interrupted:
            log.info("stopping: a batch is left for the next consumer", topic=topic)
        except TooManyDeadLetters as error:
            refused = error
        finally:
            # Another group member, possibly of a working version, takes over the partitions.
            with loop.waiting_for("kafka to release the partitions"):
                await consumer.stop()
        if refused is not None:
            await pause_consumption(refused, topic, loop)

    async def _start(self, consumer: AIOKafkaConsumer) -> None:
        try:
            await consumer.start()
        except KafkaError as error:
            raise KafkaUnavailable(
                f"kafka at {self._subscription.bootstrap} does not respond: {error}"
            ) from error

    async def _consume(self, consumer: AIOKafkaConsumer, loop: LoopScope) -> None:
        topic = self._subscription.topic
        processor = BatchProcessor(self._stage, self._policy, topic, loop)
        broker = BrokerCheck(consumer, self._subscription.bootstrap, loop)
        while loop.next_turn():
            records = await self._poll(consumer, loop)
            if not records:
                await broker.check()
                continue
            broker.responded()
            RECORDS.labels(topic).inc(len(records))
            failpoint("after-read")
            with BATCH_SECONDS.labels(topic).time():
                outcomes = await processor.outcomes(records)
                await self._write(outcomes, loop)
                failpoint("after-produce")
                with loop.waiting_for("kafka to commit offsets"):
                    await _commit(consumer, records)
                failpoint("after-commit")

    async def _poll(self, consumer: AIOKafkaConsumer, loop: LoopScope) -> list[InRecord]:
        """Return the next records of all partitions; empty if none arrive within half a second."""
        topic = self._subscription.topic
        poll = f"poll of {topic}"
        try:
            polled = await consumer.getmany(
                timeout_ms=500, max_records=self._subscription.max_records
            )
        except KafkaError as error:
            log.warning("poll failed: retrying", topic=topic, error=repr(error))
            loop.degraded(poll, repr(error))
            await loop.sleep(1.0)
            return []
        loop.clear(poll)
        return [InRecord.of(r) for partition in polled.values() for r in partition]

    async def _write(self, outcomes: Sequence[Outcome], loop: LoopScope) -> None:
        outputs = [output for outcome in outcomes for output in outcome.outputs]
        dead_letters = [dead_letter for outcome in outcomes for dead_letter in outcome.dead_letters]
        note_dead_letters(dead_letters)
        outputs += [dead_letter.as_record() for dead_letter in dead_letters]
        await loop.retry("kafka to take outputs", lambda: self._producer.send_all(outputs))


async def _commit(consumer: AIOKafkaConsumer, records: Sequence[InRecord]) -> None:
    offsets: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        offsets[partition] = max(offsets.get(partition, 0), record.offset + 1)
    try:
        await consumer.commit(offsets)
    except (CommitFailedError, IllegalStateError):
        # The group has rebalanced: the new owner processes these records again.
        log.info("commit rejected after a rebalance", partitions=[tp.partition for tp in offsets])
    except KafkaError as error:
        # The next commit covers this one; after a crash, these records are processed again.
        log.warning("commit failed", error=repr(error))
