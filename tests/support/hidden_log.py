"""``listings.hidden`` in memory, and what is hidden of served shards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shashin.errors import KafkaUnavailable, RecordsLost
from shashin.kafka.records import InRecord
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.serving.catch_up import CatchUp
from shashin.serving.hidden_listings import LogBounds, RecentlyHidden
from shashin.serving.served_shards import ServedShards
from shashin.shards.visibility import HiddenEntry
from shashin.v1 import events_pb2

SOLD = events_pb2.HIDDEN_REASON_SOLD


def hide(served: ServedShards, listing_id: str, below_version: int) -> int:
    """Hide a listing's lower versions in all served shards; returns how many rows were visible."""
    return served.hide_all([HiddenEntry(listing_id, below_version)])


@dataclass
class MemoryLog:
    """A topic of some partitions, of which retention may delete the oldest records."""

    id: str = "first"
    records: dict[int, list[InRecord]] = field(default_factory=lambda: {0: [], 1: []})
    begins: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    down: bool = False
    read: int = 0
    """Number of records that were read."""

    def append(
        self,
        listing_id: str,
        below: int,
        *,
        partition: int = 0,
        reason: events_pb2.HiddenReason.ValueType = SOLD,
        problem: str = "",
    ) -> InRecord:
        """Append what hides a listing's lower versions."""
        message = events_pb2.HiddenListing(
            listing_id=listing_id, below_version=below, reason=reason
        )
        offset = self.end(partition)
        record = InRecord(
            LISTINGS_HIDDEN,
            partition,
            offset,
            0,
            b"key",
            message.SerializeToString(),
            problem=problem,
        )
        self.records[partition].append(record)
        return record

    def end(self, partition: int) -> int:
        """Return the offset of the next record."""
        return self.begins[partition] + len(self.records[partition])

    def delete_before(self, partition: int, offset: int) -> None:
        """Delete the records before an offset, as retention does."""
        self.records[partition] = [r for r in self.records[partition] if r.offset >= offset]
        self.begins[partition] = offset

    def recreate(self, topic_id: str) -> None:
        """Delete the topic, and create it again."""
        self.id = topic_id
        self.records = {partition: [] for partition in self.records}
        self.begins = dict.fromkeys(self.begins, 0)

    def bounds(self) -> LogBounds:
        """Return what the log has now."""
        return LogBounds(self.id, dict(self.begins), {p: self.end(p) for p in self.records})

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[MemoryLog]:
        """Open a reader."""
        if self.down:
            raise KafkaUnavailable("kafka is down")
        yield self

    async def topic_id(self) -> str:
        return self.id

    async def partitions(self) -> list[int]:
        return sorted(self.records)

    async def begin_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        return {p: self.begins[p] for p in partitions}

    async def end_offsets(self, partitions: Sequence[int]) -> dict[int, int]:
        return {p: self.end(p) for p in partitions}

    async def between(
        self, begins: Mapping[int, int], ends: Mapping[int, int]
    ) -> AsyncIterator[InRecord]:
        for partition, begin in begins.items():
            if begin < min(self.begins[partition], ends[partition]):
                raise RecordsLost(f"{begin} is before {self.begins[partition]}")
            for record in self.records[partition]:
                if begin <= record.offset < ends[partition]:
                    self.read += 1
                    yield record


def catch_up_of(served: ServedShards, log: MemoryLog, limit: int = 1000) -> CatchUp:
    """Return what masks joining shards, in a process that reached the end of the log."""
    recent = RecentlyHidden(limit)
    recent.open_at(log.bounds())
    return CatchUp(served, recent, log.opened, "stop")
