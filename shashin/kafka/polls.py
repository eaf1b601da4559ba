"""One poll of a consumer, for the stages' groups and for readers with positions of their own."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from shashin.errors import KafkaUnavailable
from shashin.kafka.records import InRecord
from shashin.metrics import kafka as metrics


async def poll(
    consumer: AIOKafkaConsumer, topic: str, *, timeout_ms: int, max_records: int
) -> dict[int, list[InRecord]]:
    """Return the next records by partition; empty if none arrive in time.

    Raises:
        KafkaUnavailable: when it failed.
        NoOffsetForPartitionError: when a partition has no position.
        OffsetOutOfRangeError: when the log does not have a position.
    """
    try:
        polled = await consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)
    except (NoOffsetForPartitionError, OffsetOutOfRangeError):
        raise
    except KafkaError as error:
        metrics.POLL_FAILURES.labels(topic).inc()
        raise KafkaUnavailable(f"reading {topic} failed: {error!r}") from error
    return {tp.partition: list(map(InRecord.of, records)) for tp, records in polled.items()}
