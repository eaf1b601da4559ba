"""Producers that are not this project's: librdkafka, and batches sent as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from confluent_kafka import Producer

_SECONDS = 30.0


def librdkafka(kafka: str, **config: object) -> Producer:
    """Return a producer as most clients in other languages have it."""
    settings = {f"{name.replace('_', '.')}": value for name, value in config.items()}
    return Producer({"bootstrap.servers": kafka, "message.max.bytes": 40_000_000, **settings})


def produce(kafka: str, topic: str, records: Iterable[dict[str, Any]], **config: object) -> None:
    """Send records, each the arguments of librdkafka's ``produce``, and wait for the broker."""
    producer, errors = librdkafka(kafka, **config), list[object]()
    for record in records:
        producer.produce(
            topic, on_delivery=lambda error, _: errors.append(error) if error else None, **record
        )
    assert producer.flush(_SECONDS) == 0
    assert errors == []


async def produce_batch(kafka: str, topic: str, partition: int, batch: bytes) -> None:
    """Send a batch as it is, whatever is in it."""
    client = AIOKafkaClient(bootstrap_servers=kafka)
    await client.bootstrap()
    try:
        client.add_topic(topic)
        await client.force_metadata_update()
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        request = ProduceRequest(None, -1, 10_000, [(topic, [(partition, batch)])])
        response = await client.send(leader, request)
        for _, partitions in response.topics:
            for _, code, *_ in partitions:
                if code:
                    raise for_code(code)
    finally:
        await client.close()
