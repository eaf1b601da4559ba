"""The ``.dlq`` topics: reading their entries, sending records again, resolving entries."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack

from shashin.errors import DeadLetterNotFound, RecordError
from shashin.kafka.dlq_entries import (
    DlqEntries,
    DlqEntry,
    DlqEntryId,
    How,
    is_resolution,
    resolution_record,
)
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.replay_plan import Replay, in_chunks, replayed_record
from shashin.kafka.topics import DEAD_LETTER_TOPICS


class DlqTopics:
    """Reads the dead letters of some topics, each time as of now."""

    def __init__(
        self, bootstrap: str, *, client_id: str, topics: Collection[str] = DEAD_LETTER_TOPICS
    ) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._topics = sorted(topics)
        self._readers: dict[str, LogReader] = {}
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> DlqTopics:
        async with AsyncExitStack() as stack:
            for topic in self._topics:
                self._readers[topic] = await stack.enter_async_context(
                    LogReader(self._bootstrap, topic, client_id=self._client_id)
                )
            self._opened = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._opened.aclose()

    async def entries(self) -> list[DlqEntry]:
        """Return every dead letter that the topics still hold, the oldest first.

        Raises:
            KafkaUnavailable: when the broker does not answer or a topic does not exist.
        """
        book = DlqEntries()
        for reader in self._readers.values():
            partitions = await reader.partitions()
            begins = await reader.begin_offsets(partitions)
            ends = await reader.end_offsets(partitions)
            async for record in reader.between(begins, ends):
                book.add(record)
        return book.entries()

    async def records(self, ids: Iterable[DlqEntryId]) -> dict[DlqEntryId, InRecord]:
        """Return the entries with their values; the caller bounds how many megabytes these are.

        Raises:
            KafkaUnavailable: when the broker does not answer.
            DeadLetterNotFound: when retention took one away meanwhile.
        """
        wanted = set(ids)
        found: dict[DlqEntryId, InRecord] = {}
        offsets: dict[tuple[str, int], list[int]] = defaultdict(list)
        for entry_id in wanted:
            offsets[entry_id.topic, entry_id.partition].append(entry_id.offset)
        for (topic, partition), of_partition in offsets.items():
            reader = self._readers[topic]
            begins = await reader.begin_offsets([partition])
            begin = max(min(of_partition), begins[partition])
            async for record in reader.between(
                {partition: begin}, {partition: max(of_partition) + 1}
            ):
                entry_id = DlqEntryId(topic, partition, record.offset)
                if entry_id in wanted and not is_resolution(record):
                    found[entry_id] = record
        if missing := wanted - found.keys():
            raise DeadLetterNotFound(f"{min(missing)} is no longer in its topic: its time is over")
        return found


async def check_partitions(bootstrap: str, replays: Iterable[Replay], *, client_id: str) -> None:
    """Make sure that the partitions exist which the records came from.

    Raises:
        KafkaUnavailable: when the broker does not answer or a topic does not exist.
        RecordError: naming the first entry whose partition does not exist.
    """
    by_topic: dict[str, list[Replay]] = defaultdict(list)
    for replay in replays:
        by_topic[replay.origin.topic].append(replay)
    for topic, of_topic in by_topic.items():
        async with LogReader(bootstrap, topic, client_id=client_id) as reader:
            existing = set(await reader.partitions())
        for replay in of_topic:
            if replay.origin.partition not in existing:
                raise RecordError(
                    f"{replay.dead_letter.entry_id} came from {replay.origin}, but {topic} has "
                    f"{len(existing)} partitions: its listing has moved, so publish the listing "
                    "again and drop the entry"
                )


async def replay_records(
    log: DlqTopics,
    producer: Producer,
    replays: Sequence[Replay],
    *,
    progress: Callable[[int], None] = lambda _done: None,
) -> None:
    """Send each record again, wait until Kafka has it, and only then resolve its entries.

    Whoever dies in between leaves entries open whose records were sent: replaying them again
    repeats the records, which is harmless. ``progress`` is told how many records are done.

    Raises:
        KafkaUnavailable: when the broker does not answer; the rest is still open.
        DeadLetterNotFound: when retention took an entry away meanwhile.
    """
    done = 0
    for chunk in in_chunks(replays):
        stored = await log.records(replay.dead_letter.entry_id for replay in chunk)
        await producer.send_all(
            replayed_record(replay, stored[replay.dead_letter.entry_id]) for replay in chunk
        )
        await resolve(producer, [i for replay in chunk for i in replay.resolves], "replayed")
        done += len(chunk)
        progress(done)


async def resolve(producer: Producer, ids: Iterable[DlqEntryId], how: How) -> None:
    """Append a resolution of each entry and wait until Kafka has them.

    Raises:
        KafkaUnavailable: when the broker did not acknowledge; some may have been written.
    """
    at_ms = time.time_ns() // 1_000_000
    resolutions: list[OutRecord] = [resolution_record(i, how, at_ms=at_ms) for i in ids]
    await producer.send_all(resolutions)
