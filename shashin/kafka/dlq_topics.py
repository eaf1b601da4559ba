"""The ``.dlq`` topics: reading entries, replaying records, resolving entries."""

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
    """Reads the current dead letters of ``.dlq`` topics."""

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
        """Return every dead letter that is still retained, oldest first.

        Raises:
            KafkaUnavailable: when the broker does not respond or a topic does not exist.
        """
        entries = DlqEntries()
        for reader in self._readers.values():
            partitions = await reader.partitions()
            begins = await reader.begin_offsets(partitions)
            ends = await reader.end_offsets(partitions)
            async for record in reader.between(begins, ends):
                entries.add(record)
        return entries.entries()

    async def records(self, ids: Iterable[DlqEntryId]) -> dict[DlqEntryId, InRecord]:
        """Return the entries with their values; the caller bounds the total size.

        Raises:
            KafkaUnavailable: when the broker does not respond.
            DeadLetterNotFound: when the retention of an entry has expired.
        """
        requested = set(ids)
        found: dict[DlqEntryId, InRecord] = {}
        offsets: dict[tuple[str, int], list[int]] = defaultdict(list)
        for entry_id in requested:
            offsets[entry_id.topic, entry_id.partition].append(entry_id.offset)
        for (topic, partition), of_partition in offsets.items():
            reader = self._readers[topic]
            begins = await reader.begin_offsets([partition])
            begin = max(min(of_partition), begins[partition])
            async for record in reader.between(
                {partition: begin}, {partition: max(of_partition) + 1}
            ):
                entry_id = DlqEntryId(topic, partition, record.offset)
                if entry_id in requested and not is_resolution(record):
                    found[entry_id] = record
        if missing := requested - found.keys():
            raise DeadLetterNotFound(
                f"{min(missing)} is no longer in its topic: its retention has expired"
            )
        return found


async def check_partitions(bootstrap: str, replays: Iterable[Replay], *, client_id: str) -> None:
    """Check that the records' original partitions exist.

    Raises:
        KafkaUnavailable: when the broker does not respond or a topic does not exist.
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
    """Send each record again, wait for the acknowledgement, and only then resolve its entries.

    A crash in between leaves entries open whose records were sent: replaying them again repeats
    the records, which is harmless. ``progress`` is called with the number of records done.

    Raises:
        KafkaUnavailable: when the broker does not respond; the rest is still open.
        DeadLetterNotFound: when the retention of an entry has expired.
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
    """Append a resolution for each entry and wait for the acknowledgement.

    Raises:
        KafkaUnavailable: when the broker did not acknowledge; some may have been written.
    """
    at_ms = time.time_ns() // 1_000_000
    resolutions: list[OutRecord] = [resolution_record(i, how, at_ms=at_ms) for i in ids]
    await producer.send_all(resolutions)
