"""Records that are deleted before anybody has read them."""

from __future__ import annotations

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from shashin.kafka.topics import LISTINGS_EVENTS


async def delete_before(kafka: str, offset: int) -> None:
    """Delete records as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_records(
            {TopicPartition(LISTINGS_EVENTS, 0): RecordsToDelete(before_offset=offset)}
        )
    finally:
        await admin.close()
