"""Follows ``listings.hidden``: all partitions, from the beginning, for the process's lifetime."""

from __future__ import annotations

from prometheus_client import Gauge

from shashin.errors import ShashinError, WrongTopicSettings
from shashin.kafka.log_reader import LogReader
from shashin.kafka.records import InRecord
from shashin.kafka.topic_admin import check_topics
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.hiding import BAD_RECORDS, Hiding
from shashin.serving.served_shards import ServedShards

HIDDEN_LISTINGS = Gauge("shashin_hidden_listings", "Listings in the hidden map.")

log = get_logger(__name__)


class HiddenFollower:
    """Applies every record of ``listings.hidden`` to the served shards."""

    def __init__(
        self,
        served: ServedShards,
        *,
        bootstrap: str,
        client_id: str,
        superseded_after_seconds: float,
    ) -> None:
        self._served = served
        self._hiding = Hiding(served, superseded_after_seconds=superseded_after_seconds)
        self._bootstrap = bootstrap
        self._client_id = client_id
        HIDDEN_LISTINGS.set_function(lambda: len(served.hidden))

    def loop(self) -> Loop:
        """Return the loop, ready once it reaches the end offsets as of its start."""
        return Loop(
            f"follower of {LISTINGS_HIDDEN}",
            self.run,
            ready_when=f"the end of {LISTINGS_HIDDEN}",
        )

    async def run(self, loop: LoopScope) -> None:
        """Follow until stopped."""
        while loop.next_turn():
            try:
                await self._follow(loop)
            except ShashinError as error:
                if loop.stopping or not error.retryable:
                    raise
                # Applying records is idempotent, so restart from the beginning.
                loop.degraded(loop.name, error.message)
                log.warning("following failed: restarting", error=error.message)
                await loop.sleep(1.0)

    async def _follow(self, loop: LoopScope) -> None:
        async with LogReader(self._bootstrap, LISTINGS_HIDDEN, client_id=self._client_id) as reader:
            partitions = await loop.retry(f"partitions of {LISTINGS_HIDDEN}", reader.partitions)
            await loop.retry(
                f"settings of {LISTINGS_HIDDEN}",
                lambda: check_topics(self._bootstrap, [LISTINGS_HIDDEN]),
                also=(WrongTopicSettings,),
            )
            with loop.waiting_for(f"offsets of {LISTINGS_HIDDEN}"):
                positions = await reader.begin_offsets(partitions)
                ends = await reader.end_offsets(partitions)
            behind = {p: end for p, end in ends.items() if end > positions[p]}
            reader.start_at(positions)
            broker = reader.broker_check(loop)
            while loop.next_turn():
                behind = {p: end for p, end in behind.items() if await reader.position(p) < end}
                if not behind:
                    self._served.hidden_loaded = True
                    loop.ready()
                self._hiding.apply_due()
                batches = await reader.read(
                    timeout_seconds=self._hiding.seconds_until_due(at_most=0.5), max_records=2_000
                )
                loop.clear(loop.name)
                if batches:
                    broker.responded()
                else:
                    await broker.check()
                for records in batches.values():
                    for record in records:
                        self._apply(record, loop)
                if reader.known_partitions() != partitions:
                    log.info("listings.hidden has new partitions: restarting")
                    return

    def _apply(self, record: InRecord, loop: LoopScope) -> None:
        if not record.problem:
            self._hiding.apply(record)
            return
        # Reading on is right, since order does not matter here, but a listing that is sold may now
        # be found.
        BAD_RECORDS.inc()
        loop.degraded(f"{LISTINGS_HIDDEN}[{record.partition}]", f"{record}: {record.problem}")
        log.error("unreadable record of listings.hidden", record=str(record), why=record.problem)
