"""Follows a tier's pointer: fetches, verifies and maps new shards, then swaps atomically.

A search keeps the shards that it started with, so a swap fails no search. If a new shard cannot be
served, no shard is removed: the old ones stay, next to the good new ones. A bad shard is retried
with backoff, since each attempt may fetch all of it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.index_server import metrics
from services.index_server.settings import IndexServerSettings
from shashin.errors import DiskUnavailable, RepositoryError, ShashinError
from shashin.objectstore.protocol import Version
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.runtime.work_folder import WorkFolder
from shashin.serving.served_shards import ServedShards
from shashin.shards.sealed_shard import SealedShard

INITIAL_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
"""Between attempts to load bad shards while the pointer is unchanged."""

_REPOSITORY = "model repository"
_POINTER = "pointer"
_SHARDS = "shards"

log = get_logger(__name__)


@dataclass(frozen=True)
class Swap:
    """The shards to serve next, and those to drop."""

    serve: tuple[SealedShard, ...]
    drop: tuple[SealedShard, ...]


def plan_swap(
    serving: tuple[SealedShard, ...], loaded: dict[str, SealedShard], pointer: Pointer
) -> Swap:
    """Return the shards to serve: all in the pointer that could be loaded.

    If any could not, the shards served so far stay as well.
    """
    in_pointer = {shard.shard_id for shard in pointer.shards}
    missing = in_pointer - loaded.keys()
    kept = [shard for shard in serving if shard.shard_id not in in_pointer] if missing else []
    serve = [loaded[shard_id] for shard_id in sorted(in_pointer & loaded.keys())]
    keep = {shard.shard_id for shard in (*serve, *kept)}
    return Swap(
        serve=(*serve, *kept),
        drop=tuple(shard for shard in serving if shard.shard_id not in keep),
    )


def _retry_delays() -> Iterator[float]:
    return backoff_seconds(first=INITIAL_RETRY_SECONDS, longest=MAX_RETRY_SECONDS)


class TierFollower:
    """Keeps the served shards in step with the pointer."""

    def __init__(
        self,
        settings: IndexServerSettings,
        work: WorkFolder,
        served: ServedShards,
        repository: ModelRepository,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._served = served
        self._repository = repository
        self._work = work
        self._serving: tuple[SealedShard, ...] = ()
        self._clock = clock
        self._bad: dict[str, str] = {}
        """Shards that cannot be served, with the error."""
        self._retry_delays = _retry_delays()
        self._retry_at = 0.0

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
                    self._retry_delays = _retry_delays()
                    await self._swap_to(pointer, loop)
                    applied = version
                    loop.ready()
                elif self._bad and self._clock() >= self._retry_at:
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
        loaded = {shard.shard_id: shard for shard in self._serving}
        bad: dict[str, str] = {}
        for pointed in pointer.shards:
            if pointed.shard_id in loaded:
                continue
            try:
                # A first start may fetch hundreds of shards, each taking minutes.
                with loop.waiting_for(f"shard {pointed.shard_id}"):
                    loaded[pointed.shard_id] = await self._load(pointed)
            except ShashinError as error:
                bad[pointed.shard_id] = error.message
                if self._bad.get(pointed.shard_id) != error.message:
                    log.error(  # noqa: TRY400 - the message is enough
                        "shard cannot be served",
                        shard=pointed.shard_id,
                        error=error.message,
                    )
        self._bad = bad
        metrics.BAD_SHARDS.set(len(bad))
        if bad:
            loop.degraded(_SHARDS, f"{len(bad)} cannot be served: {', '.join(sorted(bad))}")
            self._retry_at = self._clock() + next(self._retry_delays)
        else:
            loop.clear(_SHARDS)
        swap = plan_swap(self._serving, loaded, pointer)
        if swap.serve != self._serving:
            failpoint("before-swap")
            self._serving = swap.serve
            self._served.serve(swap.serve)
            failpoint("after-swap")
            metrics.SWAPS.inc()
            log.info("swapped", serving=len(swap.serve), dropped=[s.shard_id for s in swap.drop])
        keep = {shard.shard_id for shard in swap.serve}.union(bad)
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

    async def _load(self, pointed: PointedShard) -> SealedShard:
        stored = await self._repository.read_shard(pointed.manifest_key)
        if stored.manifest.shard_id != pointed.shard_id:
            raise RepositoryError(
                f"the pointer refers to shard {pointed.shard_id}, but {pointed.manifest_key} is the "
                f"manifest of {stored.manifest.shard_id}"
            )
        if stored.manifest.model_id != self._settings.model_id:
            raise RepositoryError(
                f"shard {pointed.shard_id} has vectors of model {stored.manifest.model_id}; "
                f"SHASHIN_MODEL_ID is {self._settings.model_id}"
            )
        if stored.manifest.dimensions != self._settings.dimensions:
            raise RepositoryError(
                f"shard {pointed.shard_id} has {stored.manifest.dimensions} dimensions; "
                f"SHASHIN_DIMENSIONS is {self._settings.dimensions}"
            )
        folder = await self._fetch(stored)
        shard = await asyncio.to_thread(SealedShard, stored.manifest, folder)
        self._served.join(shard)
        try:
            await asyncio.to_thread(self._served.mask, shard)
        except BaseException:
            self._served.leave(shard)
            raise
        return shard
