"""All records of a topic."""

from __future__ import annotations

from shashin.kafka.log_reader import LogReader
from shashin.kafka.records import InRecord


async def records_of(kafka: str, topic: str) -> list[InRecord]:
    """Return all records of a topic."""
    async with LogReader(kafka, topic, client_id="test-look") as reader:
        partitions = await reader.partitions()
        begins = await reader.begin_offsets(partitions)
        ends = await reader.end_offsets(partitions)
        return [record async for record in reader.between(begins, ends)]
