"""A manifest that becomes unreadable in mid-run, and is restored."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

from shashin.errors import ShashinError
from shashin.local.processes import ProcessRow
from shashin.local.system import System
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.offsets.ranges import MergedRanges
from shashin.repository.pointer import PointedShard
from shashin.repository.repository import ModelRepository
from shashin.tiers import HOURLY, SEALED_TIERS
from tests.chaos.metrics import page_of

_AT_LEAST_SECONDS = 15.0
_LOOK_SECONDS = 0.5

_REFUSED = "shashin_image_builder_refused_shards"


class Damage:
    """Damages a manifest until the image builder has planned and an indexer has started with it.

    Unreadable is not absent: the pointers must go on naming its offsets.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self.happened = False
        """Whether the builder planned and an indexer started while a manifest was unreadable."""
        self.problem = ""
        """What went wrong, if anything."""

    async def run(self) -> None:
        """Damage one manifest after another until that has happened or something went wrong."""
        async with opened_object_store(self._system.repository) as store:
            while not self.happened and not self.problem:
                await self._damage_newest(store)
                await asyncio.sleep(_LOOK_SECONDS)

    async def _damage_newest(self, store: ObjectStore) -> None:
        repository = ModelRepository(store)
        shards = await self._pointed(repository, (HOURLY,))
        if not shards:
            return
        shard = max(shards, key=lambda shard: max(r.to_offset for r in shard.ranges))
        manifest, _ = await store.read(shard.manifest_key)
        await store.write(shard.manifest_key, b"{ not a manifest")
        try:
            if await self._happens(repository, shard):
                named = await self._pointed(repository, SEALED_TIERS)
                self.happened = True
                if not MergedRanges(r for s in named for r in s.ranges).contain_all(shard.ranges):
                    self.problem = (
                        f"no pointer names {shard.shard_id} any more, whose manifest was unreadable"
                    )
        except ShashinError as error:
            self.problem = f"with an unreadable manifest: {error.message}"
        finally:
            await store.write(shard.manifest_key, manifest)

    async def _happens(self, repository: ModelRepository, shard: PointedShard) -> bool:
        """Wait for the plan and the start; False if builds merged the shard before."""
        started = asyncio.get_running_loop().time()
        killed = None
        planned = False
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            rows = {row.name: row for row in self._system.processes()}
            planned = planned or await _has_refused(rows.get("image-builder"))
            if not planned:
                pointed = await self._pointed(repository, (HOURLY,))
                if shard.shard_id not in {other.shard_id for other in pointed}:
                    return False
                continue
            indexer = rows.get("indexer")
            if killed is None:
                killed = _kill(indexer)
            elif (
                indexer is not None
                and indexer.well
                and indexer.pid != killed
                and asyncio.get_running_loop().time() - started > _AT_LEAST_SECONDS
            ):
                return True

    async def _pointed(
        self, repository: ModelRepository, tiers: Sequence[str]
    ) -> list[PointedShard]:
        pointers = [await repository.read_pointer(self._system.model_id, tier) for tier in tiers]
        return [shard for pointer, _ in pointers if pointer for shard in pointer.shards]


async def _has_refused(builder: ProcessRow | None) -> bool:
    """Whether the image builder says that it planned with an unreadable manifest."""
    page = "" if builder is None else await page_of(builder.addresses["http"])
    return any(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == _REFUSED and sample.labels == {"tier": HOURLY, "reason": "unreadable"}
    )


def _kill(process: ProcessRow | None) -> int | None:
    """Kill a process, which its supervisor starts again; returns its pid, None if it was gone."""
    if process is None or process.pid is None:
        return None
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return process.pid
