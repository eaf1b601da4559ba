"""Every topic new and empty, so that tests can share a broker one after the other."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient

from shashin.errors import KafkaUnavailable
from shashin.kafka.topic_admin import ensure_topics
from shashin.kafka.topics import TOPICS
from tests.support.waiting import until


async def fresh_topics(bootstrap: str, *, partitions: int) -> None:
    """Delete Shashin's topics and create them again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    names = {topic.name for topic in TOPICS}
    try:
        existing = names & set(await admin.list_topics())
        if existing:
            await admin.delete_topics(sorted(existing))
            await until(lambda: _gone(admin, names), "the old topics are deleted")

        async def created() -> bool:
            try:
                await ensure_topics(bootstrap, partitions=partitions)
            except KafkaUnavailable:  # the broker still deletes
                return False
            # A broker may not know at once of what it has just created.
            return names <= set(await admin.list_topics())

        await until(created, "the new topics are created")
    finally:
        await admin.close()


async def _gone(admin: AIOKafkaAdminClient, names: set[str]) -> bool:
    return not names & set(await admin.list_topics())
