"""Follows a tier's pointer: fetches and verifies new shards, which are then swapped in.

A bad shard is retried with backoff, since each attempt may fetch all of it.
"""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path

from services.index_server.settings import IndexServerSettings
from services.index_server.swap import ShardSwapper
from shashin.errors import DiskUnavailable, RepositoryError, ShashinError
from shashin.metrics import index_server as metrics
from shashin.objectstore.protocol import Version
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.runtime.work_folder import WorkFolder
from shashin.serving.catch_up import Joining

_REPOSITORY = "model repository"
_POINTER = "pointer"

log = get_logger(__name__)


class TierFollower:
    """Keeps the served shards in step with the pointer."""

    def __init__(
        self,
        settings: IndexServerSettings,
        work: WorkFolder,
        repository: ModelRepository,
        swapper: ShardSwapper,
    ) -> None:
        self._settings = settings
        self._work = work
        self._repository = repository
        self._swapper = swapper

    def loop(self) -> Loop:
        """Return the loop; ready once the pointer has been read and applied."""
        return Loop("pointer follower", self.run, ready_when="the tier's pointer")

    async def run(self, loop: LoopScope) -> None:
        """Follow the pointer until stopped."""
        applied: Version | None = None
        while loop.next_turn():
            try:
                with loop.waiting_for("the tier's pointer"):
                    pointer, version = await self._repository.read_pointer(
                        self._settings.model_id, self._settings.tier
                    )
                metrics.BAD_POINTER.set(0)
                loop.clear(_REPOSITORY)
                loop.clear(_POINTER)
                if pointer is None:
                    # Nothing is sealed yet, so there is nothing to serve.
                    loop.ready()
                elif version != applied:
                    self._swapper.restart_backoff()
                    await self._swap_to(pointer, loop)
                    applied = version
                    loop.ready()
                elif self._swapper.retry_due:
                    await self._swap_to(pointer, loop)
            except RepositoryError as error:
                metrics.BAD_POINTER.set(1)
                loop.degraded(_POINTER, error.message)
                log.error("unreadable pointer: shards unchanged", error=error.message)  # noqa: TRY400
            except ShashinError as error:
                loop.degraded(_REPOSITORY, error.message)
                log.warning("repository unavailable: shards unchanged", error=error.message)
            await loop.sleep(self._settings.poll_seconds)

    async def _swap_to(self, pointer: Pointer, loop: LoopScope) -> None:
        wanted = {shard.shard_id: partial(self._load, shard) for shard in pointer.shards}
        if await self._swapper.swap_to(wanted, loop):
            keep = {shard.shard_id for shard in self._swapper.serving}.union(self._swapper.bad)
            await asyncio.to_thread(self._prune_cache, keep)

    def _prune_cache(self, keep: set[str]) -> None:
        """Delete the tier's cached shards that are neither served nor to be retried.

        That includes shards of an earlier process. Unlinking a mapped file is safe: running
        searches keep their mapping.
        """
        own = f"{self._settings.model_id}.{self._settings.tier}."
        for folder in self._work.path.glob("*/"):
            if folder.name.startswith(own) and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    async def _fetch(self, stored: StoredShard) -> Path:
        try:
            await asyncio.to_thread(self._work.keep)
        except OSError as error:
            raise DiskUnavailable(
                f"{self._work.path} cannot be written: {error.strerror or error}"
            ) from error
        return await self._repository.fetch(stored, self._work.path)

    async def _load(self, pointed: PointedShard) -> Joining:
        stored = await self._repository.read_shard(pointed.manifest_key)
        if stored.manifest.shard_id != pointed.shard_id:
            raise RepositoryError(
                f"the pointer refers to shard {pointed.shard_id}, but {pointed.manifest_key} is the "
                f"manifest of {stored.manifest.shard_id}"
            )
        self._swapper.check(stored.manifest)
        return await self._swapper.opened(stored.manifest, await self._fetch(stored))
