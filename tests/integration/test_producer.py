"""Writing while the broker dies and comes back, on a Kafka of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shashin.errors import KafkaUnavailable
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topic_admin import ensure_topics
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.local.kafka import EmbeddedKafka
from shashin.local.ports import free_port


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[EmbeddedKafka]:
    kafka = EmbeddedKafka(tmp_path / "state", port=free_port())
    await kafka.start()
    await ensure_topics(kafka.bootstrap, partitions=2)
    try:
        yield kafka
    finally:
        await kafka.stop()


def records(round_number: int) -> list[OutRecord]:
    return [
        OutRecord(LISTINGS_EVENTS, f"key-{i}".encode(), f"{round_number}/{i}".encode())
        for i in range(20)
    ]


async def test_a_producer_survives_a_broker_outage_longer_than_the_delivery_timeout(
    mortal: EmbeddedKafka,
) -> None:
    sent, failures = 0, 0
    outage = asyncio.Event()

    async def keep_sending(producer: Producer, rounds: int) -> None:
        nonlocal sent, failures
        while sent < rounds:
            try:
                await producer.send_all(records(sent))
            except KafkaUnavailable:
                failures += 1
                outage.set()
                await asyncio.sleep(0.05)
            else:
                sent += 1

    async with Producer(mortal.bootstrap, client_id="test", delivery_seconds=1.0) as producer:
        await keep_sending(producer, 5)
        sending = asyncio.ensure_future(keep_sending(producer, 10))
        assert mortal.pid is not None
        os.kill(mortal.pid, signal.SIGKILL)
        await outage.wait()
        assert sent < 10
        await mortal.start()
        await sending
    assert failures
    assert await values(mortal.bootstrap) == {r.value for n in range(10) for r in records(n)}


async def values(bootstrap: str) -> set[bytes]:
    async with LogReader(bootstrap, LISTINGS_EVENTS, client_id="test") as reader:
        ends = await reader.end_offsets([0, 1])
        reader.start_at({0: 0, 1: 0})
        found: set[bytes] = set()
        while any([await reader.position(p) < end for p, end in ends.items()]):
            for read in (await reader.read(timeout_seconds=1, max_records=500)).values():
                found |= {record.value for record in read}
        return found
