"""A broker that deletes at once whatever every reader has passed."""

from __future__ import annotations

import asyncio
from collections import Counter

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError

from shashin.errors import ShashinError
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.objectstore.open import opened_object_store
from shashin.offsets.ranges import merge_ranges
from shashin.repository.contents import read_contents
from shashin.terminal.console import echo_stderr

_EVERY_SECONDS = 5.0


class Retention:
    """Deletes what was read, and counts it."""

    topics = (LISTINGS_EVENTS, IMAGES_DOWNLOADED, VECTORS_EMBEDDED)

    def __init__(self, kafka: str, repository: str, model_id: str) -> None:
        self._kafka = kafka
        self._repository = repository
        self._model_id = model_id
        self._begins: dict[TopicPartition, int] = {}

    @property
    def deleted(self) -> Counter[str]:
        """Number of deleted offsets by topic, as the broker acknowledged them."""
        deleted: Counter[str] = Counter()
        for tp, begin in self._begins.items():
            deleted[tp.topic] += begin
        return deleted

    async def run(self) -> None:
        """Delete records from the input topics until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self._delete()
            except (KafkaError, ShashinError) as error:
                # The broker may be away, or a manifest unreadable: then next time.
                echo_stderr(f"nothing is deleted for now: {error}")

    async def _delete(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka)
        await admin.start()
        try:
            passed = await _committed(admin, "downloader", LISTINGS_EVENTS)
            passed |= await _committed(admin, f"embedder.{self._model_id}", IMAGES_DOWNLOADED)
            passed |= await _sealed(self._repository)
            if passed:
                self._begins |= await admin.delete_records(
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
