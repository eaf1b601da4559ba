"""The consumer loop of every consumer group: at-least-once, without skipping records.

Each iteration polls a batch, has the stage turn each record into output records or an error
(retried when that may help: shashin.kafka.processing), writes the outputs and the dead letters,
waits for the broker's acknowledgement, and only then commits each partition's position. After a
crash at any point, the batch is processed again.

Only committed transactions are read. A group starts at the log's begin only if it has no position;
if the log no longer has its position, records were lost, and that is an error that stops it.

Readers that keep their positions elsewhere use shashin.kafka.log_reader instead: the indexer,
whose positions are in the shards' manifests, and the followers of ``listings.hidden``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from shashin.errors import (
    KafkaUnavailable,
    RecordError,
    RecordsLost,
    TooManyDeadLetters,
    WrongTopicSettings,
)
from shashin.kafka.broker_check import BrokerCheck
from shashin.kafka.damaged_batches import DamagedBatches
from shashin.kafka.dead_letter_policy import DeadLetterPolicy, pause_consumption
from shashin.kafka.dead_letters import DeadLetter, note_dead_letters
from shashin.kafka.event_time import observe_since_event
from shashin.kafka.lag import Lag
from shashin.kafka.log_reader import LogReader
from shashin.kafka.lost_records import OnLostRecords, UnknownPositions, lost_below, note_lost
from shashin.kafka.polls import poll
from shashin.kafka.positions import known_positions
from shashin.kafka.processing import BatchProcessor, Interrupted
from shashin.kafka.record_spans import batch_span
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome, Stage
from shashin.kafka.topic_admin import check_topics
from shashin.kafka.topics import DEAD_LETTER_SUFFIX
from shashin.metrics import kafka as metrics
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

if TYPE_CHECKING:
    from shashin.kafka.producer import OutRecord, Producer

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
    on_lost_records: OnLostRecords = "stop"
    writes: Sequence[str] = ()
    """The topics of the outputs, besides ``<topic>.dlq``."""

    @property
    def topics(self) -> list[str]:
        """Every topic that is read or written."""
        return [self.topic, *self.writes, self.topic + DEAD_LETTER_SUFFIX]


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
            # "earliest" would skip what retention has deleted, without a word.
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=self._subscription.fetch_bytes,
            fetch_max_wait_ms=500,
            retry_backoff_ms=500,
            session_timeout_ms=15_000,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=600_000,
        )
        consumer.subscribe([topic], listener=_Rebalance(self._stage, loop))
        refused: TooManyDeadLetters | RecordsLost | None = None
        try:
            await loop.retry(
                f"kafka at {self._subscription.bootstrap}", lambda: self._start(consumer)
            )
            await loop.retry(
                "settings of topics",
                lambda: check_topics(self._subscription.bootstrap, self._subscription.topics),
                also=(WrongTopicSettings,),
            )
            await self._consume(consumer, loop)
        except Interrupted:
            log.info("stopping: a batch is left for the next consumer", topic=topic)
        except (TooManyDeadLetters, RecordsLost) as error:
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
        topic, bootstrap = self._subscription.topic, self._subscription.bootstrap
        processor = BatchProcessor(self._stage, self._policy, topic, loop)
        broker = BrokerCheck(consumer, bootstrap, loop)
        unknown = UnknownPositions(topic, loop)
        commits = _Commits(consumer, unknown)
        lag = Lag(consumer, bootstrap, topic)
        damaged = DamagedBatches(
            consumer,
            topic,
            lambda: LogReader(
                bootstrap, topic + DEAD_LETTER_SUFFIX, client_id=self._subscription.group
            ),
            loop,
        )
        try:
            while loop.next_turn():
                with loop.waiting_for("kafka to report skipped batches"):
                    await damaged.retry()
                read = damaged.before(await self._poll(consumer, unknown, loop))
                records = [record for partition in read.values() for record in partition]
                if records:
                    broker.responded()
                    metrics.RECORDS.labels(topic).inc(len(records))
                    metrics.BATCH_RECORDS.labels(topic).observe(len(records))
                    lag.begin(read)
                    failpoint("after-read")
                    with (
                        metrics.BATCH_SECONDS.labels(topic).time(),
                        batch_span(topic, self._subscription.group, records),
                    ):
                        outcomes = await processor.outcomes(records)
                        await self._write(records, outcomes, loop)
                        failpoint("after-produce")
                        with loop.waiting_for("kafka to commit offsets"):
                            await commits.commit()
                        failpoint("after-commit")
                        log.debug("batch committed", topic=topic, records=len(records))
                else:
                    await broker.check()
                    with loop.waiting_for("kafka to commit offsets"):
                        await commits.commit()
                with loop.waiting_for("kafka to report offsets"):
                    await lag.observe(read)
        finally:
            await lag.close()
            await damaged.close()

    async def _poll(
        self, consumer: AIOKafkaConsumer, unknown: UnknownPositions, loop: LoopScope
    ) -> Mapping[int, Sequence[InRecord]]:
        """Return the next records by partition; empty if none arrive within half a second."""
        topic = self._subscription.topic
        part = f"poll of {topic}"
        try:
            found = await poll(
                consumer, topic, timeout_ms=500, max_records=self._subscription.max_records
            )
        except (NoOffsetForPartitionError, OffsetOutOfRangeError):
            await loop.retry(f"positions in {topic}", lambda: self._go_to_begin(consumer, unknown))
            return {}
        except KafkaUnavailable as error:
            log.warning("poll failed: retrying", topic=topic, error=error.message)
            loop.degraded(part, error.message)
            await loop.sleep(1.0)
            return {}
        loop.clear(part)
        return found

    async def _go_to_begin(self, consumer: AIOKafkaConsumer, unknown: UnknownPositions) -> None:
        """Start partitions without a position at the log's begin.

        Raises:
            RecordsLost: when a partition has a position that the log no longer has.
            KafkaUnavailable: when the broker does not respond.
        """
        topic = self._subscription.topic
        assigned = list(consumer.assignment())
        try:
            begins = await consumer.beginning_offsets(assigned)
            ends = await consumer.end_offsets(assigned)
            positions = {tp: await consumer.committed(tp) for tp in assigned}
        except KafkaError as error:
            raise KafkaUnavailable(f"cannot get offsets of {topic}: {error!r}") from error
        for tp, begin in begins.items():
            position = positions[tp]
            if position is None:
                unknown.note(tp.partition, begin)
                consumer.seek(tp, begin)
            elif not begin <= position <= ends[tp]:
                lost = lost_below(topic, tp.partition, position, begin, ends[tp])
                if self._subscription.on_lost_records == "stop":
                    raise lost
                note_lost(lost, topic, max(0, begin - position))
                consumer.seek(tp, begin)

    async def _write(
        self, records: Sequence[InRecord], outcomes: Sequence[Outcome], loop: LoopScope
    ) -> None:
        outputs = [output for outcome in outcomes for output in outcome.outputs]
        try:
            await self._send(outputs, loop)
        except RecordError:
            # Some output is larger than its topic allows: only that record is a dead letter.
            outcomes = [
                await self._written(record, outcome, loop)
                for record, outcome in zip(records, outcomes, strict=True)
            ]
        dead_letters = [dead_letter for outcome in outcomes for dead_letter in outcome.dead_letters]
        note_dead_letters(dead_letters)
        await self._send([dead_letter.as_record() for dead_letter in dead_letters], loop)

    async def _written(self, record: InRecord, outcome: Outcome, loop: LoopScope) -> Outcome:
        try:
            await self._send(outcome.outputs, loop)
        except RecordError as error:
            dead_letter = DeadLetter(record, error, step=f"write output of {record.topic}")
            return Outcome(dead_letters=[*outcome.dead_letters, dead_letter])
        return outcome

    async def _send(self, outputs: Sequence[OutRecord], loop: LoopScope) -> None:
        if outputs:
            await loop.retry("kafka to take outputs", lambda: self._producer.send_all(outputs))
            observe_since_event(outputs)


class _Commits:
    """Commits a consumer's positions when they have changed."""

    def __init__(self, consumer: AIOKafkaConsumer, unknown: UnknownPositions) -> None:
        self._consumer = consumer
        self._unknown = unknown
        self._positions: dict[TopicPartition, int] = {}

    async def commit(self) -> None:
        """Commit every partition's position; everything read so far must have been processed.

        A position can be past the last record: transactions end with records that are only for the
        client library. Without committing these, a group never reaches the end of the log.
        """
        changed = {
            tp: position
            for tp, position in known_positions(self._consumer).items()
            if self._positions.get(tp) != position
        }
        self._unknown.keep([tp.partition for tp in self._consumer.assignment()])
        if not changed:
            return
        try:
            await self._consumer.commit(changed)
        except (CommitFailedError, IllegalStateError):
            # The group has rebalanced: the new owner processes these records again.
            log.info(
                "commit rejected after a rebalance", partitions=[tp.partition for tp in changed]
            )
        except KafkaError as error:
            # The next commit covers this one; after a crash, these records are processed again.
            log.warning("commit failed", error=repr(error))
        else:
            self._positions |= changed
            self._unknown.committed({tp.partition: at for tp, at in changed.items()})
