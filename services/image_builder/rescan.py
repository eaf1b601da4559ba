"""The daily look at a whole repository, for what planning cannot know: in proportion to its history."""

from __future__ import annotations

import time
from collections.abc import Callable

from shashin.errors import ObjectStoreError, RepositoryError
from shashin.metrics import image_builder as metrics
from shashin.objectstore.protocol import ObjectStore
from shashin.offsets.ranges import MergedRanges
from shashin.repository.pointer import PointedShard
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.repository.snapshot_ages import newest_snapshot_at
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.shards.format.manifest import range_in_key
from shashin.tiers import SEALED_TIERS

_SECONDS = 24 * 3600.0
_RETRY_SECONDS = 60.0

log = get_logger(__name__)


class Rescan:
    """Announces shards that nobody announced, and measures how old snapshots of hidden rows are.

    Such shards are those whose announcement was lost or never written: restored from a backup, or
    committed by an earlier version. Calls ``wake`` when it has announced one.
    """

    def __init__(
        self,
        model_id: str,
        store: ObjectStore,
        wake: Callable[[], None],
    ) -> None:
        self._model_id = model_id
        self._store = store
        self._repository = ModelRepository(store)
        self._wake = wake

    def loop(self) -> Loop:
        """Return the loop, which begins at once."""
        return Loop("rescan", self.run)

    async def run(self, loop: LoopScope) -> None:
        """Look at the start and once a day, until stopped."""
        next_look = 0.0
        while await loop.sleep(1.0):
            if time.monotonic() < next_look:
                continue
            try:
                with loop.waiting_for("the model repository to list its shards"):
                    await self._look()
            except (ObjectStoreError, RepositoryError) as error:
                loop.degraded("rescan", error.message)
                next_look = time.monotonic() + _RETRY_SECONDS
            else:
                loop.clear("rescan")
                next_look = time.monotonic() + _SECONDS

    async def _look(self) -> None:
        # The listing before the pointers: what is served in between is named by them.
        keys = {
            tier: await self._repository.manifest_keys(self._model_id, tier)
            for tier in SEALED_TIERS
        }
        announced = {
            found.announcement.manifest_key
            for found in await self._repository.announced(self._model_id)
            if found.announcement is not None
        }
        shards: list[PointedShard] = []
        for tier in SEALED_TIERS:
            pointer, _ = await self._repository.read_pointer(self._model_id, tier)
            shards += pointer.shards if pointer else ()
        named = {shard.manifest_key for shard in shards}
        served = MergedRanges(r for shard in shards for r in shard.ranges)
        for key in (key for of_tier in keys.values() for key in of_tier):
            if key in named or key in announced or await self._is_contained(key, served):
                continue
            log.info("shard without an announcement found", key=key)
            await self._repository.announce(key)
            self._wake()
        await self._measure_snapshots(shards)

    async def _is_contained(self, manifest_key: str, served: MergedRanges) -> bool:
        only = range_in_key(manifest_key)
        if only is not None:
            return served.contain(only)
        shard = await self._repository.shard_at(manifest_key)
        ranges = shard.manifest.source_ranges if isinstance(shard, StoredShard) else ()
        return shard is None or served.contain_all(ranges)

    async def _measure_snapshots(self, served: list[PointedShard]) -> None:
        oldest = time.time()
        for pointed in served:
            shard = await self._repository.shard_at(pointed.manifest_key)
            if isinstance(shard, StoredShard):
                oldest = min(oldest, await newest_snapshot_at(self._store, shard.manifest))
        metrics.OLDEST_SNAPSHOT.set(oldest)
