"""The tail loop: applies the log to the open shards and cuts them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

from services.indexer.handlers import parse_batch
from services.indexer.live_tier import LiveTier
from services.indexer.partition import Add, Cut, ParsedRecord, PartitionState
from services.indexer.recovery import Starts
from services.indexer.sealing import Sealer
from services.indexer.searchable_events import SearchableEvents
from services.indexer.settings import IndexerSettings
from shashin.errors import ObjectStoreError, TooManyDeadLetters
from shashin.kafka.dead_letter_policy import RecentRecords, pause_consumption
from shashin.kafka.dead_letters import DeadLetter, note_dead_letters
from shashin.kafka.groups import indexer_group
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.record_spans import batch_span, note_searchable
from shashin.kafka.record_traces import exemplar
from shashin.kafka.records import InRecord
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.metrics import indexer as metrics
from shashin.metrics import pipeline
from shashin.runtime import tracing
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope

_BACKPRESSURE = f"consumption of {VECTORS_EMBEDDED}"
_PROGRESS_SECONDS = 2.0
_MARKERS_SECONDS = 0.25
_NEW_PARTITIONS_SECONDS = 0.5

_SINCE_EVENT = pipeline.SINCE_EVENT_SECONDS.labels(pipeline.SEARCHABLE)

log = get_logger(__name__)


class Tail:
    """Reads ``vectors.embedded`` from the position of the live tier on.

    ``writer`` has a single thread, which adds the rows of all partitions.
    """

    def __init__(
        self,
        settings: IndexerSettings,
        live: LiveTier,
        reader: LogReader,
        starts: Starts,
        producer: Producer,
        sealer: Sealer,
        writer: Executor,
    ) -> None:
        self._settings = settings
        self._live = live
        self._reader = reader
        self._starts = starts
        self._producer = producer
        self._sealer = sealer
        self._writer = writer
        self._rules = settings.cut_rules()
        self._choice = settings.partition_choice()
        self._group = indexer_group(settings.model_id)
        self._recent = RecentRecords(settings.dead_letter_policy())
        self._paused = False
        self.events = SearchableEvents()
        self._replayed_to: dict[int, int] = {}
        """By partition, the end of the log at the start: what is before was searchable earlier."""
        self._read: set[int] = set()
        """The partitions that the reader reads."""

    def loop(self) -> Loop:
        """Return the loop; ready once it has reached the end of the log as of startup."""
        return Loop(
            f"reader of {VECTORS_EMBEDDED}",
            self.run,
            ready_when=f"the end of {VECTORS_EMBEDDED}",
        )

    def opener(self) -> Loop:
        """Return the loop that opens partitions which are added to the topic.

        It is apart from the reader: while a new partition's horizon cannot be stored, the others
        are read.
        """
        return Loop(f"opener of partitions of {VECTORS_EMBEDDED}", self._open_new_partitions)

    async def run(self, loop: LoopScope) -> None:
        """Read and apply the log until stopped; rows added by then stay searchable.

        Raises:
            RecordsLost: when the log no longer has the position. The next start finds out whether
                another replica has sealed what is gone.
        """
        self._start_reading()
        try:
            await self._follow(loop)
        except TooManyDeadLetters as error:
            await pause_consumption(error, VECTORS_EMBEDDED, loop)

    async def _follow(self, loop: LoopScope) -> None:
        self._replayed_to = await loop.retry(
            "the end of the log",
            lambda: self._reader.end_offsets(list(self._live.partitions)),
        )
        replay = _Replay(self._live, self._replayed_to)
        broker = self._reader.broker_check(loop)
        self._reader.wait_at_damaged_batches(loop)
        next_idle_check = next_marker_check = 0.0
        while loop.next_turn():
            if self._read != self._live.partitions.keys():
                self._start_reading()
            if not await self._apply_backpressure(loop):
                batches = await loop.retry(
                    f"records of {VECTORS_EMBEDDED}",
                    lambda: self._reader.read(timeout_seconds=0.25, max_records=512),
                )
                if batches:
                    broker.responded()
                    failpoint("after-read")
                else:
                    await broker.check()
                for partition, records in batches.items():
                    await self._apply(self._live.partitions[partition], records, loop)
                if (now := time.monotonic()) >= next_marker_check:
                    await self._skip_markers()
                    next_marker_check = now + _MARKERS_SECONDS
                replay.report(loop)
            # Also while other partitions are busy, so that an idle one is cut in time.
            if (now := time.monotonic()) >= next_idle_check:
                await self._cut_idle(loop)
                next_idle_check = now + min(1.0, self._rules.bucket_seconds / 10)

    def _start_reading(self) -> None:
        offsets = self._live.next_offsets()
        self._reader.start_at(offsets)
        self._read = set(offsets)

    async def _skip_markers(self) -> None:
        """Note how far the log was read: it may have offsets without records at its end.

        All records before the reader's positions are applied.
        """
        for partition in self._read:
            state = self._live.partitions[partition]
            state.open.read_up_to(await self._reader.position(partition))

    async def _open_new_partitions(self, loop: LoopScope) -> None:
        """Open partitions that were added to the topic, unless this replica indexes listed ones."""
        while await loop.sleep(_NEW_PARTITIONS_SECONDS):
            known = self._reader.known_partitions()
            new = self._choice.of_added([p for p in known if p not in self._live.partitions])
            if not new:
                continue
            log.info("partitions added", partitions=new)
            self._live.open_partitions(
                await loop.retry(
                    "start offsets of new partitions",
                    partial(self._starts.of, new),
                    # As in sealing: the other partitions are served meanwhile.
                    also=(ObjectStoreError,),
                )
            )

    async def _apply_backpressure(self, loop: LoopScope) -> bool:
        """Pause while too many rows are held; returns whether consumption is paused."""
        rows = self._live.held.rows
        paused = rows > self._settings.held_row_limit
        metrics.READING_PAUSED.set(paused)
        if not paused:
            loop.clear(_BACKPRESSURE)
        else:
            if not self._paused:
                log.warning("consumption paused: held rows wait for an index server", rows=rows)
            loop.degraded(_BACKPRESSURE, f"paused: {rows} held rows wait for an index server")
            await loop.sleep(0.5)
        self._paused = paused
        return paused

    async def _apply(
        self, state: PartitionState, records: Sequence[InRecord], loop: LoopScope
    ) -> None:
        with batch_span(VECTORS_EMBEDDED, self._group, records):
            await self._apply_batch(state, records, loop)
        log.debug("batch applied", partition=state.partition, records=len(records))

    async def _apply_batch(
        self, state: PartitionState, records: Sequence[InRecord], loop: LoopScope
    ) -> None:
        began_ns = time.time_ns()
        batch = parse_batch(records, self._settings.space)
        await self._dead_letter(records, batch.dead_letters, loop)
        for step in state.steps(batch.records):
            match step:
                case Add(records=added):
                    await asyncio.get_running_loop().run_in_executor(self._writer, state.add, added)
                    self._observe(added, records, state)
                    if (tracer := tracing.tracer()) is not None:
                        for record in self._now_searchable(records, added, state):
                            note_searchable(tracer, record, began_ns)
                    metrics.ROWS.inc(sum(len(record.rows) for record in added))
                    failpoint("after-add")
                    superseding = [
                        batch.superseding[record.offset]
                        for record in added
                        if record.offset in batch.superseding
                    ]
                    await self._write(superseding, loop)
                    failpoint("after-hide")
                case Cut() as cut:
                    self._cut(state, cut)

    async def _dead_letter(
        self, records: Sequence[InRecord], dead_letters: Sequence[DeadLetter], loop: LoopScope
    ) -> None:
        bad = {dead_letter.record.offset for dead_letter in dead_letters}
        dead_lettered = [record.offset in bad for record in records]
        if dead_letters and self._recent.would_exceed(dead_lettered):
            raise self._recent.refuse(VECTORS_EMBEDDED, dead_lettered, dead_letters[0])
        self._recent.note(dead_lettered)
        note_dead_letters(dead_letters)
        await self._write([dead_letter.as_record() for dead_letter in dead_letters], loop)

    def _now_searchable(
        self, records: Sequence[InRecord], added: Sequence[ParsedRecord], state: PartitionState
    ) -> Iterator[InRecord]:
        """Yield those of the records whose rows were added, without what was searchable earlier."""
        replayed_to = self._replayed_to.get(state.partition, 0)
        new = {one.offset for one in added if one.rows and one.offset >= replayed_to}
        return (record for record in records if record.offset in new)

    def _observe(
        self, added: Sequence[ParsedRecord], records: Sequence[InRecord], state: PartitionState
    ) -> None:
        traced = tracing.tracer() is not None
        exemplars = {one.offset: exemplar(one.headers) for one in records} if traced else {}
        metrics.RECORDS.inc(len(added))
        now = time.time()
        metrics.SEARCHABLE_SECONDS.observe(max(0.0, now - added[-1].timestamp_ms / 1000))
        replayed_to = self._replayed_to.get(state.partition, 0)
        for record in added:
            if record.rows and record.event_ms is not None and record.offset >= replayed_to:
                seconds = max(0.0, now - record.event_ms / 1000)
                _SINCE_EVENT.observe(seconds, exemplars.get(record.offset))
                self.events.note(seconds)
        metrics.LIVE_OFFSET.labels(str(state.partition)).set(state.open.position)

    async def _write(self, records: Sequence[OutRecord], loop: LoopScope) -> None:
        if records:
            await loop.retry(
                "kafka to acknowledge records", lambda: self._producer.send_all(records)
            )

    async def _cut_idle(self, loop: LoopScope) -> None:
        checked_at_ms = int(time.time() * 1000)
        candidates = [
            state
            for state in self._live.partitions.values()
            if state.idle_cut(state.open.position, checked_at_ms) is not None
        ]
        if not candidates:
            return
        ends = await loop.retry(
            "the end of the log",
            lambda: self._reader.end_offsets([state.partition for state in candidates]),
        )
        for state in candidates:
            # Behind the end for readers there may be the records of an open transaction: they were
            # appended in this bucket, and must not be cut off from it.
            written = self._reader.high_watermark(state.partition)
            cut = state.idle_cut(max(ends[state.partition], written), checked_at_ms)
            if cut is not None:
                self._cut(state, cut)

    def _cut(self, state: PartitionState, cut: Cut) -> None:
        self._sealer.seal(self._live.cut(state), cut.reason)
        failpoint("after-cut")


class _Replay:
    """Progress of replaying the records that the log held at startup."""

    def __init__(self, live: LiveTier, ends: dict[int, int]) -> None:
        self._live = live
        self._behind = ends
        self._total = self._left()
        self._next_report = time.monotonic() + _PROGRESS_SECONDS

    def _left(self) -> int:
        offsets = self._live.next_offsets()
        return sum(max(0, end - offsets[partition]) for partition, end in self._behind.items())

    def report(self, loop: LoopScope) -> None:
        """Report readiness, or the number of records left."""
        if not self._behind:
            return
        offsets = self._live.next_offsets()
        self._behind = {p: end for p, end in self._behind.items() if offsets[p] < end}
        now = time.monotonic()
        if not self._behind:
            loop.ready()
        elif now >= self._next_report:
            left = self._left()
            log.info("replaying the log", done=self._total - left, total=self._total)
            loop.not_ready(f"replaying: {left} of {self._total} records left")
            self._next_report = now + _PROGRESS_SECONDS
