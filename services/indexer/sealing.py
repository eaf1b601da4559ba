"""Sealing: writes, commits and announces the shard of a closed range."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from services.indexer.settings import IndexerSettings
from shashin.errors import DiskUnavailable, ObjectStoreError, RepositoryError
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import INDEXES_SEALED
from shashin.metrics import indexer as metrics
from shashin.offsets.cut import CutReason
from shashin.offsets.log_position import LogPosition
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import Commit, ModelRepository
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.runtime.work_folder import WorkFolder
from shashin.shards.format.file_entry import FileEntry
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import ROWS_FILE, Manifest
from shashin.shards.format.shard_id import shard_id
from shashin.shards.kinds.protocol import IndexKind
from shashin.shards.kinds.registry import with_quantizer
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2

_IDLE_SECONDS = 1.0

_QUANTIZER = "the model's quantizer"

log = get_logger(__name__)


def _set_aside_delays() -> Iterator[float]:
    return backoff_seconds(first=1.0, longest=60.0)


@dataclass
class _Job:
    """A closed range to seal."""

    shard: OpenShard
    reason: CutReason
    identity: str
    """The id of the sealed shard."""
    queued_at: float
    written: Manifest | None = None
    """What is in the work folder."""
    has_snapshot: bool = False
    """Whether its hidden rows are stored."""
    retry_at: float = 0.0
    """Monotonic time before which a shard that was set aside is not retried."""
    delays: Iterator[float] = field(default_factory=_set_aside_delays)


class Sealer:
    """Seals closed ranges one at a time; shards are written in ``executor``."""

    def __init__(
        self,
        settings: IndexerSettings,
        work: WorkFolder,
        repository: ModelRepository,
        quantizers: Quantizers,
        snapshots: HiddenSnapshots,
        producer: Producer,
        executor: Executor,
        on_committed: Callable[[OpenShard], Awaitable[None]],
        hidden_applied: Callable[[], LogPosition],
    ) -> None:
        self._space = settings.space
        self._bucket_seconds = settings.bucket_seconds
        self._work = work
        self._repository = repository
        self._quantizers = quantizers
        self._kind = settings.sealed_kind()
        self._snapshots = snapshots
        self._producer = producer
        self._executor = executor
        self._on_committed = on_committed
        """Called for each shard that is in the repository."""
        self._hidden_applied = hidden_applied
        """Returns the position of listings.hidden that the masks reflect."""
        self._queue: deque[_Job] = deque()
        self._set_aside: list[_Job] = []
        self._sealing: _Job | None = None
        self._wake = asyncio.Event()
        metrics.SEAL_LAG_SECONDS.set_function(self._lag_seconds)

    def seal(self, shard: OpenShard, reason: CutReason) -> None:
        """Queue the shard of a closed range."""
        identity = shard_id(self._space.model_id, HOURLY, shard.ranges)
        self._queue.append(_Job(shard, reason, identity, time.monotonic()))
        self._wake.set()

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("sealer", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Seal queued shards until stopped.

        A shard that cannot be sealed because of what is stored is set aside: it stays held, and is
        retried while the others are sealed. Shards still waiting at the end are dropped: the next
        start reads their ranges from the log again.
        """
        while loop.next_turn():
            job = self._next()
            if job is None:
                self._wake.clear()
                await loop.wait(self._wake, _IDLE_SECONDS)
                continue
            self._sealing = job
            try:
                first = await self._seal(job, loop)
            except RepositoryError as error:
                self._put_aside(job, error, loop)
                continue
            finally:
                self._sealing = None
            loop.clear(_problem(job))
            await self._note_sealed(job, first, loop)

    def _lag_seconds(self) -> float:
        sealing = [self._sealing] if self._sealing is not None else []
        waiting = [job.queued_at for job in (*sealing, *self._queue, *self._set_aside)]
        return time.monotonic() - min(waiting) if waiting else 0.0

    def _next(self) -> _Job | None:
        now = time.monotonic()
        due = next((job for job in self._set_aside if job.retry_at <= now), None)
        if due is None:
            return self._queue.popleft() if self._queue else None
        self._set_aside.remove(due)
        metrics.SET_ASIDE_SHARDS.set(len(self._set_aside))
        return due

    def _put_aside(self, job: _Job, error: RepositoryError, loop: LoopScope) -> None:
        job.retry_at = time.monotonic() + next(job.delays)
        self._set_aside.append(job)
        metrics.SET_ASIDE_SHARDS.set(len(self._set_aside))
        loop.degraded(_problem(job), f"set aside, its rows are served here: {error.message}")
        log.error("shard set aside", shard=job.identity, error=error.message)

    async def _note_sealed(self, job: _Job, first: bool, loop: LoopScope) -> None:
        seconds = time.monotonic() - job.queued_at
        metrics.SEAL_SECONDS.observe(seconds)
        metrics.SHARDS_SEALED.labels(job.reason.value).inc()
        if not first:
            metrics.SEALED_BY_ANOTHER.inc()
        log.info(
            "sealed",
            range=str(job.shard.ranges[0]),
            rows=job.shard.rows,
            cut=job.reason.value,
            first=first,
            seconds=round(seconds, 3),
        )
        with loop.waiting_for("kafka to commit offsets"):
            await self._on_committed(job.shard)

    async def _seal(self, job: _Job, loop: LoopScope) -> bool:
        folder = self._work.path / job.identity

        async def write_and_commit() -> tuple[Manifest, Commit]:
            if job.written is None:
                kind = await self._sealed_kind(loop)
                job.written = await self._write_in_executor(job, folder, kind)
                failpoint("after-write")
            written = job.written
            await self._write_snapshot(job, written)
            try:
                return written, await self._repository.commit_shard(written, folder)
            except DiskUnavailable:
                job.written = None
                raise
            except ObjectStoreError:
                # Writing takes long, so only if that may help.
                if not await asyncio.to_thread(_has_files, folder, written):
                    job.written = None
                raise

        manifest, commit = await loop.retry(
            f"sealing of shard {job.identity}",
            write_and_commit,
            # On any store error keep retrying: the rows stay searchable here in the meantime.
            also=(ObjectStoreError,),
        )
        _report_differences(manifest, commit)
        announcement = self._announcement(commit.manifest)
        failpoint("before-event")
        await loop.retry(
            f"announcing shard {job.identity}", lambda: self._producer.send_all([announcement])
        )
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return commit.first

    async def _write_snapshot(self, job: _Job, manifest: Manifest) -> None:
        """Store which rows are hidden by now, so that nobody has to read listings.hidden for that.

        Before the manifest: a shard has a snapshot from the moment that it can be served.
        """
        if job.has_snapshot:
            return
        # The position first: rows are hidden in another thread before it is said to be applied.
        position, rows = self._hidden_applied(), job.shard.hidden_row_numbers()
        if position.offsets:
            await self._snapshots.write(
                manifest,
                HiddenSnapshot(
                    manifest.shard_id, manifest.rows_sha256, rows, position, time.time()
                ),
            )
            failpoint("after-snapshot")
        job.has_snapshot = True

    def _announcement(self, manifest: Manifest) -> OutRecord:
        return OutRecord(
            INDEXES_SEALED,
            manifest.shard_id.encode(),
            events_pb2.SealedShard(
                shard_id=manifest.shard_id,
                tier=manifest.tier,
                model_id=manifest.model_id,
                manifest_key=manifest.key,
            ).SerializeToString(),
        )

    async def _sealed_kind(self, loop: LoopScope) -> IndexKind:
        """Return the kind with the model's quantizer. One that cannot be read delays no shard."""
        try:
            newest = await self._quantizers.newest()
            path = None
            if newest is not None:
                path = await self._quantizers.fetch(newest, self._work.path)
            kind = with_quantizer(self._kind, path, self._space.dimensions)
        except RepositoryError as error:
            loop.degraded(_QUANTIZER, f"shards are sealed without it: {error.message}")
            log.warning("sealing without the quantizer", error=error.message)
            return self._kind
        loop.clear(_QUANTIZER)
        return kind

    async def _write_in_executor(self, job: _Job, folder: Path, kind: IndexKind) -> Manifest:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._write, job, folder, kind)
        except OSError as error:
            raise DiskUnavailable(
                f"shard {job.identity} cannot be written to {folder}: {error.strerror or error}"
            ) from error

    def _write(self, job: _Job, folder: Path, kind: IndexKind) -> Manifest:
        self._work.keep()
        manifest = job.shard.write(
            folder,
            tier=HOURLY,
            bucket_seconds=self._bucket_seconds,
            reason=job.reason.value,
            kind=kind,
        )
        if manifest.recall_at_10 is not None:
            metrics.RECALL.set(manifest.recall_at_10)
        return manifest


