"""Records that are deleted before anybody has read them."""

from __future__ import annotations

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete


async def delete_before(kafka: str, topic: str, offset: int) -> None:
    """Delete records of partition 0 of a topic, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_records(
            {TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)}
        )
    finally:
        await admin.close()
