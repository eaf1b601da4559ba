"""Sealing: writes, commits and announces the shard of a closed range."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from services.indexer import metrics
from services.indexer.settings import IndexerSettings
from shashin.errors import DiskUnavailable, ObjectStoreError
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import INDEXES_SEALED
from shashin.offsets.cut import CutReason
from shashin.repository.repository import ModelRepository
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.shard_id import shard_id
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2

_IDLE_SECONDS = 1.0

log = get_logger(__name__)


class Sealer:
    """Seals closed ranges one at a time; shards are written in ``executor``."""

    def __init__(
        self,
        settings: IndexerSettings,
        repository: ModelRepository,
        producer: Producer,
        executor: Executor,
        on_committed: Callable[[OpenShard], Awaitable[None]],
    ) -> None:
        self._space = settings.space
        self._bucket_seconds = settings.bucket_seconds
        self._work_folder = settings.work_folder
        self._repository = repository
        self._producer = producer
        self._executor = executor
        self._on_committed = on_committed
        """Called for each shard that is in the repository."""
        self._queue: deque[tuple[OpenShard, CutReason, float]] = deque()
        self._wake = asyncio.Event()

    def seal(self, shard: OpenShard, reason: CutReason) -> None:
        """Queue the shard of a closed range."""
        self._queue.append((shard, reason, time.monotonic()))
        self._wake.set()

    def loop(self) -> Loop:
        """Return the loop."""
        return Loop("sealer", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Seal queued shards until stopped.

        Shards still queued then are dropped: the next start reads their ranges from the log again.
        """
        while loop.next_turn():
            if not self._queue:
                self._wake.clear()
                await loop.wait(self._wake, _IDLE_SECONDS)
                continue
            shard, reason, queued_at = self._queue.popleft()
            first = await self._seal(shard, reason, loop)
            seconds = time.monotonic() - queued_at
            metrics.SEAL_SECONDS.observe(seconds)
            metrics.SHARDS_SEALED.labels(reason.value).inc()
            if not first:
                metrics.SEALED_BY_ANOTHER.inc()
            log.info(
                "sealed",
                range=str(shard.ranges[0]),
                rows=shard.rows,
                cut=reason.value,
                first=first,
                seconds=round(seconds, 3),
            )
            with loop.waiting_for("kafka to commit offsets"):
                await self._on_committed(shard)

    async def _seal(self, shard: OpenShard, reason: CutReason, loop: LoopScope) -> bool:
        identity = shard_id(self._space.model_id, HOURLY, shard.ranges)
        folder = self._work_folder / identity
        manifest = await loop.retry(
            f"writing shard {identity}",
            lambda: self._write_in_executor(shard, identity, reason, folder),
        )
        failpoint("after-write")
        first = await loop.retry(
            f"committing shard {identity}",
            lambda: self._repository.commit_shard(manifest, folder),
            # On any store error keep retrying: the rows stay searchable here in the meantime.
            also=(ObjectStoreError,),
        )
        announcement = self._announcement(manifest)
        failpoint("before-event")
        await loop.retry(
            f"announcing shard {identity}", lambda: self._producer.send_all([announcement])
        )
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return first

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

    async def _write_in_executor(
        self, shard: OpenShard, identity: str, reason: CutReason, folder: Path
    ) -> Manifest:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._write, shard, reason, folder)
        except OSError as error:
            raise DiskUnavailable(
                f"shard {identity} cannot be written to {folder}: {error.strerror or error}"
            ) from error

    def _write(self, shard: OpenShard, reason: CutReason, folder: Path) -> Manifest:
        manifest = shard.write(
            folder, tier=HOURLY, bucket_seconds=self._bucket_seconds, reason=reason.value
        )
        if manifest.recall_at_10 is not None:
            metrics.RECALL.set(manifest.recall_at_10)
        return manifest
