"""The one loop of every consumer group: at least once, nothing skipped, nothing lost.

A turn polls a batch, has the stage turn each record into output records or an error (tried again
where that may help: shashin.kafka.settling), writes the outputs and the dead letters, waits for the
broker's acknowledgement, and only then commits the offset after the last record of each partition.
A crash anywhere repeats the batch.

Who keeps positions elsewhere reads with shashin.kafka.log_reader instead: the indexer, whose
positions are in the shards' manifests, and the followers of ``listings.hidden``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from prometheus_client import Counter, Histogram

from shashin.errors import KafkaUnavailable, TooManyDeadLetters
from shashin.kafka.dead_letters import note_dead_letters
from shashin.kafka.records import InRecord, Outcome, Stage
from shashin.kafka.retry import until_done
from shashin.kafka.settling import GivingUp, Interrupted, Settler, stand_still
from shashin.runtime.failpoints import failpoint
from shashin.runtime.health import Health
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import sleep_unless

if TYPE_CHECKING:
    from shashin.kafka.producer import Producer

RECORDS = Counter("shashin_consumed_records", "Records taken from a topic.", ["topic"])
BATCH_SECONDS = Histogram(
    "shashin_consume_batch_seconds", "Time from a poll to its commit, in seconds.", ["topic"]
)

_LOOK_SECONDS = 5.0

log = get_logger(__name__)


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc, unused-ignore]
    def __init__(self, stage: Stage, health: Health) -> None:
        self._stage = stage
        self._health = health

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._stage.partitions_lost([tp.partition for tp in revoked])

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        log.info("partitions assigned", partitions=sorted(tp.partition for tp in assigned))
        self._health.set_ready("consumer group")


async def consume(
    stage: Stage,
    *,
    bootstrap: str,
    topic: str,
    group: str,
    producer: Producer,
    health: Health,
    stopping: asyncio.Event,
    max_records: int,
    giving_up: GivingUp | None = None,
    fetch_bytes: int = 8 * 1024 * 1024,
) -> None:
    """Run the loop until ``stopping`` is set.

    ``max_records`` bounds a batch and ``fetch_bytes`` what is read ahead of it for each
    partition: together they bound the loop's memory.
    """
    beat = health.heartbeat(f"consumer of {topic}")
    health.require("consumer group", waiting_for="partitions of " + topic)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        client_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=fetch_bytes,
        fetch_max_wait_ms=500,
        retry_backoff_ms=500,
        session_timeout_ms=15_000,
        heartbeat_interval_ms=3_000,
        max_poll_interval_ms=600_000,
    )
    consumer.subscribe([topic], listener=_Rebalance(stage, health))
    settler = Settler(
        stage, giving_up or GivingUp(), topic=topic, health=health, beat=beat, stopping=stopping
    )
    stopped: TooManyDeadLetters | None = None
    broker = _BrokerWatch(consumer, bootstrap, health)

    async def start() -> None:
        try:
            await consumer.start()
        except KafkaError as error:
            raise KafkaUnavailable(f"kafka at {bootstrap} does not answer: {error}") from error

    try:
        await until_done(f"connect to {bootstrap}", start, stopping=stopping, beat=beat)
        while not stopping.is_set():
            beat.beat()
            try:
                polled = await consumer.getmany(timeout_ms=500, max_records=max_records)
            except KafkaError as error:
                log.warning("poll failed: waiting", topic=topic, error=repr(error))
                await sleep_unless(stopping, 1.0)
                continue
            records = [InRecord.of(r) for partition in polled.values() for r in partition]
            if not records:
                await broker.look()
                continue
            RECORDS.labels(topic).inc(len(records))
            failpoint("after-read")
            with BATCH_SECONDS.labels(topic).time():
                await _write_out(await settler.settle(records), producer, stopping)
                failpoint("after-produce")
                await _commit(consumer, records)
                failpoint("after-commit")
    except Interrupted:
        log.info("stopping: a batch is left to whoever reads next", topic=topic)
    except TooManyDeadLetters as error:
        stopped = error
    finally:
        # Another member of the group, of a version that works perhaps, gets the partitions.
        await consumer.stop()
    if stopped is not None:
        await stand_still(stopped, topic, health=health, beat=beat, stopping=stopping)


class _BrokerWatch:
    """Tells an idle topic from a broker that is away: the client library polls both in silence."""

    def __init__(self, consumer: AIOKafkaConsumer, bootstrap: str, health: Health) -> None:
        self._consumer = consumer
        self._bootstrap = bootstrap
        self._health = health
        self._next_look = 0.0

    async def look(self) -> None:
        """Ask the broker something small, once in a few seconds."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._consumer.end_offsets(self._consumer.assignment())
        except (KafkaError, TimeoutError):
            self._health.hold("kafka", f"{self._bootstrap} does not answer: waiting")
            log.warning("kafka does not answer: waiting", bootstrap=self._bootstrap)
        else:
            self._health.go_on("kafka")


async def _write_out(
    outcomes: Sequence[Outcome], producer: Producer, stopping: asyncio.Event
) -> None:
    outputs = [output for outcome in outcomes for output in outcome.outputs]
    given_up = [letter for outcome in outcomes for letter in outcome.dead_letters]
    note_dead_letters(given_up)
    outputs += [letter.as_record() for letter in given_up]
    await until_done(
        "write outputs", lambda: producer.send_all(outputs), stopping=stopping, beat=None
    )


async def _commit(consumer: AIOKafkaConsumer, records: Sequence[InRecord]) -> None:
    offsets: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        offsets[partition] = max(offsets.get(partition, 0), record.offset + 1)
    try:
        await consumer.commit(offsets)
    except (CommitFailedError, IllegalStateError):
        # The group was rebalanced meanwhile: the new owner repeats these records.
        log.info("commit refused after a rebalance", partitions=[tp.partition for tp in offsets])
    except KafkaError as error:
        # The next commit covers this one; a crash before it repeats these records.
        log.warning("commit failed", error=repr(error))
