"""Follows ``listings.hidden``: all partitions, for the process's lifetime.

It starts where what the process knows ends (``HiddenListings.open_at``), so a start takes as long as
what is new, however many listings were ever hidden.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, closing

from shashin.errors import KafkaUnavailable, RecordsLost, ShashinError, WrongTopicSettings
from shashin.kafka.log_reader import LogReader
from shashin.kafka.records import InRecord
from shashin.kafka.topic_admin import check_topics
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.metrics import index as metrics
from shashin.offsets.log_position import LogPosition
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.catch_up import bounds_of
from shashin.serving.hidden_listings import HiddenListings
from shashin.serving.hiding import Hiding
from shashin.serving.hiding_thread import RECORDS_AT_ONCE, HidingThread
from shashin.serving.served_shards import ServedShards

_TOPIC_SECONDS = 5.0
"""Between requests for the topic's id."""

log = get_logger(__name__)


class HiddenFollower:
    """Applies every record of ``listings.hidden`` to the served shards."""

    def __init__(
        self,
        served: ServedShards,
        hidden: HiddenListings,
        *,
        bootstrap: str,
        client_id: str,
        superseded_after_seconds: float,
    ) -> None:
        self._served = served
        self._hiding = Hiding(superseded_after_seconds=superseded_after_seconds)
        self._thread = HidingThread(served, hidden, self._hiding)
        self._bootstrap = bootstrap
        self._client_id = client_id
        metrics.HIDDEN_LISTINGS.set_function(lambda: len(hidden))

    @property
    def applied(self) -> LogPosition:
        """The position before which everything is applied to all served shards.

        Masks that are read after it reflect everything before it.
        """
        return self._thread.applied

    def loop(self) -> Loop:
        """Return the loop, ready once it reaches the end offsets as of its start."""
        return Loop(
            f"follower of {LISTINGS_HIDDEN}",
            self.run,
            ready_when=f"the end of {LISTINGS_HIDDEN}",
        )

    async def run(self, loop: LoopScope) -> None:
        """Follow until stopped.

        Raises:
            RecordsLost: when the log no longer has the position. The next start finds out what that
                means for each shard.
        """
        with closing(self._thread):
            while loop.next_turn():
                try:
                    await self._follow(loop)
                except ShashinError as error:
                    if loop.stopping or not error.retryable:
                        raise
                    loop.degraded(loop.name, error.message)
                    log.warning("following failed: restarting", error=error.message)
                    await loop.sleep(1.0)

    async def _follow(self, loop: LoopScope) -> None:
        async with AsyncExitStack() as stack:
            reader = await loop.retry(
                f"kafka at {self._bootstrap}",
                lambda: stack.enter_async_context(
                    LogReader(self._bootstrap, LISTINGS_HIDDEN, client_id=self._client_id)
                ),
            )
            partitions = await loop.retry(f"partitions of {LISTINGS_HIDDEN}", reader.partitions)
            await loop.retry(
                f"settings of {LISTINGS_HIDDEN}",
                lambda: check_topics(self._bootstrap, [LISTINGS_HIDDEN]),
                also=(WrongTopicSettings,),
            )
            with loop.waiting_for(f"offsets of {LISTINGS_HIDDEN}"):
                bounds = await bounds_of(reader)
            before = self.applied
            if before.offsets and not before.may_be_of(bounds.topic_id):
                raise _recreated()
            start = await self._thread.open_at(bounds)
            if not start.reaches(before):
                # What decides about new rows has to be filled again: until then, some would be found
                # that are hidden.
                self._served.hidden_loaded = False
                loop.not_ready(f"the end of {LISTINGS_HIDDEN}")
            behind = {p: end for p, end in bounds.ends.items() if end > start.offset(p)}
            reader.start_at(start.offsets)
            broker = reader.broker_check(loop)
            topic = _SameTopic(reader, bounds.topic_id, loop)
            records: list[InRecord] = []
            while loop.next_turn():
                read = {p: await reader.position(p) for p in partitions}
                ahead = (reader.high_watermark(p) - position for p, position in read.items())
                metrics.HIDDEN_LAG.set(sum(max(0, lag) for lag in ahead))
                await self._thread.apply(records, read, delay_updates=self._served.hidden_loaded)
                behind = {p: end for p, end in behind.items() if await reader.position(p) < end}
                if not behind:
                    self._served.hidden_loaded = True
                    loop.ready()
                batches = await reader.read(
                    timeout_seconds=self._hiding.seconds_until_due(at_most=0.5),
                    max_records=RECORDS_AT_ONCE,
                )
                loop.clear(loop.name)
                if batches:
                    broker.responded()
                else:
                    await broker.check()
                await topic.check()
                records = self._readable(
                    (record for of_one in batches.values() for record in of_one), loop
                )
                if reader.known_partitions() != partitions:
                    log.info("listings.hidden has new partitions: restarting")
                    return

    def _readable(self, records: Iterable[InRecord], loop: LoopScope) -> list[InRecord]:
        """Return the records that can be read, and report the others."""
        readable = []
        for record in records:
            if not record.problem:
                readable.append(record)
                continue
            # Reading on is right, since order does not matter here, but a listing that is sold may
            # now be found.
            metrics.BAD_HIDDEN_RECORDS.inc()
            self._hiding.hold(record)
            loop.degraded(f"{LISTINGS_HIDDEN}[{record.partition}]", f"{record}: {record.problem}")
            log.error(
                "unreadable record of listings.hidden", **record.log_fields, why=record.problem
            )
        return readable


class _SameTopic:
    """Notices that the topic was deleted and created again: its offsets then mean other records."""

    def __init__(self, reader: LogReader, topic_id: str, loop: LoopScope) -> None:
        self._reader = reader
        self._topic_id = topic_id
        self._loop = loop
        self._next_check = time.monotonic() + _TOPIC_SECONDS

    async def check(self) -> None:
        if (now := time.monotonic()) < self._next_check:
            return
        self._next_check = now + _TOPIC_SECONDS
        try:
            with self._loop.waiting_for(f"the id of {LISTINGS_HIDDEN}"):
                found = await self._reader.topic_id()
        except KafkaUnavailable:
            return  # reading reports it
        if found != self._topic_id:
            raise _recreated()


def _recreated() -> RecordsLost:
    return RecordsLost(
        f"{LISTINGS_HIDDEN} was deleted and created again while it was followed: what was hidden "
        "last may be lost. The next start finds out which shards that concerns"
    )
