"""The live tier: follows the log into open shards, cuts them, and lets sealed ones go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from services.indexer import metrics
from services.indexer.handlers import parse_batch
from services.indexer.partition import Add, Cut, PartitionState
from services.indexer.recovery import Start, starts
from services.indexer.release import IndexServers, due_for_release
from services.indexer.sealing import Sealer
from services.indexer.settings import IndexerSettings, parse_partitions
from shashin.errors import RepositoryError, TooManyDeadLetters, UserError
from shashin.kafka.dead_letters import DeadLetter, note_dead_letters
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.retry import until_done
from shashin.kafka.settling import RecentRecords, stand_still
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.offsets.coverage import Position
from shashin.offsets.ranges import OffsetRange
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.failpoints import failpoint
from shashin.runtime.health import Health, Heartbeat
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import sleep_unless
from shashin.serving.served_shards import ServedShards
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.shards.shard import Shard
from shashin.tiers import HOURLY

CAUGHT_UP = "live tier"
ROOM = "room for rows"

log = get_logger(__name__)


class LiveTier:
    """Owns the partitions' open shards and the sealed shards that nobody else holds yet."""

    def __init__(
        self,
        settings: IndexerSettings,
        served: ServedShards,
        repository: ModelRepository,
        reader: LogReader,
        producer: Producer,
        sealer: Sealer,
        health: Health,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._served = served
        self._repository = repository
        self._reader = reader
        self._producer = producer
        self._sealer = sealer
        self._health = health
        self._stopping = stopping
        self._rules = settings.cut_rules()
        self._kind = settings.kind()
        self._wanted = parse_partitions(settings.partitions)
        """Partitions to index; None for all that there are."""
        self._partitions: dict[int, PartitionState] = {}
        self._held: list[Shard] = []
        """Ended and sealed shards, oldest first, that are served until they are released."""
        self._committed: set[str] = set()
        self._recent = RecentRecords(settings.giving_up())
        self._waiting = False
        """Whether the log is not read on, for lack of room."""
        # USearch strands nodes under concurrent adds: one thread adds, for all partitions.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="index-writer")

    def positions(self, shards: Sequence[Shard]) -> Mapping[int, Position]:
        """Return what has to be covered, as of the shards of one snapshot."""
        ends = {
            r.partition: r.to_offset
            for shard in shards
            if isinstance(shard, OpenShard)
            for r in shard.ranges
        }
        return {
            partition: Position(state.horizon_offset, ends[partition])
            for partition, state in self._partitions.items()
            if partition in ends
        }

    def _serve(self) -> None:
        opened = [state.open for state in self._partitions.values()]
        self._served.serve([*self._held, *opened])
        metrics.HELD_SHARDS.set(len(self._held))

    # --- start ----------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Find out from the manifests where each partition goes on, and take up what nobody serves."""
        self._held, self._committed = [], set()
        existing = await self._reader.partitions()
        partitions = existing if self._wanted is None else self._wanted
        if missing := set(partitions) - set(existing):
            raise UserError(
                f"SHASHIN_PARTITIONS names partitions {sorted(missing)}, but {VECTORS_EMBEDDED} "
                f"has {len(existing)}: name partitions from 0 to {len(existing) - 1}"
            )
        stored, errors = await self._repository.shards(self._settings.model_id, HOURLY)
        for error in errors:
            log.error("unreadable manifest: its range is read from the log", error=error.message)
        ranges = [r for shard in stored for r in shard.manifest.source_ranges]
        found = starts(ranges, await self._reader.begin_offsets(partitions))
        self._begin(found)
        self._reader.start_at({p: s.from_offset for p, s in found.items()})
        pointer, _ = await self._repository.read_pointer(self._settings.model_id, HOURLY)
        pointed = {shard.shard_id for shard in pointer.shards} if pointer else set()
        for shard in stored:
            if shard.manifest.shard_id not in pointed and _is_before_open(shard, found):
                try:
                    await self._take_up(shard)
                except RepositoryError as error:
                    log.error(  # noqa: TRY400 - the message says all
                        "a sealed shard cannot be served: its range is missing until it is mended",
                        shard=shard.manifest.shard_id,
                        error=error.message,
                    )
        self._serve()

    def _begin(self, found: Mapping[int, Start]) -> None:
        for partition, start in found.items():
            for lost in start.lost:
                log.error("the log no longer holds offsets that no shard has", lost=str(lost))
            self._partitions[partition] = PartitionState(
                partition,
                horizon_offset=start.horizon_offset,
                from_offset=start.from_offset,
                rules=self._rules,
                space=self._settings.space,
                kind=self._kind,
                hidden=self._served.hidden,
            )
        log.info("going on", offsets={p: s.from_offset for p, s in found.items()})

    async def _begin_new_partitions(self, beat: Heartbeat) -> None:
        """Begin partitions that were added to the topic, where this replica indexes all."""
        if self._wanted is not None:
            return
        new = [p for p in self._reader.known_partitions() if p not in self._partitions]
        if not new:
            return
        log.info("partitions were added", partitions=new)
        begins = await until_done(
            "ask where new partitions begin",
            lambda: self._reader.begin_offsets(new),
            stopping=self._stopping,
            beat=beat,
        )
        self._begin(starts((), begins))
        self._reader.start_at({p: s.open.position for p, s in self._partitions.items()})
        self._serve()

    async def _take_up(self, stored: StoredShard) -> None:
        cache = self._settings.work_folder / "held"
        folder = await self._repository.fetch(stored, cache)
        shard = await asyncio.to_thread(SealedShard, stored.manifest, folder)
        self._served.join(shard)
        await asyncio.to_thread(self._served.mask, shard)
        self._held.append(shard)
        self._committed.add(shard.shard_id)

    # --- the log --------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Read and apply the log until stopped; what is searchable by then stays so."""
        beat = self._health.heartbeat("reader of " + VECTORS_EMBEDDED)
        try:
            await self._follow(beat)
        except TooManyDeadLetters as error:
            await stand_still(
                error, VECTORS_EMBEDDED, health=self._health, beat=beat, stopping=self._stopping
            )

    async def _follow(self, beat: Heartbeat) -> None:
        self._health.require(CAUGHT_UP, waiting_for="the end of " + VECTORS_EMBEDDED)
        behind = await until_done(
            "ask for the end of the log",
            lambda: self._reader.end_offsets(list(self._partitions)),
            stopping=self._stopping,
            beat=beat,
        )
        total = sum(end - self._partitions[p].open.position for p, end in behind.items())
        next_idle_check, next_progress = 0.0, time.monotonic() + 2.0
        while not self._stopping.is_set():
            beat.beat()
            await self._begin_new_partitions(beat)
            if await self._has_to_wait():
                continue
            batches = await until_done(
                "read " + VECTORS_EMBEDDED,
                lambda: self._reader.read(timeout_seconds=0.25, max_records=512),
                stopping=self._stopping,
                beat=beat,
            )
            if batches:
                failpoint("after-read")
            for partition, records in batches.items():
                await self._apply(self._partitions[partition], records)
            behind = {p: e for p, e in behind.items() if self._partitions[p].open.position < e}
            now = time.monotonic()
            if not behind:
                self._health.set_ready(CAUGHT_UP)
            elif now >= next_progress:
                left = sum(e - self._partitions[p].open.position for p, e in behind.items())
                log.info("replaying the log", done=total - left, total=total)
                self._health.set_unready(CAUGHT_UP, f"replaying: {left} of {total} records left")
                next_progress = now + 2.0
            # Also while other partitions are busy: an idle one must not wait for them.
            if now >= next_idle_check:
                await self._cut_idle()
                next_idle_check = now + min(1.0, self._rules.bucket_seconds / 10)

    async def _has_to_wait(self) -> bool:
        """Wait a moment, where too many rows wait for index servers already; returns whether so."""
        held = sum(shard.rows for shard in self._held)
        waits = held > self._settings.held_row_limit
        metrics.READING_PAUSED.set(waits)
        if not waits:
            self._health.go_on(ROOM)
            self._waiting = False
            return False
        if not self._waiting:
            log.warning("not reading on: sealed rows wait for an index server", rows=held)
        self._waiting = True
        self._health.hold(ROOM, f"{held} sealed rows wait for an index server to hold them")
        await self._cut_idle()
        await sleep_unless(self._stopping, 0.5)
        return True

    async def _apply(self, state: PartitionState, records: Sequence[InRecord]) -> None:
        batch = parse_batch(records, self._settings.space)
        await self._give_up(records, batch.dead_letters)
        for step in state.steps(batch.records):
            match step:
                case Add(records=added):
                    await asyncio.get_running_loop().run_in_executor(self._writer, state.add, added)
                    self._observe(added[-1].timestamp_ms, len(added), state)
                    metrics.ROWS.inc(sum(len(record.rows) for record in added))
                    failpoint("after-add")
                    await self._write_out(
                        [
                            batch.superseding[record.offset]
                            for record in added
                            if record.offset in batch.superseding
                        ]
                    )
                    failpoint("after-hide")
                case Cut() as cut:
                    self._cut(state, cut)

    async def _give_up(self, records: Sequence[InRecord], letters: Sequence[DeadLetter]) -> None:
        lost = {letter.record.offset for letter in letters}
        given_up = [record.offset in lost for record in records]
        if letters and self._recent.would_exceed(given_up):
            raise self._recent.refuse(VECTORS_EMBEDDED, given_up, letters[0])
        self._recent.note(given_up)
        note_dead_letters(letters)
        await self._write_out([letter.as_record() for letter in letters])

    def _observe(self, appended_ms: int, records: int, state: PartitionState) -> None:
        metrics.RECORDS.inc(records)
        metrics.SEARCHABLE_SECONDS.observe(max(0.0, time.time() - appended_ms / 1000))
        metrics.LIVE_OFFSET.labels(state.partition).set(state.open.position)

    async def _write_out(self, records: Sequence[OutRecord]) -> None:
        if records:
            await until_done(
                "write records",
                lambda: self._producer.send_all(records),
                stopping=self._stopping,
                beat=None,
            )

    async def _cut_idle(self) -> None:
        asked_at_ms = int(time.time() * 1000)
        candidates = [
            state
            for state in self._partitions.values()
            if state.idle_cut(state.open.position, asked_at_ms) is not None
        ]
        if not candidates:
            return
        ends = await until_done(
            "ask for high watermarks",
            lambda: self._reader.end_offsets([state.partition for state in candidates]),
            stopping=self._stopping,
            beat=None,
        )
        for state in candidates:
            cut = state.idle_cut(ends[state.partition], asked_at_ms)
            if cut is not None:
                self._cut(state, cut)

    def _cut(self, state: PartitionState, cut: Cut) -> None:
        ended = state.cut(cut.at_offset)
        self._held.append(ended)
        self._serve()
        self._sealer.seal(ended, cut.reason)
        failpoint("after-cut")

    # --- sealed shards --------------------------------------------------------------------------

    async def seal(self) -> None:
        """Seal ended ranges until stopped."""
        await self._sealer.run(self._sealed, self._health.heartbeat("sealer"))

    async def _sealed(self, shard: OpenShard) -> None:
        self._committed.add(shard.shard_id)
        failpoint("before-offset-commit")
        await self._reader.commit(self._sealed_up_to())

    async def release(self, servers: IndexServers) -> None:
        """Let go of sealed shards that index servers hold, until stopped."""
        beat = self._health.heartbeat("release of sealed shards")
        seen_since: dict[str, float] = {}
        while not await sleep_unless(self._stopping, 0.5):
            beat.beat()
            candidates = [s for s in self._held if s.shard_id in self._committed]
            if not candidates:
                continue
            due, seen_since = due_for_release(
                candidates,
                await servers.held_ranges(),
                seen_since,
                time.monotonic(),
                self._settings.release_after_seconds,
            )
            if due:
                failpoint("before-release")
                self._held = [s for s in self._held if s not in due]
                self._committed -= {s.shard_id for s in due}
                self._serve()
                failpoint("after-release")
                log.info("released", shards=[s.shard_id for s in due])

    def _sealed_up_to(self) -> dict[int, int]:
        """Return where the next start would go on, for lag dashboards."""
        firsts: dict[int, int] = {p: s.open.from_offset for p, s in self._partitions.items()}
        for shard in self._held:
            if shard.shard_id not in self._committed:
                for held in shard.ranges:
                    firsts[held.partition] = min(firsts[held.partition], held.from_offset)
        return firsts

    def close(self) -> None:
        """End the writer thread."""
        self._writer.shutdown()


def _is_before_open(stored: StoredShard, found: Mapping[int, Start]) -> bool:
    """Whether every range of the shard lies before the open range of its partition, which is ours."""
    ranges: Sequence[OffsetRange] = stored.manifest.source_ranges
    return all(
        r.partition in found and r.to_offset <= found[r.partition].from_offset for r in ranges
    )
