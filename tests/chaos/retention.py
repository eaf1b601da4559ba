"""A broker whose retention bites: whatever every reader has passed is deleted at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError

from shashin.errors import ShashinError
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.objectstore.open import opened_object_store
from shashin.offsets.ranges import merge_ranges
from shashin.repository.contents import read_contents

_EVERY_SECONDS = 5.0


async def delete_what_was_read(kafka: str, repository: str, model_id: str) -> None:
    """Delete records from the input topics until cancelled."""
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        # The broker or the repository may be away, or being damaged: then next time.
        with suppress(KafkaError, ShashinError):
            await _delete(kafka, repository, model_id)


async def _delete(kafka: str, repository: str, model_id: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        passed = await _committed(admin, "downloader", LISTINGS_EVENTS)
        passed |= await _committed(admin, f"embedder.{model_id}", IMAGES_DOWNLOADED)
        passed |= await _sealed(repository)
        if passed:
            await admin.delete_records(
                {tp: RecordsToDelete(before_offset=offset) for tp, offset in passed.items()}
            )
    finally:
        await admin.close()


async def _committed(
    admin: AIOKafkaAdminClient, group: str, topic: str
) -> dict[TopicPartition, int]:
    offsets = await admin.list_consumer_group_offsets(group)
    return {tp: at.offset for tp, at in offsets.items() if tp.topic == topic and at.offset > 0}


async def _sealed(repository: str) -> dict[TopicPartition, int]:
    """Return the end of the first run of sealed ranges of each partition."""
    async with opened_object_store(repository) as store:
        _, contents = await read_contents(store)
    if contents.unreadable:
        return {}
    ranges = [r for stored in contents.shards for r in stored.manifest.source_ranges]
    ends: dict[TopicPartition, int] = {}
    for run in merge_ranges(ranges):
        ends.setdefault(TopicPartition(VECTORS_EMBEDDED, run.partition), run.to_offset)
    return ends
