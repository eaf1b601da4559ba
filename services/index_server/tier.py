"""Following a tier's pointer: fetch, check and map what is new, then swap in one step.

A search keeps the shards that it began with, so a swap fails none. Where a new shard cannot be
served, nothing is taken away: the old shards go on beside the good new ones. A bad one is tried
again, ever more rarely: each try may fetch the whole of it.
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
from shashin.errors import RepositoryError, ShashinError
from shashin.objectstore.protocol import Version
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.serving.served_shards import ServedShards
from shashin.shards.sealed_shard import SealedShard

FIRST_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 30.0
"""Between two attempts at shards that cannot be served, while the pointer stays as it is."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Swap:
    """What to serve next, decided from what the pointer names and what could be loaded."""

    serve: tuple[SealedShard, ...]
    drop: tuple[SealedShard, ...]


def plan_swap(
    serving: tuple[SealedShard, ...], loaded: dict[str, SealedShard], pointer: Pointer
) -> Swap:
    """Return the shards to serve: all of the pointer's that could be loaded.

    While one of them could not, the shards served so far stay as well.
    """
    named = {shard.shard_id for shard in pointer.shards}
    missing = named - loaded.keys()
    staying = [shard for shard in serving if shard.shard_id not in named] if missing else []
    serve = [loaded[shard_id] for shard_id in sorted(named & loaded.keys())]
    keep = {shard.shard_id for shard in (*serve, *staying)}
    return Swap(
        serve=(*serve, *staying),
        drop=tuple(shard for shard in serving if shard.shard_id not in keep),
    )


def _waits() -> Iterator[float]:
    return backoff_seconds(first=FIRST_WAIT_SECONDS, longest=MAX_WAIT_SECONDS)


class TierFollower:
    """Keeps the served shards in step with the pointer."""

    def __init__(
        self,
        settings: IndexServerSettings,
        served: ServedShards,
        repository: ModelRepository,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._served = served
        self._repository = repository
        self._cache = settings.work_folder
        self._serving: tuple[SealedShard, ...] = ()
        self._clock = clock
        self._bad: dict[str, str] = {}
        """Shards that cannot be served, with the reason."""
        self._waits = _waits()
        self._retry_at = 0.0

    def loop(self) -> Loop:
        """Return the loop, ready once the pointer has been read and acted on."""
        return Loop("follower of the pointer", self.run, ready_when="the tier's pointer")

    async def run(self, loop: LoopScope) -> None:
        """Follow the pointer until stopped."""
        done: Version | None = None
        while loop.next_turn():
            try:
                with loop.waiting_for("the tier's pointer"):
                    pointer, version = await self._repository.read_pointer(
                        self._settings.model_id, self._settings.tier
                    )
                metrics.BAD_POINTER.set(0)
                if pointer is None:
                    # Nothing is sealed yet: serving nothing is right.
                    loop.ready()
                elif version != done:
                    self._waits = _waits()
                    await self._swap_to(pointer, loop)
                    done = version
                    loop.ready()
                elif self._bad and self._clock() >= self._retry_at:
                    await self._swap_to(pointer, loop)
            except RepositoryError as error:
                metrics.BAD_POINTER.set(1)
                log.error("unreadable pointer: serving as before", error=error.message)  # noqa: TRY400
            except ShashinError as error:
                log.warning("repository does not answer: serving as before", error=error.message)
            await loop.sleep(self._settings.poll_seconds)

    async def _swap_to(self, pointer: Pointer, loop: LoopScope) -> None:
        loaded = {shard.shard_id: shard for shard in self._serving}
        bad: dict[str, str] = {}
        for pointed in pointer.shards:
            if pointed.shard_id in loaded:
                continue
            try:
                # A first start may fetch hundreds of shards, each of them for minutes.
                with loop.waiting_for(f"shard {pointed.shard_id}"):
                    loaded[pointed.shard_id] = await self._load(pointed)
            except ShashinError as error:
                bad[pointed.shard_id] = error.message
                if self._bad.get(pointed.shard_id) != error.message:
                    log.error(  # noqa: TRY400 - the message says all
                        "a shard cannot be served",
                        shard=pointed.shard_id,
                        error=error.message,
                    )
        self._bad = bad
        metrics.BAD_SHARDS.set(len(bad))
        if bad:
            self._retry_at = self._clock() + next(self._waits)
        swap = plan_swap(self._serving, loaded, pointer)
        if swap.serve != self._serving:
            failpoint("before-swap")
            self._serving = swap.serve
            self._served.serve(swap.serve)
            failpoint("after-swap")
            metrics.SWAPS.inc()
            log.info("swapped", serving=len(swap.serve), dropped=[s.shard_id for s in swap.drop])
        wanted = {shard.shard_id for shard in swap.serve}.union(bad)
        await asyncio.to_thread(self._forget_others, wanted)

    def _forget_others(self, wanted: set[str]) -> None:
        """Delete the tier's shards of the cache that are neither served nor to be tried again.

        Those of an earlier process and those that never could be served are among them. A mapped
        file may be unlinked: searches under way keep their mapping.
        """
        own = f"{self._settings.model_id}.{self._settings.tier}."
        for folder in self._cache.glob("*/"):
            if folder.name.startswith(own) and folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    async def _load(self, pointed: PointedShard) -> SealedShard:
        stored = await self._repository.read_shard(pointed.manifest_key)
        if stored.manifest.shard_id != pointed.shard_id:
            raise RepositoryError(
                f"the pointer names shard {pointed.shard_id}, but {pointed.manifest_key} is the "
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
        folder: Path = await self._repository.fetch(stored, self._cache)
        shard = await asyncio.to_thread(SealedShard, stored.manifest, folder)
        self._served.join(shard)
        try:
            await asyncio.to_thread(self._served.mask, shard)
        except BaseException:
            self._served.leave(shard)
            raise
        return shard
