"""The lag of a consumer on a real log, also before it has processed anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import REGISTRY

from shashin.kafka.lag import Lag
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome
from shashin.kafka.topics import LISTINGS_EVENTS
from tests.support.copying_stage import Copying, consuming
from tests.support.topic_records import records_of
from tests.support.waiting import until

OF_PARTITION = {"topic": LISTINGS_EVENTS, "partition": "0"}


def lag_seconds() -> float:
    return REGISTRY.get_sample_value("shashin_consumer_lag_seconds", OF_PARTITION) or 0.0


def lags_since(appended: float) -> bool:
    seconds = lag_seconds()
    return seconds > 0 and abs(time.time() - seconds - appended) < 0.25


def lag_records() -> float | None:
    return REGISTRY.get_sample_value("shashin_consumer_lag_records", OF_PARTITION)


@pytest.fixture
async def appended(kafka: str, producer: Producer) -> float:
    """Write records; returns when the first one was appended, in Unix seconds."""
    events = [OutRecord(LISTINGS_EVENTS, b"lamp", b"%d" % n, partition=0) for n in range(3)]
    await producer.send_all(events)
    return (await records_of(kafka, LISTINGS_EVENTS))[0].timestamp_ms / 1000


@pytest.fixture
async def consumer(kafka: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Start a consumer at the begin of the partition that reads nothing."""
    started = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await started.start()
    partition = TopicPartition(LISTINGS_EVENTS, 0)
    started.assign([partition])
    started.seek(partition, 0)
    yield started
    await started.stop()


async def test_a_consumer_that_has_read_nothing_lags_since_its_first_unread_record(
    kafka: str, appended: float, consumer: AIOKafkaConsumer
) -> None:
    lag = Lag(consumer, kafka, LISTINGS_EVENTS)
    await lag.observe({})
    assert lag_records() == 3

    await until(lambda: lags_since(appended), "its append time is read")
    await lag.close()


class Held(Copying):
    """Processes nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_process = asyncio.Event()

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        await self.may_process.wait()
        return await super().process(records)


async def test_a_batch_that_takes_long_lags_meanwhile_and_no_more_once_it_is_processed(
    kafka: str, appended: float
) -> None:
    stage = Held()
    async with consuming(kafka, stage):
        try:
            await until(lambda: lags_since(appended), "it is measured")
            assert stage.seen == []
        finally:
            stage.may_process.set()
        await until(lambda: not lag_seconds(), "nothing waits")
        assert stage.seen
