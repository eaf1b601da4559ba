"""How far a consumer is behind its topic, and how far ahead of the topic's retention."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from shashin.errors import KafkaUnavailable
from shashin.kafka.append_times import AppendTimes
from shashin.kafka.positions import known_positions
from shashin.kafka.records import InRecord
from shashin.metrics import kafka as metrics

_OBSERVE_SECONDS = 5.0
_APPEND_TIMES_SECONDS = 2.0

Read = Mapping[int, Sequence[InRecord]]


class Waiting:
    """For how long the oldest record of each partition waits that is not processed. No I/O.

    A record that is not read yet was appended after the last one that was processed, and after the
    partition was last seen to hold no other, so it waits since then at most.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._processing: dict[int, float] = {}
        """Partition to the append time of the first record that is being processed, in Unix seconds."""
        self._processed: dict[int, float] = {}
        """Partition to a time after which all that is unread was appended."""
        self._unread: dict[int, float] = {}
        """Partition to such a time of a partition of which nothing was processed."""
        self._positions: dict[int, int] = {}
        """Partition to the offset after all that was processed."""
        self._ends: dict[int, int] = {}

    def begin(self, read: Read) -> None:
        """Note records that are processed from now on."""
        for partition, records in read.items():
            if (appended := records[0].timestamp_ms / 1000) > 0:
                self._processing[partition] = appended

    def end(self, read: Read) -> None:
        """Note that they are processed."""
        for partition, records in read.items():
            self._processing.pop(partition, None)
            # Markers of transactions may have brought the position further.
            reached = records[-1].offset + 1
            self._positions[partition] = max(reached, self._positions.get(partition, 0))
            if (appended := records[-1].timestamp_ms / 1000) > 0:
                self._processed[partition] = max(appended, self._processed.get(partition, 0.0))

    def measured(
        self, positions: Mapping[int, int], ends: Mapping[int, int], asked_at: float
    ) -> None:
        """Note the position of each partition and the end of its log; only these partitions are kept.

        ``asked_at`` is a time before which nothing was appended that is not counted, in Unix seconds.
        """
        self._positions, self._ends = dict(positions), dict(ends)
        for known in (self._processing, self._processed, self._unread):
            for partition in known.keys() - positions.keys():
                del known[partition]
        self._processed |= {p: asked_at for p in positions if not self.records(p)}

    def records(self, partition: int) -> int:
        """Return how many offsets of a partition are unread, of those that were measured."""
        return max(0, self._ends.get(partition, 0) - self._positions.get(partition, 0))

    def unknown(self) -> list[int]:
        """Return the partitions with unread records of which nothing is known."""
        return [p for p in self._positions if self.records(p) and p not in self._processed]

    def found_unread(self, ages: Mapping[int, float]) -> None:
        """Note how long the records at the positions of such partitions have been waiting, in seconds."""
        now = self._clock()
        self._unread = {partition: now - age for partition, age in ages.items()}

    def seconds(self, partition: int) -> float:
        """Return for how long its oldest record has been waiting at most; 0 if none is."""
        since = self._processing.get(partition)
        if since is None and self.records(partition):
            since = self._processed.get(partition, self._unread.get(partition))
        return 0.0 if since is None else max(0.0, self._clock() - since)


class Lag:
    """Measures one consumer's lag, at most once every few seconds."""

    def __init__(self, consumer: AIOKafkaConsumer, bootstrap: str, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._waiting = Waiting()
        self._append_times = AppendTimes(bootstrap, topic, client_id="lag")
        self._reading: asyncio.Task[None] | None = None
        self._shown: set[int] = set()
        self._next = 0.0

    def begin(self, read: Read) -> None:
        """Note records that are processed from now on."""
        self._waiting.begin(read)
        self._show(read)

    async def observe(self, read: Read) -> None:
        """Note that they are processed, and measure if it is time to."""
        self._waiting.end(read)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _OBSERVE_SECONDS
        asked_at = time.time()
        positions = known_positions(self._consumer)
        try:
            begins = await self._consumer.beginning_offsets(list(positions))
            ends = await self._consumer.end_offsets(list(positions))
        except KafkaError:
            return  # BrokerCheck reports it.
        self._forget_others({tp.partition for tp in positions})
        for tp, position in positions.items():
            metrics.RETAINED.labels(self._topic, str(tp.partition)).set(position - begins[tp])
        reached = {tp.partition: position for tp, position in positions.items()}
        self._waiting.measured(reached, {tp.partition: ends[tp] for tp in positions}, asked_at)
        self._show(reached)
        never_read = set(self._waiting.unknown())
        unknown = {tp.partition: at for tp, at in positions.items() if tp.partition in never_read}
        if unknown and (self._reading is None or self._reading.done()):
            # Beside the consumer's loop, which does not wait for it.
            self._reading = asyncio.ensure_future(self._read_unknown(unknown))

    async def _read_unknown(self, unknown: Mapping[int, int]) -> None:
        """Read when the records were appended that wait since before this consumer."""
        try:
            async with asyncio.timeout(_APPEND_TIMES_SECONDS):
                await self._append_times.read(unknown)
        except (KafkaUnavailable, TimeoutError):
            return  # It is read again soon.
        self._waiting.found_unread(self._append_times.ages(unknown))

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _show(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            if partition not in self._shown:
                self._shown.add(partition)
                labels = self._topic, str(partition)
                # Also true while a batch takes long, or consumption is paused.
                metrics.LAG_SECONDS.labels(*labels).set_function(
                    partial(self._waiting.seconds, partition)
                )
                metrics.LAG_RECORDS.labels(*labels).set_function(
                    partial(self._waiting.records, partition)
                )

    def _forget_others(self, assigned: set[int]) -> None:
        """Remove the metrics of partitions that another member has now."""
        for partition in self._shown - assigned:
            for gauge in (metrics.LAG_RECORDS, metrics.LAG_SECONDS, metrics.RETAINED):
                gauge.remove(self._topic, str(partition))
        self._shown &= assigned
