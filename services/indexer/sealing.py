"""Sealing: from an ended range to a committed shard, and the news of it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path

from services.indexer import metrics
from shashin.errors import DiskUnavailable, ObjectStoreError
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.retry import until_done
from shashin.kafka.topics import INDEXES_SEALED
from shashin.offsets.cut import CutReason
from shashin.repository.repository import ModelRepository
from shashin.runtime.failpoints import failpoint
from shashin.runtime.health import Heartbeat
from shashin.runtime.logging import get_logger
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest
from shashin.shards.format.shard_id import shard_folder, shard_id
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2

log = get_logger(__name__)


class Sealer:
    """Writes, commits and announces ended ranges, one after the other."""

    def __init__(
        self,
        repository: ModelRepository,
        producer: Producer,
        *,
        model_id: str,
        bucket_seconds: int,
        work_folder: Path,
        executor: Executor,
        stopping: asyncio.Event,
    ) -> None:
        self._repository = repository
        self._producer = producer
        self._model_id = model_id
        self._bucket_seconds = bucket_seconds
        self._work_folder = work_folder
        self._executor = executor
        self._stopping = stopping
        self._queue: asyncio.Queue[tuple[OpenShard, CutReason, float]] = asyncio.Queue()

    def seal(self, shard: OpenShard, reason: CutReason) -> None:
        """Queue an ended range."""
        self._queue.put_nowait((shard, reason, time.monotonic()))

    async def run(self, sealed: Callable[[OpenShard], Awaitable[None]], beat: Heartbeat) -> None:
        """Seal what is queued until stopped; tells ``sealed`` of each committed shard.

        What is queued at the end is left: the next start reads it from the log again.
        """
        while not self._stopping.is_set():
            beat.beat()
            try:
                shard, reason, since = await asyncio.wait_for(self._queue.get(), 0.5)
            except TimeoutError:
                continue
            first = await self._seal(shard, reason, beat)
            seconds = time.monotonic() - since
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
            await sealed(shard)

    async def _seal(self, shard: OpenShard, reason: CutReason, beat: Heartbeat) -> bool:
        identity = shard_id(self._model_id, HOURLY, shard.ranges)
        folder = self._work_folder / identity
        manifest = await until_done(
            f"write shard {identity}",
            lambda: self._written(shard, identity, reason, folder),
            stopping=self._stopping,
            beat=beat,
        )
        failpoint("after-write")
        first = await until_done(
            f"commit shard {identity}",
            lambda: self._repository.commit_shard(manifest, folder),
            stopping=self._stopping,
            beat=beat,
            # Whatever keeps a shard from the store, its rows are to be searched here meanwhile.
            waits_for=(ObjectStoreError,),
        )
        prefix = shard_folder(self._model_id, HOURLY, manifest.bucket_start, identity)
        news = OutRecord(
            INDEXES_SEALED,
            identity.encode(),
            events_pb2.SealedShard(
                shard_id=identity,
                tier=HOURLY,
                model_id=self._model_id,
                manifest_key=f"{prefix}/{MANIFEST_FILE}",
            ).SerializeToString(),
        )
        failpoint("before-event")
        await until_done(
            f"announce shard {identity}",
            lambda: self._producer.send_all([news]),
            stopping=self._stopping,
            beat=beat,
        )
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return first

    async def _written(
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