def _problem(job: _Job) -> str:
    return f"shard {job.identity}"


def _has_files(folder: Path, manifest: Manifest) -> bool:
    return all((folder / entry.name).is_file() for entry in manifest.files)


def difference(ours: Manifest, committed: Manifest) -> str | None:
    """Return what differs between two shards of one range: rows, index or nothing (None)."""
    if _rows(ours) != _rows(committed):
        return "rows"
    if (ours.index_spec, set(ours.files)) != (committed.index_spec, set(committed.files)):
        return "index"
    return None


def _rows(manifest: Manifest) -> list[FileEntry]:
    return [entry for entry in manifest.files if entry.name == ROWS_FILE]


def _report_differences(ours: Manifest, commit: Commit) -> None:
    """Count and log that replicas do not agree; the first commit wins in any case."""
    what = difference(ours, commit.manifest)
    if what is not None:
        metrics.SEALED_DIFFERENTLY.labels(what).inc()
        note = log.warning if what == "index" else log.error
        note(
            "another replica sealed the same range differently: its shard stays",
            shard=ours.shard_id,
            differs=what,
            committed=[str(entry) for entry in commit.manifest.files],
            ours=[str(entry) for entry in ours.files],
        )
    if commit.overlapping:
        metrics.SEALED_DIFFERENTLY.labels("range").inc()
        log.error(
            "shards of the same bucket were cut elsewhere",
            shard=ours.shard_id,
            others=list(commit.overlapping),
        )
