"""Follows a tier's pointer: fetches, verifies and maps new shards, then swaps atomically.

A search keeps the shards that it started with, so a swap fails no search. If a new shard cannot be
served, no shard is removed: the old ones stay, next to the good new ones. A bad shard is retried
with backoff, since each attempt may fetch all of it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.index_server import metrics
from services.index_server.settings import IndexServerSettings
from shashin.errors import DiskUnavailable, RecordsLost, RepositoryError, ShashinError
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.objectstore.protocol import Version
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.runtime.backoff import backoff_seconds
from shashin.runtime.failpoints import failpoint
from shashin.runtime.logging import get_logger
from shashin.runtime.scope import Loop, LoopScope
from shashin.runtime.work_folder import WorkFolder
from shashin.serving.catch_up import CatchUp, Joined, Joining
from shashin.serving.served_shards import ServedShards, Snapshot
from shashin.shards.sealed_shard import SealedShard

INITIAL_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
"""Between attempts to load bad shards while the pointer is unchanged."""

_REPOSITORY = "model repository"
_POINTER = "pointer"
_SHARDS = "shards"
_HIDDEN_GAPS = "hidden rows of shards"
_REACHED_SECONDS = 0.05
"""Between checks for whether the log of hidden listings was reached."""

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
        snapshots: HiddenSnapshots,
        catch_up: CatchUp,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._served = served
        self._repository = repository
        self._snapshots = snapshots
        self._catch_up = catch_up
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
        serving = {shard.shard_id: shard for shard in self._serving}
        joining: list[Joining] = []
        bad: dict[str, ShashinError] = {}
        for pointed in pointer.shards:
            if pointed.shard_id in serving:
                continue
            try:
                # A first start may fetch hundreds of shards, each taking minutes.
                with loop.waiting_for(f"shard {pointed.shard_id}"):
                    joining.append(await self._load(pointed))
            except ShashinError as error:
                bad[pointed.shard_id] = error
        joined = Joined(Snapshot(()))
        if joining:
            if not await self._log_reached(loop):
                return
            with loop.waiting_for(f"what {LISTINGS_HIDDEN} has for new shards"):
                joined = await self._catch_up.join(joining)
        try:
            for partition, record in joined.unreadable.items():
                problem = f"{record}: {record.problem}"
                loop.degraded(f"{LISTINGS_HIDDEN}[{partition}]", problem)
                log.error("unreadable record of listings.hidden", problem=problem)
            bad |= joined.refused
            self._report(bad, loop)
            masked = {
                one.shard.shard_id: one.shard
                for one in joining
                if one.shard.shard_id not in joined.refused
            }
            swap = plan_swap(self._serving, serving | masked, pointer)
            if swap.serve != self._serving:
                await self._serve(swap)
        finally:
            self._served.leave(joined.shards)
        keep = {shard.shard_id for shard in swap.serve}.union(bad)
        await asyncio.to_thread(self._prune_cache, keep)

    async def _log_reached(self, loop: LoopScope) -> bool:
        """Wait until it is known which records are new; returns whether to continue."""
        if not self._catch_up.possible:
            log.info("shards wait for the follower of hidden listings")
        while not self._catch_up.possible:
            with loop.waiting_for(f"the follower of {LISTINGS_HIDDEN}"):
                if not await loop.sleep(_REACHED_SECONDS):
                    return False
        return True

    async def _serve(self, swap: Swap) -> None:
        snapshot = await asyncio.to_thread(self._served.prepare, swap.serve)
        failpoint("before-swap")
        self._serving = swap.serve
        self._served.serve(snapshot)
        failpoint("after-swap")
        metrics.SWAPS.inc()
        log.info("swapped", serving=len(swap.serve), dropped=[s.shard_id for s in swap.drop])

    def _report(self, bad: Mapping[str, ShashinError], loop: LoopScope) -> None:
        for shard_id, error in bad.items():
            if self._bad.get(shard_id) != error.message:
                log.error("shard cannot be served", shard=shard_id, error=error.message)
        self._bad = {shard_id: error.message for shard_id, error in bad.items()}
        metrics.BAD_SHARDS.set(len(bad))
        if not bad:
            loop.clear(_SHARDS)
            loop.clear(_HIDDEN_GAPS)
            return
        loop.degraded(_SHARDS, f"{len(bad)} cannot be served: {', '.join(sorted(bad))}")
        gaps = [error.message for error in bad.values() if isinstance(error, RecordsLost)]
        if gaps:
            loop.degraded(_HIDDEN_GAPS, f"{len(gaps)} shards: the first is {gaps[0]}")
        else:
            loop.clear(_HIDDEN_GAPS)
        self._retry_at = self._clock() + next(self._retry_delays)

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
        snapshots = await self._snapshots.read(stored.manifest)
        for key, error in snapshots.unreadable.items():
            log.error("unreadable snapshot: not used", key=key, error=error.message)
        return Joining(shard, tuple(snapshots.by_key.values()))
